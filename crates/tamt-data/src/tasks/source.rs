//! Splits of a task, and the layout of their files.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// A part of a task's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// The training set.
    Train,
    /// The development set, for the choice of a checkpoint; MNLI's matched set.
    Dev,
    /// MNLI's mismatched development set, with other genres than the training set.
    DevMismatched,
    /// The test set, without labels, for the benchmark's server; MNLI's matched set.
    Test,
    /// MNLI's mismatched test set.
    TestMismatched,
}

impl Split {
    /// All splits.
    pub const ALL: [Self; 5] = [Self::Train, Self::Dev, Self::DevMismatched, Self::Test, Self::TestMismatched];

    /// The split's name: `train`, `dev`, `dev-mismatched`, `test` or `test-mismatched`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::DevMismatched => "dev-mismatched",
            Self::Test => "test",
            Self::TestMismatched => "test-mismatched",
        }
    }

    /// The suffix of metric names, which tells MNLI's two development sets apart: `_mm` for mismatched splits, else
    /// empty.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::DevMismatched | Self::TestMismatched => "_mm",
            Self::Train | Self::Dev | Self::Test => "",
        }
    }

    /// Whether each example of the split must have a label.
    pub fn is_labelled(self) -> bool {
        matches!(self, Self::Train | Self::Dev | Self::DevMismatched)
    }
}

/// A table format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tab-separated values; a quotation mark has no special meaning.
    Tsv,
    /// Comma-separated values; quotation marks enclose a value (RFC 4180).
    Csv,
    /// One JSON object per line.
    #[serde(rename = "jsonl")]
    JsonLines,
    /// Apache Parquet with snappy, zstd or no compression.
    Parquet,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By name.
    Name(String),
    /// By position, from 0.
    Index(usize),
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Index(index) => write!(f, "number {index} (from 0)"),
        }
    }
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

/// The columns of a table that make an example.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The example's id, for submissions. Without an id column, ids are row numbers from 0.
    pub id: Option<Column>,
    /// The text, or the first text of a pair.
    pub first: Column,
    /// The second text of a pair.
    pub second: Option<Column>,
    /// The label. Files of splits without labels may lack the column.
    #[serde(deserialize_with = "required")]
    pub label: Option<Column>,
}

/// Deserializes a key that a task file must have.
fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Column>, D::Error> {
    Column::deserialize(deserializer).map(Some)
}

/// The layout of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A table with one example per row.
    Table {
        /// The table format.
        format: Format,
        /// Whether the first line names the columns. Only TSV and CSV files may lack this line.
        header: bool,
        /// The columns of an example.
        columns: Columns,
        /// The labels of the numbers 0, 1, .. in the label column, unless the task's labels are numbers themselves. If
        /// the list is empty, the numbers are positions among the task's labels.
        integer_labels: Vec<String>,
    },
    /// `SQuAD`'s JSON, read by [`squad::Dataset::read`](crate::squad::Dataset::read).
    Squad,
}

/// A file of a split, or several files in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The split.
    pub split: Split,
    /// The file's name in the task's directory. `*` stands for any text; the split is then the concatenation of all
    /// matching files in the order of their names.
    pub file: String,
    /// The file's layout.
    pub layout: Layout,
}
