//! `eval_results.json`, the result of a run, and the reading and writing of JSON files.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tamt_model::write::atomic_write;

use crate::error::{Error, Result};

/// The result of a run. A run writes the file last, so its presence says that the run has finished.
pub(crate) const RESULTS_FILE: &str = "eval_results.json";

/// Writes `eval_results.json`, one object, into the run directory `directory`.
///
/// # Errors
/// [`Error::Model`] if the file cannot be written.
pub fn write_eval_results(directory: &Path, results: &Map<String, Value>) -> Result<()> {
    write_json(&directory.join(RESULTS_FILE), results)
}

/// Reads `eval_results.json` of the run in `directory`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read and [`Error::Damaged`] if it is not one JSON object.
pub fn read_eval_results(directory: &Path) -> Result<Map<String, Value>> {
    read_json(&directory.join(RESULTS_FILE))
}

/// The number called `key` in `results`, the results of the run in `directory`.
///
/// # Errors
/// [`Error::Damaged`] if there is no such number.
pub(crate) fn number(results: &Map<String, Value>, key: &str, directory: &Path) -> Result<f64> {
    results.get(key).and_then(Value::as_f64).ok_or_else(|| Error::Damaged {
        path: directory.join(RESULTS_FILE),
        reason: format!("it has no number called {key}"),
    })
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    atomic_write(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })?;
    Ok(())
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_reported_with_their_name() {
        let directory = tempfile::tempdir().unwrap();
        for damage in ["", "[1]", "{\"a\":", "\u{0}"] {
            fs::write(directory.path().join(RESULTS_FILE), damage).unwrap();
            let error = read_eval_results(directory.path()).unwrap_err();
            assert!(matches!(&error, Error::Damaged { path, .. } if path.ends_with(RESULTS_FILE)), "{error}");
        }
    }
}
