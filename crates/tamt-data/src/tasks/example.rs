//! Examples of a classification or a regression.

use std::fmt;
use std::path::PathBuf;

use crate::head::Label;

/// A text or a pair of texts, with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The value of the id column, or else the example's number from 0.
    pub id: String,
    /// The text, or the first text of a pair.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// The gold label; `None` only in splits without labels.
    pub label: Option<Label>,
}

/// A row without a usable example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// The line, or the row of a parquet file, from 1.
    pub line: usize,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.reason)
    }
}

/// The examples of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    /// The examples, in the order of the files; at least one.
    pub items: Vec<Example>,
    /// The skipped rows, which callers report to the user.
    pub skipped: Vec<Skipped>,
    /// The rows without a label, in a split that needs labels; skipped as well, and reported.
    pub unlabelled: Vec<Skipped>,
    /// The files of the split.
    pub files: Vec<PathBuf>,
}
