//! The files of a report.

use std::fs;
use std::path::{Path, PathBuf};

use tamt_files::atomic_write;

use crate::document::{Block, Document, Figure, Table};
use crate::error::{Error, Result};
use crate::figure::svg::standalone;
use crate::run::Run;
use crate::write::{csv, html, latex, markdown, runs};

/// Names of the page, of the Markdown file and of the table of all runs.
pub const PAGE: &str = "report.html";
const MARKDOWN: &str = "report.md";
const RUNS: &str = "runs.csv";

/// What was written.
#[derive(Debug, Default)]
pub struct Written {
    /// The page.
    pub page: PathBuf,
    /// Number of tables, each as CSV and LaTeX.
    pub tables: usize,
    /// Number of figures.
    pub figures: usize,
}

/// Writes a document into `directory`: `report.html`, `report.md`, `tables/*.csv`, `tables/*.tex`, `figures/*.svg`, and
/// `runs.csv` with what was measured.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written.
pub fn write(document: &Document, measured: &[Run], directory: &Path) -> Result<Written> {
    let (tables, figures) = (directory.join("tables"), directory.join("figures"));
    for path in [directory, &tables, &figures] {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
    }
    let mut written = Written { page: directory.join(PAGE), ..Written::default() };
    for block in document.sections.iter().flat_map(|section| &section.blocks) {
        for table in tables_of(block) {
            whole(&tables.join(format!("{}.csv", table.id)), &csv::table(table))?;
            whole(&tables.join(format!("{}.tex", table.id)), &latex::table(table))?;
            written.tables += 1;
        }
        for figure in figures_of(block) {
            whole(&figures.join(format!("{}.svg", figure.id)), &standalone(&figure.svg))?;
            written.figures += 1;
        }
    }
    whole(&directory.join(MARKDOWN), &markdown::document(document))?;
    whole(&directory.join(RUNS), &runs::csv(measured))?;
    whole(&written.page, &html::page(document))?;
    Ok(written)
}

fn tables_of(block: &Block) -> Vec<&Table> {
    match block {
        Block::Table(table) => vec![table],
        Block::Details(_, inner) => inner.iter().flat_map(tables_of).collect(),
        _ => Vec::new(),
    }
}

fn figures_of(block: &Block) -> Vec<&Figure> {
    match block {
        Block::Figures(figures, _) => figures.iter().collect(),
        Block::Details(_, inner) => inner.iter().flat_map(figures_of).collect(),
        _ => Vec::new(),
    }
}

/// Writes a file whole, so that no reader sees a part.
fn whole(path: &Path, text: &str) -> Result<()> {
    atomic_write(path, |file| file.write_all(text.as_bytes())).map_err(Error::io("write", path))
}
