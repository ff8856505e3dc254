//! The SVG file around what plotters draws.

use std::fmt::Write as _;

use crate::figure::theme::{self, Colour, SURFACE};

/// Units of plotters' whole-number grid in a pixel, so that lines and markers do not jump from pixel to pixel.
pub(super) const SCALE: i32 = 10;

/// A place that tells about its runs.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) shape: HitShape,
    /// The text at the pointer.
    pub(super) tip: String,
    /// The runs that a click shows.
    pub(super) runs: Vec<usize>,
}

/// The shape of a place, in units of the grid.
#[derive(Clone, Copy, Debug)]
pub(super) enum HitShape {
    Circle { x: i32, y: i32, r: i32 },
    Rect { x: i32, y: i32, width: i32, height: i32 },
}

/// Text inside a figure, whose middle is at `y`.
pub(super) struct Label<'a> {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) anchor: &'static str,
    pub(super) size: i32,
    pub(super) colour: Colour,
    pub(super) turned: bool,
    pub(super) text: &'a str,
}

/// Appends a text, whose middle is at the height `y`.
pub(super) fn label(out: &mut String, label: &Label<'_>) {
    let Label { x, y, anchor, size, colour, turned, text } = *label;
    let turn = if turned { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
    let (size, colour, text) = (size * SCALE, colour.hex(), escape(text));
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" dy=\"0.35em\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
         fill=\"{colour}\"{turn}>{text}</text>"
    );
}

/// The whole file: what plotters drew in a grid of `width` by `height` pixels, labels and places.
pub(super) fn finish(drawn: &str, (width, height): (i32, i32), title: &str, labels: &str, hits: &[Hit]) -> String {
    let start = drawn.find('>').map_or(0, |at| at + 1);
    let end = drawn.rfind("</svg>").unwrap_or(drawn.len());
    let body = drawn.get(start..end).unwrap_or_default();
    let (grid_width, grid_height) = (width * SCALE, height * SCALE);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 {grid_width} {grid_height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, \
         sans-serif\">\n<title>{}</title>\n",
        escape(title)
    );
    svg.push_str(body.trim());
    svg.push('\n');
    svg.push_str(labels);
    svg.push_str("<g fill=\"transparent\">\n");
    for hit in hits {
        let runs: Vec<String> = hit.runs.iter().map(usize::to_string).collect();
        let data = format!("class=\"hit\" data-runs=\"{}\" data-tip=\"{}\"", runs.join(" "), escape(&hit.tip));
        let tip = escape(&hit.tip);
        let _ = match hit.shape {
            HitShape::Circle { x, y, r } => {
                writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" {data}><title>{tip}</title></circle>")
            }
            HitShape::Rect { x, y, width, height } => writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {data}><title>{tip}</title></rect>"
            ),
        };
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// The figure as a file of its own: with a background, since a viewer's may be white where surroundings are dark, and
/// with the colours of dark surroundings.
#[must_use]
pub(crate) fn standalone(svg: &str) -> String {
    let style = format!("<style>@media (prefers-color-scheme: dark) {{{}}}</style>\n", theme::dark_rules(""));
    match svg.find("</title>\n") {
        Some(at) => {
            let at = at + "</title>\n".len();
            let background = format!("<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n", SURFACE.hex());
            format!("{}{style}{background}{}", &svg[..at], &svg[at..])
        }
        None => svg.to_owned(),
    }
}

/// Text with the characters of markup replaced.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
