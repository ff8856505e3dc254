//! From directories to the files of a report.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::read::{directories, runs};
use crate::run::LeftOut;
use crate::sections::document;
use crate::study::Study;
use crate::ticket::TicketReader;
use crate::write::files::{self, Written};

/// A report that was written.
#[derive(Debug)]
pub struct Report {
    /// The files.
    pub written: Written,
    /// What the report is about.
    pub study: Study,
    /// What the report shows, in sentences.
    pub findings: Vec<String>,
}

/// Reads the runs below `roots` and writes their report into `output`.
///
/// # Errors
/// [`Error::NoRuns`] for a directory without runs, [`Error::NoResults`] where no run has a whole result, and errors of
/// reading and writing.
pub fn report(roots: &[PathBuf], output: &Path, reader: &dyn TicketReader) -> Result<Report> {
    let found = roots.iter().map(|root| directories::find(root)).collect::<Result<Vec<_>>>()?;
    let (runs, left_out) = runs::read(&found, reader);
    if runs.is_empty() {
        let first = left_out.first().cloned().unwrap_or(LeftOut { name: String::new(), reason: String::new() });
        return Err(Error::NoResults { runs: left_out.len(), name: first.name, reason: first.reason });
    }
    let names: Vec<String> =
        found.iter().zip(roots).map(|(found, root)| found.study.clone().unwrap_or_else(|| last_part(root))).collect();
    let study = Study::new(names.join(", "), runs, left_out);
    let document = document(&study, reader)?;
    let written = files::write(&document, &study.runs, output)?;
    Ok(Report { written, study, findings: document.findings })
}

fn last_part(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().map_or_else(|| whole.display().to_string(), |name| name.to_string_lossy().into_owned())
}
