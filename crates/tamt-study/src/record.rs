//! `study-run.json`: the record of a finished run, the last file that a run gets.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tamt_files::digest::sha256_file;

use crate::error::Result;
use crate::files;
use crate::labels::{Kind, Labels};

/// The name of the file.
pub const RECORD_FILE: &str = "study-run.json";

/// The result of a run, a JSON object.
pub const RESULTS_FILE: &str = "eval_results.json";

/// The file of a ticket in its folder.
pub const TICKET_FILE: &str = "ticket.safetensors";

/// The version of the format.
pub const FORMAT: u64 = 1;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// With a result.
    Done,
    /// With an error.
    Failed,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub format: u64,
    /// The kind of the run.
    pub kind: Kind,
    /// The identity of the run.
    pub id: String,
    /// The name of the run's directory.
    pub name: String,
    /// How the run ended.
    pub status: Outcome,
    /// The error of a failed run.
    pub error: Option<String>,
    /// Attempts, those that a kill ended included.
    pub attempts: u64,
    /// What the run is.
    pub labels: Labels,
    /// The command line.
    pub command: Vec<String>,
    /// Seconds of the last attempt, or of training over all attempts if that is longer.
    pub seconds: f64,
    /// Where the last attempt ran.
    pub machine: Machine,
    /// The version of the program.
    pub tool_version: String,
    /// The files of the result that the run wrote, with the digest of a small one.
    #[serde(default)]
    pub files: Vec<WrittenFile>,
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor.
    pub cpu: String,
    /// Threads of the run.
    pub threads: usize,
    /// Precision of products of matrices.
    pub precision: String,
}

/// A file of a finished run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// The path in the run's directory.
    pub path: String,
    /// The size.
    pub bytes: u64,
    /// SHA-256, for `eval_results.json`, from which numbers are read, and for tickets.
    pub sha256: Option<String>,
}

impl WrittenFile {
    /// The file at `path` in `directory`; `None` if there is none.
    #[must_use]
    pub fn of(directory: &Path, path: &str) -> Option<Self> {
        let file = directory.join(path);
        let bytes = bytes_of(&file)?;
        let has_digest = path == RESULTS_FILE || file.ends_with(TICKET_FILE);
        let sha256 = if has_digest { Some(sha256_file(&file).ok()?) } else { None };
        Some(Self { path: path.to_owned(), bytes, sha256 })
    }
}

/// The size of a file; `None` if there is none.
fn bytes_of(file: &Path) -> Option<u64> {
    file.metadata().ok().filter(std::fs::Metadata::is_file).map(|found| found.len())
}

impl Record {
    /// Writes the record into the directory of the run.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn write(&self, directory: &Path) -> Result<()> {
        files::write_json(&directory.join(RECORD_FILE), self)
    }

    /// Reads the record of the run in `directory`; `None` if the run has not ended.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) and [`Error::Io`](crate::Error::Io).
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        files::read_json(&directory.join(RECORD_FILE))
    }

    /// The problem of a file of the result, if one was lost or changed after the run; `None` if all is well.
    #[must_use]
    pub fn damage(&self, directory: &Path) -> Option<String> {
        self.files.iter().find_map(|written| {
            let path = &written.path;
            let file = directory.join(path);
            match bytes_of(&file) {
                None => return Some(format!("{path} is missing")),
                Some(found) if found != written.bytes => {
                    return Some(format!("{path} has {found} bytes and was written with {}", written.bytes));
                }
                Some(_) => {}
            }
            // Large files have no digest, and tickets in records of older versions.
            let digest = written.sha256.as_ref()?;
            match sha256_file(&file) {
                Err(_) => Some(format!("{path} is missing")),
                Ok(found) => (found != *digest).then(|| format!("{path} is not as it was written")),
            }
        })
    }
}

/// An argument of a command line, in quotes if a shell needs them.
#[must_use]
pub fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_a_shell_would_split_are_quoted() {
        let quoted = ["tamt", "a b", "it's", ""].map(quoted);
        assert_eq!(quoted, ["tamt", "'a b'", r"'it'\''s'", "''"]);
    }
}
