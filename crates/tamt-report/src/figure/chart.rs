//! Charts: curves with error bands, and scattered points.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::{EmptyElement, PathElement, Polygon};
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, DashedLineSeries, DrawingArea, IntoDrawingArea, SVGBackend,
};
use plotters::style::{Color, ShapeStyle};

use crate::error::{Error, Result};
use crate::figure::plot::{Frame, Legend, marker, spread};
use crate::figure::svg::{self, Hit, HitShape, Label, SCALE};
use crate::figure::theme::{AXIS, GRID, INK, Look, MUTED, SURFACE};
use crate::figure::ticks::{Axis, Scale};

/// A chart.
#[derive(Debug, Default)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The series.
    pub series: Vec<Series>,
    /// The height of the dashed line of the dense model.
    pub dense: Option<f64>,
}

/// Points of one method.
#[derive(Debug)]
pub struct Series {
    /// The name.
    pub label: String,
    /// Colour and marker.
    pub look: Look,
    /// Whether a line joins the points.
    pub joined: bool,
    /// The points, by ascending x where a line joins them.
    pub points: Vec<Point>,
}

/// A point.
#[derive(Debug)]
pub struct Point {
    /// The horizontal value.
    pub x: f64,
    /// The vertical value.
    pub y: f64,
    /// Half the height of the error band.
    pub deviation: Option<f64>,
    /// What a pointer shows.
    pub tip: String,
    /// The runs.
    pub runs: Vec<usize>,
}

type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Radius of markers in pixels.
const RADIUS: f64 = 4.2;

