//! `study-run.json`: the record of a finished run, the last file that a run gets.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tamt_files::digest::sha256_file;

use crate::error::{Error, Result};
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
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of(directory: &Path, path: &str) -> Result<Option<Self>> {
        let file = directory.join(path);
        let Some(bytes) = bytes_of(&file)? else { return Ok(None) };
        let mut sha256 = None;
        if path == RESULTS_FILE || file.ends_with(TICKET_FILE) {
            sha256 = digest_of(&file)?;
            if sha256.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(Self { path: path.to_owned(), bytes, sha256 }))
    }

    /// The problem of the file, if it was lost or changed after the run.
    fn damage(&self, directory: &Path) -> Result<Option<String>> {
        let (path, file) = (&self.path, directory.join(&self.path));
        let missing = || Ok(Some(format!("{path} is missing")));
        let Some(found) = bytes_of(&file)? else { return missing() };
        if found != self.bytes {
            return Ok(Some(format!("{path} has {found} bytes and was written with {}", self.bytes)));
        }
        // Large files have no digest, and tickets in records of older versions.
        let Some(digest) = &self.sha256 else { return Ok(None) };
        // Another process may move the directory aside at any time.
        let Some(found) = digest_of(&file)? else { return missing() };
        Ok((found != *digest).then(|| format!("{path} is not as it was written")))
    }
}

/// The digest of a file; `None` if there is none.
fn digest_of(file: &Path) -> Result<Option<String>> {
    match sha256_file(file) {
        Ok(digest) => Ok(Some(digest)),
        Err(error) if files::is_missing(&error) => Ok(None),
        Err(error) => Err(Error::io("read", file)(error)),
    }
}

/// The size of a file; `None` if there is none.
fn bytes_of(file: &Path) -> Result<Option<u64>> {
    match file.metadata() {
        Ok(found) => Ok(found.is_file().then_some(found.len())),
        Err(error) if files::is_missing(&error) => Ok(None),
        Err(error) => Err(Error::io("read", file)(error)),
    }
}

impl Record {
    /// Writes the record into the directory of the run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, directory: &Path) -> Result<()> {
        files::write_json(&directory.join(RECORD_FILE), self)
    }

    /// Reads the record of the run in `directory`; `None` if the run has not ended.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`], [`Error::Damaged`] and [`Error::Io`].
    pub fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(RECORD_FILE);
        let Some(bytes) = files::read(&path)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| Error::Damaged { path: path.clone(), reason: error.to_string() };
        let format = format_of(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(Error::UnknownFormat { path, format });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// The problem of a file of the result, if one was lost or changed after the run; `None` if all is well. A file that
    /// cannot be read is no lost one: the run is not done again for a failure of the file system.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn damage(&self, directory: &Path) -> Result<Option<String>> {
        for file in &self.files {
            if let Some(reason) = file.damage(directory)? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }
}

/// The version of the format of a record with these bytes, whatever else it has.
///
/// # Errors
/// If the bytes are no JSON object with a version.
pub fn format_of(record: &[u8]) -> serde_json::Result<u64> {
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    serde_json::from_slice(record).map(|Version { format }| format)
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
    use std::fs;

    use super::*;

    fn record(directory: &Path) -> Record {
        let files = ["a", RESULTS_FILE, "none"].map(|path| WrittenFile::of(directory, path).unwrap());
        Record {
            format: FORMAT,
            kind: Kind::Losses,
            id: String::new(),
            name: String::new(),
            status: Outcome::Done,
            error: None,
            attempts: 1,
            labels: Labels::default(),
            command: Vec::new(),
            seconds: 1.0,
            machine: Machine { cpu: String::new(), threads: 1, precision: String::new() },
            tool_version: String::new(),
            files: files.into_iter().flatten().collect(),
        }
    }

    #[test]
    fn a_file_that_is_lost_or_changed_is_damage_and_one_that_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (here, large, results) =
            (directory.path(), directory.path().join("a"), directory.path().join(RESULTS_FILE));
        fs::write(&large, "1234").unwrap();
        fs::write(&results, "{}").unwrap();
        let record = record(here);
        assert_eq!(record.files.len(), 2);
        assert_eq!(record.damage(here).unwrap(), None);
        fs::write(&results, "[]").unwrap();
        assert_eq!(record.damage(here).unwrap().unwrap(), "eval_results.json is not as it was written");
        fs::write(&large, "123").unwrap();
        assert_eq!(record.damage(here).unwrap().unwrap(), "a has 3 bytes and was written with 4");
        fs::remove_file(&large).unwrap();
        assert_eq!(record.damage(here).unwrap().unwrap(), "a is missing");
        // The system follows this link without an end.
        std::os::unix::fs::symlink(&large, &large).unwrap();
        assert!(matches!(record.damage(here), Err(Error::Io { .. })));
        assert!(matches!(WrittenFile::of(here, "a"), Err(Error::Io { .. })));
    }

    #[test]
    fn a_record_of_a_newer_format_is_refused_whatever_else_it_has() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Record::read(directory.path()).unwrap().is_none());
        record(directory.path()).write(directory.path()).unwrap();
        assert!(Record::read(directory.path()).unwrap().is_some());
        for (text, is_newer) in [(r#"{"format": 2, "kind": 7}"#, true), (r#"{"format": 1}"#, false), ("{", false)] {
            fs::write(directory.path().join(RECORD_FILE), text).unwrap();
            match Record::read(directory.path()).unwrap_err() {
                Error::UnknownFormat { format, .. } => assert!(is_newer && format == 2, "{text}"),
                Error::Damaged { .. } => assert!(!is_newer, "{text}"),
                other => panic!("{text}: {other}"),
            }
        }
    }

    #[test]
    fn arguments_that_a_shell_would_split_are_quoted() {
        let quoted = ["tamt", "a b", "it's", ""].map(quoted);
        assert_eq!(quoted, ["tamt", "'a b'", r"'it'\''s'", "''"]);
    }
}
