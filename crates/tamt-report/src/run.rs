//! A finished run, as its files tell.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tamt_study::labels::Labels;
use tamt_study::record::quoted;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Trains a base model, or trains one on.
    Pretrain,
    /// Finds a ticket.
    Find,
    /// Measures losses on held-out text.
    Losses,
    /// Fine-tunes on a task.
    Tune,
}

impl Kind {
    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretrain => "pretrain",
            Self::Find => "find",
            Self::Losses => "losses",
            Self::Tune => "tune",
        }
    }
}

/// The machine of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Number of threads.
    pub threads: Option<u64>,
    /// Precision of the operands of products.
    pub precision: Option<String>,
}

/// A run with a usable result.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name, unique in a report.
    pub name: String,
    /// The run directory; `None` for a run that only a `runs.csv` tells of.
    pub directory: Option<PathBuf>,
    /// What the run does.
    pub kind: Kind,
    /// What the run is about.
    pub labels: Labels,
    /// Digest of settings and inputs, in hexadecimal, where a study wrote one.
    pub id: Option<String>,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// Wall-clock seconds.
    pub seconds: Option<f64>,
    /// The machine.
    pub machine: Machine,
    /// Version of `tamt`.
    pub tool_version: Option<String>,
    /// The content of `eval_results.json`.
    pub results: Map<String, Value>,
    /// Factor from the metrics of a result to percent points.
    pub scale: f64,
    /// The content of `config.toml`: names, joined by dots, and values.
    pub settings: BTreeMap<String, String>,
    /// The settings that set the run apart from others with its labels, where a `runs.csv` names them.
    pub variant: Option<String>,
}

/// A run whose result is no part of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Name of the run.
    pub name: String,
    /// Why the run is left out.
    pub reason: String,
}

/// How results name the best value of an evaluation: `best_accuracy`.
pub(crate) const BEST: &str = "best_";

impl Run {
    /// A number of the result. NaN is `null` in a result, and no number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        self.results.get(key).and_then(Value::as_f64).filter(|value| value.is_finite())
    }

    /// The metric by which the run's task is scored.
    #[must_use]
    pub fn metric(&self) -> Option<&str> {
        self.results.get("primary_metric").and_then(Value::as_str)
    }

    /// The name in the result of the score that tables show: the best evaluation on the development set.
    #[must_use]
    pub fn score_key(&self) -> Option<String> {
        let metric = self.metric()?;
        let best = format!("{BEST}{metric}");
        Some(if self.results.contains_key(&best) { best } else { metric.to_owned() })
    }

    /// The score in percent points.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        Some(self.scale * self.number(&self.score_key()?)?)
    }

    /// The score of the last evaluation, in percent points.
    #[must_use]
    pub fn final_score(&self) -> Option<f64> {
        Some(self.scale * self.number(self.metric()?)?)
    }

    /// The name that runs of its ticket have for a search: that of its directory.
    #[must_use]
    pub fn search_name(&self) -> &str {
        let name = self.directory.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
        name.or_else(|| self.name.rsplit('/').next()).unwrap_or_default()
    }

    /// The number of training examples of a fine-tuning run.
    #[must_use]
    pub fn train_examples(&self) -> Option<u64> {
        self.number("train_examples").map(|n| n as u64).or(self.labels.train_examples)
    }

    /// A whole number among the settings.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<u64> {
        self.settings.get(key)?.parse().ok()
    }

    /// The command as one line, quoted for a shell.
    #[must_use]
    pub fn command_line(&self) -> String {
        self.command.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
    }
}
