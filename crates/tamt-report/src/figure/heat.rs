//! Heat maps.

use plotters::element::Rectangle;
use plotters::prelude::{IntoDrawingArea, SVGBackend};
use plotters::style::Color;

use crate::error::{Error, Result};
use crate::figure::plot::text_width;
use crate::figure::svg::{self, Hit, HitShape, Label, SCALE};
use crate::figure::theme::{self, Colour, INK, MUTED};

/// A heat map.
#[derive(Debug, Default)]
pub struct Heat {
    /// The title.
    pub title: String,
    /// The names of rows.
    pub rows: Vec<String>,
    /// The names of columns.
    pub columns: Vec<String>,
    /// The fields, row by row.
    pub fields: Vec<Vec<Option<Field>>>,
    /// The values at the ends of the scale; colours diverge from 0 if the first is below 0.
    pub range: (f64, f64),
    /// Digits after the point.
    pub decimals: usize,
}

/// A field.
#[derive(Debug, Clone)]
pub struct Field {
    /// The value.
    pub value: f64,
    /// What a pointer shows.
    pub tip: String,
    /// The runs.
    pub runs: Vec<usize>,
}

/// Sizes in pixels.
struct Grid {
    left: i32,
    top: i32,
    cell: (i32, i32),
    width: i32,
    height: i32,
    turned: bool,
}

const TOP: i32 = 30;

impl Heat {
    /// Whether the map is too wide for a column of the page.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.grid().width > 430
    }

    fn grid(&self) -> Grid {
        let longest = |names: &[String]| names.iter().map(|name| text_width(name)).max().unwrap_or(0).min(190);
        let (left, widest) = (longest(&self.rows) + 14, longest(&self.columns));
        let digits = text_width(&crate::document::fixed(-1.0, self.decimals)) + 8;
        let columns = self.columns.len().max(1) as i32;
        let room = (400 - left - 8) / columns;
        let cell = room.clamp(digits.max(22), 64);
        let turned = widest + 6 > cell;
        let top = TOP + if turned { widest + 8 } else { 20 };
        let (width, height) = (left + cell * columns + 12, top + 26 * self.rows.len() as i32 + 40);
        Grid { left, top, cell: (cell, 26), width: width.max(300), height, turned }
    }

    /// Draws the map.
    ///
    /// # Errors
    /// [`Error::Figure`] if the plotting library refuses.
    pub fn draw(&self) -> Result<String> {
        let grid = self.grid();
        let (mut drawn, mut labels, mut hits) = (String::new(), String::new(), Vec::new());
        self.paint(&mut drawn, &grid, &mut labels, &mut hits)
            .map_err(|reason| Error::Figure { figure: self.title.clone(), reason })?;
        Ok(svg::finish(&drawn, (grid.width, grid.height), &self.title, &labels, &hits))
    }

    fn colours(&self, value: f64) -> (Colour, Colour) {
        let (low, high) = self.range;
        if low < 0.0 {
            theme::diverging(value / high.max(-low).max(f64::MIN_POSITIVE))
        } else {
            theme::sequential((value - low) / (high - low).max(f64::MIN_POSITIVE))
        }
    }

    fn paint(&self, drawn: &mut String, grid: &Grid, labels: &mut String, hits: &mut Vec<Hit>) -> Result<(), String> {
        let size = ((grid.width * SCALE) as u32, (grid.height * SCALE) as u32);
        let root = SVGBackend::with_string(drawn, size).into_drawing_area();
        let mut field = |x: i32, y: i32, (width, height): (i32, i32), colour: Colour| {
            let corners = [(x * SCALE, y * SCALE), ((x + width - 1) * SCALE, (y + height - 1) * SCALE)];
            root.draw(&Rectangle::new(corners, colour.rgb().filled())).map_err(|error| error.to_string())
        };
        self.names(grid, labels);
        for (row, fields) in self.fields.iter().enumerate() {
            for (column, content) in fields.iter().enumerate() {
                let Some(Field { value, tip, runs }) = content else { continue };
                let (x, y) = (grid.left + grid.cell.0 * column as i32, grid.top + grid.cell.1 * row as i32);
                let (colour, ink) = self.colours(*value);
                field(x, y, grid.cell, colour)?;
                let text = crate::document::fixed(*value, self.decimals);
                let text = if self.range.0 < 0.0 { crate::document::signed(*value, self.decimals) } else { text };
                let centre = ((x + grid.cell.0 / 2) * SCALE, (y + grid.cell.1 / 2) * SCALE);
                put(labels, centre, "middle", 12, ink, &text);
                let (width, height) = (grid.cell.0 * SCALE, grid.cell.1 * SCALE);
                let shape = HitShape::Rect { x: x * SCALE, y: y * SCALE, width, height };
                hits.push(Hit { shape, tip: tip.clone(), runs: runs.clone() });
            }
        }
        self.scale(grid, labels, &mut field)?;
        root.present().map_err(|error| error.to_string())
    }

    fn names(&self, grid: &Grid, labels: &mut String) {
        put(labels, (12 * SCALE, 14 * SCALE), "start", 14, INK, &self.title);
        for (row, name) in self.rows.iter().enumerate() {
            let y = grid.top + grid.cell.1 * row as i32 + grid.cell.1 / 2;
            put(labels, ((grid.left - 7) * SCALE, y * SCALE), "end", 12, MUTED, &shortened(name));
        }
        for (column, name) in self.columns.iter().enumerate() {
            let x = (grid.left + grid.cell.0 * column as i32 + grid.cell.0 / 2) * SCALE;
            let (y, anchor) = ((grid.top - 8) * SCALE, if grid.turned { "start" } else { "middle" });
            let text = shortened(name);
            svg::label(labels, &Label { x, y, anchor, size: 12, colour: MUTED, turned: grid.turned, text: &text });
        }
    }

    /// The scale of colours below the map.
    fn scale(
        &self,
        grid: &Grid,
        labels: &mut String,
        field: &mut impl FnMut(i32, i32, (i32, i32), Colour) -> Result<(), String>,
    ) -> Result<(), String> {
        let (low, high) = self.range;
        let low = if low < 0.0 { -high.max(-low) } else { low };
        let high = if low < 0.0 { -low } else { high };
        let top = grid.height - 20;
        let steps = 9;
        for step in 0..steps {
            let value = low + (high - low) * (f64::from(step) + 0.5) / f64::from(steps);
            field(grid.left + 12 * step, top, (13, 9), self.colours(value).0)?;
        }
        let y = (top + 4) * SCALE;
        let decimals = self.decimals;
        put(labels, ((grid.left - 7) * SCALE, y), "end", 11, MUTED, &crate::document::fixed(low, decimals));
        let right = (grid.left + 12 * steps + 6) * SCALE;
        put(labels, (right, y), "start", 11, MUTED, &crate::document::fixed(high, decimals));
        Ok(())
    }
}

fn put(labels: &mut String, (x, y): (i32, i32), anchor: &'static str, size: i32, colour: Colour, text: &str) {
    svg::label(labels, &Label { x, y, anchor, size, colour, turned: false, text });
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= 31 { name.to_owned() } else { name.chars().take(30).chain(['…']).collect() }
}
