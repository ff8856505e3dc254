//! What a measurement runs, and the times of its runs.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tamt_kernels::Precision;
use tamt_model::Config;

use crate::compute::Kernel;
use crate::prune::Sparsity;
use crate::ticket::Ticket;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Mask training on MLM ([`MaskTraining::step`](crate::mask_training::MaskTraining::step)).
    MaskTraining,
    /// Fine-tuning on a task of two classes: forward, backward, clipping, AdamW on all weights that are not dropped.
    FineTuning,
    /// The hidden states of the last layer.
    Inference,
}

impl Work {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaskTraining => "mask training",
            Self::FineTuning => "fine-tuning",
            Self::Inference => "inference",
        }
    }
}

/// A model of the user's, whose steps are measured in place of those of a random model.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Directory or hub id, as given.
    pub name: String,
    /// The directory of its files.
    pub directory: PathBuf,
    /// The ticket, which must fit the model; magnitude masks of each sparsity without one.
    pub ticket: Option<Ticket>,
}

/// Settings of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchSettings {
    /// The encoder's shape.
    pub config: Config,
    /// The model; a random one of that shape where `None`.
    pub subject: Option<Subject>,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub length: usize,
    /// Dropout in training.
    pub dropout: f32,
    /// Sparsities of the sparse products, and of the tickets.
    pub sparsities: Vec<Sparsity>,
    /// Kernels of masked matrices; the dense kernel, whose speed no sparsity changes, is measured at the first one only.
    pub kernels: Vec<Kernel>,
    /// Kinds of steps.
    pub work: Vec<Work>,
    /// Whether single operations are measured.
    pub operations: bool,
    /// Steps before the timed ones.
    pub warmup: u64,
    /// Timed steps.
    pub steps: u64,
    /// Precision of dense products.
    pub precision: Precision,
}

/// Times of an operation or a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The operation or step.
    pub name: String,
    /// The kernel of masked matrices, where masks play a part.
    pub kernel: Option<Kernel>,
    /// The share of dropped weights, where a mask drops any.
    pub sparsity: Option<f64>,
    /// Floating-point operations, of products only. A sparse product counts as many as the dense one.
    pub flop: Option<f64>,
    /// Seconds of each run.
    pub seconds: Vec<f64>,
}

impl Timing {
    /// The median of the times.
    pub fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Floating-point operations a second, by the median.
    pub fn flops(&self) -> Option<f64> {
        Some(self.flop? / self.median())
    }

    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("name".into(), json!(self.name));
        let optional = [
            ("kernel", self.kernel.map(|kernel| json!(kernel))),
            ("sparsity", self.sparsity.map(|sparsity| json!(sparsity))),
            ("gflops", self.flops().map(|flops| json!(flops * 1e-9))),
        ];
        object.extend(optional.into_iter().filter_map(|(key, value)| Some((key.into(), value?))));
        object.insert("median_seconds".into(), json!(self.median()));
        object.insert("seconds".into(), json!(self.seconds));
        Value::Object(object)
    }
}

/// Seconds that `f` takes.
pub(super) fn seconds(f: impl FnOnce()) -> f64 {
    let started = Instant::now();
    f();
    started.elapsed().as_secs_f64()
}