impl Chart {
    /// Draws the chart.
    ///
    /// # Errors
    /// [`Error::Figure`] if the plotting library refuses.
    pub fn draw(&self) -> Result<String> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let xs: Vec<f64> = points().map(|point| point.x).chain(self.x.ticks.iter().copied()).collect();
        let ends = |p: &Point| [p.y - p.deviation.unwrap_or(0.0), p.y + p.deviation.unwrap_or(0.0)];
        let ys: Vec<f64> = points().flat_map(ends).chain(self.dense).collect();
        let (x, y) = (Scale::new(&self.x, &xs, 5), Scale::new(&self.y, &ys, 6));
        let names: Vec<(String, Look)> = self.series.iter().map(|series| (series.label.clone(), series.look)).collect();
        let joined = self.series.iter().any(|series| series.joined);
        let frame = Frame::new(&names, joined);
        let (mut drawn, mut hits, mut labels) = (String::new(), Vec::new(), String::new());
        self.plot(&mut drawn, &frame, (&x, &y), &mut hits, &mut labels)
            .map_err(|reason| Error::Figure { figure: self.title.clone(), reason })?;
        Ok(svg::finish(&drawn, (frame.width, frame.height), &self.title, &labels, &hits))
    }

    fn plot(
        &self,
        drawn: &mut String,
        frame: &Frame,
        (x, y): (&Scale, &Scale),
        hits: &mut Vec<Hit>,
        labels: &mut String,
    ) -> Result<(), String> {
        let size = ((frame.width * SCALE) as u32, (frame.height * SCALE) as u32);
        let root = SVGBackend::with_string(drawn, size).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_left(frame.left * SCALE)
            .margin_right(frame.right * SCALE)
            .margin_top(frame.top * SCALE)
            .margin_bottom(frame.bottom * SCALE)
            .build_cartesian_2d(x.range.0..x.range.1, y.range.0..y.range.1)
            .map_err(|error| error.to_string())?;
        self.grid(&mut chart, (x, y))?;
        for series in &self.series {
            band(&mut chart, series, (x, y))?;
        }
        for series in &self.series {
            curve(&mut chart, series, (x, y), hits)?;
        }
        self.axes(&chart, frame, (x, y), labels);
        self.names((&root, &chart), frame, (x, y), labels)?;
        root.present().map_err(|error| error.to_string())
    }

    fn grid(&self, chart: &mut Context<'_>, (x, y): (&Scale, &Scale)) -> Result<(), String> {
        let thin = GRID.rgb().stroke_width(SCALE as u32);
        let lines = y.ticks.iter().map(|&tick| PathElement::new(vec![(x.range.0, tick), (x.range.1, tick)], thin));
        chart.draw_series(lines).map_err(|error| error.to_string())?;
        let axis = AXIS.rgb().stroke_width(SCALE as u32);
        let floor = y.range.0;
        let base = std::iter::once(PathElement::new(vec![(x.range.0, floor), (x.range.1, floor)], axis));
        chart.draw_series(base).map_err(|error| error.to_string())?;
        if let Some(dense) = self.dense.map(|dense| y.place(dense)) {
            let style = AXIS.rgb().stroke_width(SCALE as u32 * 3 / 2);
            let ends = [(x.range.0, dense), (x.range.1, dense)];
            let line = DashedLineSeries::new(ends, 5 * SCALE, 4 * SCALE, style);
            chart.draw_series(line).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn axes(&self, chart: &Context<'_>, frame: &Frame, (x, y): (&Scale, &Scale), labels: &mut String) {
        let mut put = |x: i32, y: i32, anchor, size, colour, turned, text: &str| {
            svg::label(labels, &Label { x, y, anchor, size, colour, turned, text });
        };
        for &tick in &x.ticks {
            let (at, bottom) = chart.backend_coord(&(tick, y.range.0));
            put(at, bottom + 12 * SCALE, "middle", 12, MUTED, false, &x.text(tick));
        }
        for &tick in &y.ticks {
            let (left, at) = chart.backend_coord(&(x.range.0, tick));
            put(left - 6 * SCALE, at, "end", 12, MUTED, false, &y.text(tick));
        }
        let middle = (frame.left + (frame.width - frame.left - frame.right) / 2) * SCALE;
        let below = (frame.height - frame.bottom + 30) * SCALE;
        put(middle, below, "middle", 12, MUTED, false, &self.x.label);
        put(12 * SCALE, 14 * SCALE, "start", 14, INK, false, &self.title);
        let height = (frame.top + (frame.height - frame.top - frame.bottom) / 2) * SCALE;
        put(9 * SCALE, height, "middle", 12, MUTED, true, &self.y.label);
    }

    /// The names of the series: at the ends of their curves, or below the chart.
    fn names(
        &self,
        (root, chart): (&Root<'_>, &Context<'_>),
        frame: &Frame,
        (x, y): (&Scale, &Scale),
        labels: &mut String,
    ) -> Result<(), String> {
        let mut put = |x: i32, y: i32, colour, text: &str| {
            svg::label(labels, &Label { x, y, anchor: "start", size: 12, colour, turned: false, text });
        };
        match &frame.legend {
            Legend::AtEnds => {
                let end = |series: &Series| {
                    series.points.last().map(|p| chart.backend_coord(&(x.place(p.x), y.place(p.y))).1)
                };
                let mut names: Vec<(i32, String, Option<Look>)> = Vec::new();
                for series in &self.series {
                    names.extend(end(series).map(|at| (at, series.label.clone(), Some(series.look))));
                }
                let dense = self.dense.map(|dense| chart.backend_coord(&(x.range.0, y.place(dense))).1);
                names.extend(dense.map(|at| (at, "dense".to_owned(), None)));
                let bounds = (frame.top * SCALE, (frame.height - frame.bottom) * SCALE);
                let right = (frame.width - frame.right + 8) * SCALE;
                let heights = spread(&names.iter().map(|name| name.0).collect::<Vec<_>>(), 13 * SCALE, bounds);
                for ((_, name, look), height) in names.iter().zip(heights) {
                    let colour = look.map_or(MUTED, |look| look.colour);
                    put(right, height, colour, &frame.fitting(name));
                }
            }
            Legend::Below(places) => {
                for (series, &(at, height)) in self.series.iter().zip(places) {
                    draw_marker(root, ((at + 5) * SCALE, height * SCALE), series.look)?;
                    put((at + 14) * SCALE, height * SCALE, INK, &frame.fitting(&series.label));
                }
            }
        }
        Ok(())
    }
}

/// Draws a marker at a place of the grid, outside of the plotting area too.
fn draw_marker(root: &Root<'_>, (x, y): (i32, i32), look: Look) -> Result<(), String> {
    let corners: Vec<(i32, i32)> =
        marker(look.shape, RADIUS * f64::from(SCALE)).iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
    root.draw(&Polygon::new(corners, look.colour.rgb().filled())).map_err(|error| error.to_string())
}

/// The error bands of a curve where neighbouring points have deviations, and the error bars of other points.
fn band(chart: &mut Context<'_>, series: &Series, (x, y): (&Scale, &Scale)) -> Result<(), String> {
    let ends = |point: &Point| {
        let half = point.deviation.unwrap_or(0.0);
        (x.place(point.x), y.place(point.y - half), y.place(point.y + half))
    };
    // A band that shrinks to nothing where a point has a single run would look like certainty.
    let stretches = series.points.split(|point| point.deviation.is_none());
    let (wide, single): (Vec<&[Point]>, Vec<&[Point]>) =
        stretches.filter(|points| !points.is_empty()).partition(|points| series.joined && points.len() > 1);
    let style: ShapeStyle = series.look.colour.rgb().mix(0.16).filled();
    let bands = wide.into_iter().map(|points| {
        let lower = points.iter().map(ends).map(|(x, low, _)| (x, low));
        let upper = points.iter().rev().map(ends).map(|(x, _, high)| (x, high));
        Polygon::new(lower.chain(upper).collect::<Vec<_>>(), style)
    });
    chart.draw_series(bands).map_err(|error| error.to_string())?;
    let style = series.look.colour.rgb().mix(0.55).stroke_width(SCALE as u32 * 5 / 4);
    let bars = single.into_iter().flatten().map(ends);
    let bars = bars.map(|(x, low, high)| PathElement::new(vec![(x, low), (x, high)], style));
    chart.draw_series(bars).map(|_| ()).map_err(|error| error.to_string())
}

/// The curve and its markers.
fn curve(
    chart: &mut Context<'_>,
    series: &Series,
    (x, y): (&Scale, &Scale),
    hits: &mut Vec<Hit>,
) -> Result<(), String> {
    let colour = series.look.colour.rgb();
    let places: Vec<(f64, f64)> = series.points.iter().map(|p| (x.place(p.x), y.place(p.y))).collect();
    if series.joined && places.len() > 1 {
        let line = PathElement::new(places.clone(), colour.stroke_width(SCALE as u32 * 19 / 10));
        chart.draw_series(std::iter::once(line)).map_err(|error| error.to_string())?;
    }
    let radius = RADIUS * f64::from(SCALE);
    let outline = marker(series.look.shape, radius + 1.2 * f64::from(SCALE));
    let filled = marker(series.look.shape, radius);
    let markers = places.iter().map(|&at| {
        EmptyElement::at(at)
            + Polygon::new(outline.clone(), SURFACE.rgb().filled())
            + Polygon::new(filled.clone(), colour.filled())
    });
    chart.draw_series(markers).map_err(|error| error.to_string())?;
    for (point, place) in series.points.iter().zip(&places) {
        let (x, y) = chart.backend_coord(place);
        let shape = HitShape::Circle { x, y, r: 9 * SCALE };
        hits.push(Hit { shape, tip: point.tip.clone(), runs: point.runs.clone() });
    }
    Ok(())
}
