//! Downstream tasks: where their files lie, which columns hold what, and how they are scored.
//!
//! A [`Task`] is a declaration. Those of GLUE and `SQuAD` are in one table, found by [`Task::by_name`]; a user's own
//! comes from a TOML file by [`Task::from_file`]. Everything that handles tasks handles the declaration, so a new
//! task is a new declaration and nothing else.
//!
//! [`read()`] turns a split's files into [`Example`]s, whatever their format; [`encode`] turns those into tokens;
//! [`Task::score`] compares predictions with labels, and [`submission()`] writes them as the GLUE server wants them.
//! Span questions have a reader of their own in [`squad`](crate::squad).

mod cells;
mod csv;
mod features;
mod file;
mod jsonl;
mod parquet;
mod read;
mod submission;
mod table;
mod tsv;

use std::fmt;

use crate::metrics::{self, Metric, Scores};
use crate::{Error, Result};

pub use features::{Feature, encode, subset};
pub use read::{Example, Examples, Skipped, read};
pub(crate) use read::{Located, locate};
pub use submission::submission;

/// A part of a task's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To train on.
    Train,
    /// To choose and report by; MNLI's matched one.
    Dev,
    /// MNLI's mismatched one: texts of other kinds than the training set's.
    DevMismatched,
    /// Without labels, for the benchmark's server; MNLI's matched one.
    Test,
    /// MNLI's mismatched one.
    TestMismatched,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Train, Self::Dev, Self::DevMismatched, Self::Test, Self::TestMismatched];

    /// What it is called: `train`, `dev`, `dev-mismatched`, `test`, `test-mismatched`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::DevMismatched => "dev-mismatched",
            Self::Test => "test",
            Self::TestMismatched => "test-mismatched",
        }
    }

    /// What is appended to a metric's key so that the two dev sets of MNLI do not overwrite each other: `_mm` for the
    /// mismatched, nothing for all others.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::DevMismatched | Self::TestMismatched => "_mm",
            Self::Train | Self::Dev | Self::Test => "",
        }
    }

    /// Whether every example must have a label.
    #[must_use]
    pub fn is_labelled(self) -> bool {
        matches!(self, Self::Train | Self::Dev | Self::DevMismatched)
    }
}

/// How a file holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Tabs between columns; a quotation mark is a character like any other.
    Tsv,
    /// Commas between columns; quotation marks enclose values.
    Csv,
    /// A JSON object a line.
    JsonLines,
    /// Apache Parquet, snappy, zstd or no compression.
    Parquet,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By its name in the header.
    Name(String),
    /// By its place, from 0.
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

/// Which column holds what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The example's name, which a submission repeats; without one, rows are counted from 0.
    pub id: Option<Column>,
    /// The text, or the first of two.
    pub first: Column,
    /// The second text of a pair.
    pub second: Option<Column>,
    /// The label; splits without labels may lack it.
    pub label: Option<Column>,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A row for each example.
    Table {
        /// How rows are held.
        format: Format,
        /// Whether the first line names the columns; only TSV and CSV can do without.
        header: bool,
        /// Which column holds what.
        columns: Columns,
        /// What the integers 0, 1, .. of an integer label column mean. If empty, an integer is a label's spelling or,
        /// failing that, its place among the task's labels.
        integer_labels: Vec<String>,
    },
    /// `SQuAD`'s JSON, read by [`squad::Dataset::read`](crate::squad::Dataset::read).
    Squad,
}

/// A file, or several that belong together, where a split can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Which split.
    pub split: Split,
    /// The file's name in the task's directory; `*` stands for any text, and all files that match are read, in order.
    pub file: String,
    /// What is in it.
    pub layout: Layout,
}

/// What a model's head has to produce.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// One of these labels; a [`Label::Class`] is an index into them.
    Classification {
        /// The labels' spellings, in the order of the head's outputs.
        labels: Vec<String>,
    },
    /// A number.
    Regression {
        /// The least and the greatest label that there is; predictions beyond are not wrong, but submissions are kept
        /// within.
        range: Option<(f32, f32)>,
    },
    /// The first and the last token of an answer.
    Span {
        /// Whether there are questions without an answer (`SQuAD` 2.0).
        unanswerable: bool,
    },
}

