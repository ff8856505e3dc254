//! From directories to the files of a report.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::read::{directories, runs, runs_csv};
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

/// Reads the runs below the directories `roots`, or those of one file, which is the `runs.csv` of another report, and
/// writes their report into `output`.
///
/// # Errors
/// [`Error::NoRuns`] for a directory without runs, [`Error::NoResults`] where no run has a whole result,
/// [`Error::Damaged`] for a file that is no `runs.csv`, [`Error::NotAlone`] for a file beside other roots, and errors of
/// reading and writing.
pub fn report(roots: &[PathBuf], output: &Path, reader: &dyn TicketReader) -> Result<Report> {
    let study = match (roots, roots.iter().find(|root| root.is_file())) {
        ([file], Some(_)) => of_file(file)?,
        (_, Some(file)) => return Err(Error::NotAlone { path: file.clone() }),
        _ => of_directories(roots, reader)?,
    };
    let document = document(&study, reader)?;
    let written = files::write(&document, &study.runs, output)?;
    Ok(Report { written, study, findings: document.findings })
}

fn of_directories(roots: &[PathBuf], reader: &dyn TicketReader) -> Result<Study> {
    let found = roots.iter().map(|root| directories::find(root)).collect::<Result<Vec<_>>>()?;
    let (runs, left_out) = runs::read(&found, reader);
    if runs.is_empty() {
        let first = left_out.first().cloned().unwrap_or(LeftOut { name: String::new(), reason: String::new() });
        return Err(Error::NoResults { runs: left_out.len(), name: first.name, reason: first.reason });
    }
    let names: Vec<String> =
        found.iter().zip(roots).map(|(found, root)| found.study.clone().unwrap_or_else(|| last_part(root))).collect();
    Ok(Study::new(names.join(", "), runs, left_out))
}

fn of_file(path: &Path) -> Result<Study> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let study = Study::new(name, runs_csv::read(path)?, Vec::new());
    // A report of directories has the digests of tickets.
    match study.indistinct() {
        Some([one, other]) => {
            let reason = format!("no column tells what sets {one} and {other} apart; report their directories");
            Err(Error::Damaged { path: path.to_owned(), reason })
        }
        None => Ok(study),
    }
}

fn last_part(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().map_or_else(|| whole.display().to_string(), |name| name.to_string_lossy().into_owned())
}
