//! `runs.csv`, the runs of another report.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::row::Row;
use crate::run::Run;

/// Reads the runs of a `runs.csv`. A missing column, but for those of the run, its kind, base and method, is empty.
///
/// # Errors
/// [`Error::Damaged`] with the line for an unknown column, for a value that is none of its column, for a run without a
/// result, for a second run of a name, and for a file without runs; [`Error::Io`] if the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<Run>> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut reader = csv::Reader::from_reader(file);
    let header = reader.headers().map_err(|error| damaged(error.to_string()))?.clone();
    if !header.iter().any(|column| column == "run") {
        let reason = "it is no runs.csv of a report: its first line has no column \"run\"";
        return Err(damaged(reason.to_owned()));
    }
    let (mut runs, mut names) = (Vec::new(), HashSet::new());
    for record in reader.records() {
        let record = record.map_err(|error| damaged(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let row: Row = record.deserialize(Some(&header)).map_err(|error| damaged(error.to_string()))?;
        let run = row.into_run().map_err(|reason| damaged(format!("line {line}: {reason}")))?;
        if !names.insert(run.name.clone()) {
            return Err(damaged(format!("line {line}: there is a run {} above", run.name)));
        }
        runs.push(run);
    }
    if runs.is_empty() { Err(damaged("it has no runs".to_owned())) } else { Ok(runs) }
}