/// Settings for fine-tuning that the reference uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// Examples (for spans: windows) in a batch.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Times that the training set is gone through.
    pub epochs: u32,
    /// Tokens in a sequence, special tokens included.
    pub max_length: usize,
    /// Steps between evaluations.
    pub eval_every: u64,
}

impl Default for Defaults {
    /// Those of the smaller GLUE tasks.
    fn default() -> Self {
        Self { batch_size: 32, learning_rate: 2e-5, epochs: 3, max_length: 128, eval_every: 50 }
    }
}

/// The right answer for an example, or a predicted one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// Index of a class among the task's labels.
    Class(u32),
    /// A number.
    Value(f32),
}

/// A downstream task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What it is called on the command line.
    pub name: String,
    /// Its directories' names inside a directory of several tasks.
    pub folders: Vec<String>,
    /// What a head has to produce.
    pub head: Head,
    /// Where its splits can be found, the likeliest first.
    pub sources: Vec<Source>,
    /// How predictions are scored.
    pub metrics: Vec<Metric>,
    /// The metric by which a checkpoint is chosen; one of `metrics`.
    pub primary: Metric,
    /// Settings for fine-tuning.
    pub defaults: Defaults,
    /// Name of the file that the GLUE server wants, per test split.
    pub submissions: Vec<(Split, String)>,
}

impl Task {
    /// The tasks that need no file to declare them: GLUE's nine, `squad` and `squad2`.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &table::TASKS
    }

    /// The task of that name. Case and hyphens make no difference: `SST-2` is `sst2`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        let name = name.to_lowercase().replace('-', "");
        Self::all().iter().find(|task| task.name == name)
    }

    /// Whether it has such a split.
    #[must_use]
    pub fn has(&self, split: Split) -> bool {
        self.sources.iter().any(|source| source.split == split)
    }

    /// The splits to evaluate on: one, or both of MNLI's.
    pub fn dev_splits(&self) -> impl Iterator<Item = Split> {
        [Split::Dev, Split::DevMismatched].into_iter().filter(|&split| self.has(split))
    }

    /// The splits to predict for the server: one, or both of MNLI's.
    pub fn test_splits(&self) -> impl Iterator<Item = Split> {
        [Split::Test, Split::TestMismatched].into_iter().filter(|&split| self.has(split))
    }

    /// The spellings of the labels; empty unless the task is a classification.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        match &self.head {
            Head::Classification { labels } => labels,
            Head::Regression { .. } | Head::Span { .. } => &[],
        }
    }

    /// How many numbers a head puts out: one per class, 1 for a regression, 2 (start and end) per token for spans.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match &self.head {
            Head::Classification { labels } => labels.len(),
            Head::Regression { .. } => 1,
            Head::Span { .. } => 2,
        }
    }

    /// What a head's outputs for one example say: the class of the largest (of equals, the first), or the number.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] unless there are [`Task::outputs`] of them, [`Error::WrongKind`] for a span task.
    pub fn decide(&self, logits: &[f32]) -> Result<Label> {
        if matches!(self.head, Head::Span { .. }) {
            return Err(Error::WrongKind { what: "a label", given: "the outputs of a span task" });
        }
        if logits.len() != self.outputs() {
            return Err(Error::Count { what: "outputs", expected: self.outputs(), found: logits.len() });
        }
        if matches!(self.head, Head::Regression { .. }) {
            return Ok(Label::Value(logits[0]));
        }
        let best = (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        Ok(Label::Class(best as u32))
    }

    /// The task's metrics of predictions against the labels of `examples`, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] unless there is a prediction for each example and a label in each, [`Error::WrongKind`] if
    /// predictions and metrics do not fit.
    pub fn score(&self, examples: &[Example], predictions: &[Label]) -> Result<Scores> {
        let gold: Vec<Label> = examples.iter().filter_map(|example| example.label).collect();
        if gold.len() != examples.len() {
            return Err(Error::Count { what: "labels", expected: examples.len(), found: gold.len() });
        }
        metrics::score(&self.metrics, predictions, &gold)
    }
}
