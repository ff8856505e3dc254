//! `study-run.json`, what a study says about one of its runs.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use tamt_files::digest::sha256_hex;
use tamt_study::labels::Labels;
use tamt_study::record::{FORMAT, RECORD_FILE, format_of};

use crate::run::{Kind, Machine};

/// The content of `study-run.json`.
#[derive(Debug, Deserialize)]
pub(super) struct StudyRun {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) error: Option<String>,
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) command: Vec<String>,
    pub(super) seconds: Option<f64>,
    #[serde(default)]
    pub(super) machine: Machine,
    pub(super) tool_version: Option<String>,
    #[serde(default)]
    files: Vec<WrittenFile>,
}

/// A file of the result, as the run wrote it.
#[derive(Debug, Deserialize)]
struct WrittenFile {
    path: String,
    sha256: Option<String>,
}

impl StudyRun {
    /// Whether `bytes` are what the run wrote into the file at `path`; true where no digest was recorded.
    pub(super) fn wrote(&self, path: &str, bytes: &[u8]) -> bool {
        let written = self.files.iter().find(|file| file.path == path).and_then(|file| file.sha256.as_ref());
        written.is_none_or(|digest| *digest == sha256_hex([bytes]))
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Done,
    Failed,
    /// Any other state is that of a run that has not ended.
    #[serde(other)]
    Open,
}

/// Reads the file of a run directory; `None` where there is none.
pub(super) fn read(directory: &Path) -> Option<Result<StudyRun, String>> {
    let path = directory.join(RECORD_FILE);
    path.exists().then(|| {
        let bytes = fs::read(&path).map_err(|error| format!("{RECORD_FILE} cannot be read: {error}"))?;
        let damaged = |error: serde_json::Error| format!("{RECORD_FILE} is damaged: {error}");
        let format = format_of(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(format!("{RECORD_FILE} has the unknown format {format}"));
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    })
}
