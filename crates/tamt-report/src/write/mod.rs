//! Writing of documents: a page, Markdown, CSV, LaTeX and SVG.

mod csv;
pub mod files;
mod html;
mod latex;
mod markdown;
mod runs;
