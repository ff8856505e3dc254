//! The declaration of a downstream task.

use serde::Deserialize;

use crate::error::{Error, Result, same_count};
use crate::head::{Head, Label};
use crate::metrics::{self, Metric, Scores};
use crate::tasks::example::Example;
use crate::tasks::source::{Source, Split};

/// Default settings of fine-tuning, from the reference implementation.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Examples per batch; for span tasks, windows per batch.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Number of epochs.
    pub epochs: u32,
    /// Maximum number of tokens of a sequence, special tokens included.
    pub max_length: usize,
    /// Steps between evaluations.
    pub eval_every: u64,
}

impl Default for Defaults {
    /// The settings of the smaller GLUE tasks.
    fn default() -> Self {
        Self { batch_size: 32, learning_rate: 2e-5, epochs: 3, max_length: 128, eval_every: 50 }
    }
}

/// A downstream task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The task's name.
    pub name: String,
    /// The names of the task's directory inside a directory of several tasks.
    pub folders: Vec<String>,
    /// The head that the task needs.
    pub head: Head,
    /// The files of the splits. The first source of a split whose files exist is used.
    pub sources: Vec<Source>,
    /// The metrics of predictions.
    pub metrics: Vec<Metric>,
    /// The metric that selects the best checkpoint; one of `metrics`.
    pub primary: Metric,
    /// Default settings of fine-tuning.
    pub defaults: Defaults,
    /// The name of the GLUE server's submission file, for each test split.
    pub submissions: Vec<(Split, String)>,
}

impl Task {
    /// A task without files and metrics, for the predictions of a head.
    pub fn of_head(name: &str, head: Head) -> Self {
        let (sources, submissions) = (Vec::new(), Vec::new());
        let (metrics, primary, defaults) = (Vec::new(), Metric::Accuracy, Defaults::default());
        Self { name: name.to_owned(), folders: Vec::new(), head, sources, metrics, primary, defaults, submissions }
    }

    /// Whether the task declares a split.
    pub fn has(&self, split: Split) -> bool {
        self.sources.iter().any(|source| source.split == split)
    }

    /// The development splits: one, or MNLI's two.
    pub fn dev_splits(&self) -> impl Iterator<Item = Split> {
        [Split::Dev, Split::DevMismatched].into_iter().filter(|&split| self.has(split))
    }

    /// The test splits: one, or MNLI's two.
    pub fn test_splits(&self) -> impl Iterator<Item = Split> {
        [Split::Test, Split::TestMismatched].into_iter().filter(|&split| self.has(split))
    }

    /// The spellings of the labels; empty unless the task is a classification.
    pub fn labels(&self) -> &[String] {
        match &self.head {
            Head::Classification { labels } => labels,
            Head::Regression { .. } | Head::Span { .. } => &[],
        }
    }

    /// Number of outputs of the head: one per class, 1 for a regression, 2 (start and end) per token for spans.
    pub fn outputs(&self) -> usize {
        match &self.head {
            Head::Classification { labels } => labels.len(),
            Head::Regression { .. } => 1,
            Head::Span { .. } => 2,
        }
    }

    /// The prediction from the head's outputs for one example: the class with the greatest logit (the first of equals),
    /// or the number of a regression.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] if the number of logits is not [`Task::outputs`], [`Error::WrongKind`] for a span task.
    pub fn decide(&self, logits: &[f32]) -> Result<Label> {
        if matches!(self.head, Head::Span { .. }) {
            return Err(Error::WrongKind { what: "a label", given: "the outputs of a span task" });
        }
        same_count("outputs", self.outputs(), logits.len())?;
        if matches!(self.head, Head::Regression { .. }) {
            return Ok(Label::Value(logits[0]));
        }
        let best = (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        Ok(Label::Class(best as u32))
    }

    /// The task's metrics, for predictions and the labels of `examples`, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] if an example lacks a prediction or a label, [`Error::WrongKind`] if predictions do not fit the
    /// metrics.
    pub fn score(&self, examples: &[Example], predictions: &[Label]) -> Result<Scores> {
        let gold: Vec<Label> = examples.iter().filter_map(|example| example.label).collect();
        same_count("labels", examples.len(), gold.len())?;
        metrics::score(&self.metrics, predictions, &gold)
    }
}
