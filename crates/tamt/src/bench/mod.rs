//! How fast this machine computes: single operations and whole steps, dense and sparse, beside what it could do at best.
//!
//! Weights and tokens are random: what a step costs depends on shapes and on how many weights are kept, not on values.

mod operations;
mod steps;

use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tamt_kernels::{Precision, measure_peak_flops, processor};
use tamt_model::Config;

use crate::compute::break_even;
use crate::prune::Sparsity;
use crate::{Error, Kernel, Result};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Mask training on MLM: forward, backward, clipping, AdamW on scores and head, new masks.
    MaskTraining,
    /// Fine-tuning on a task of two classes: forward, backward, clipping, AdamW on all that trains.
    FineTuning,
    /// The hidden states of the last layer.
    Inference,
}

impl Work {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaskTraining => "mask training",
            Self::FineTuning => "fine-tuning",
            Self::Inference => "inference",
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchSettings {
    /// The encoder's shape.
    pub config: Config,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub length: usize,
    /// Dropout in training.
    pub dropout: f32,
    /// Sparsities of the sparse products, and of the tickets.
    pub sparsities: Vec<Sparsity>,
    /// Kernels of masked matrices; the dense one is measured at the first sparsity only, which it does not feel.
    pub kernels: Vec<Kernel>,
    /// Kinds of steps.
    pub work: Vec<Work>,
    /// Whether single operations are measured.
    pub operations: bool,
    /// Steps before the clock runs.
    pub warmup: u64,
    /// Steps that are timed.
    pub steps: u64,
    /// Precision of dense products.
    pub precision: Precision,
}

/// Times of an operation or a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// What was run.
    pub name: String,
    /// The kernel of masked matrices, where there are any.
    pub kernel: Option<Kernel>,
    /// The share of dropped weights, where there are any.
    pub sparsity: Option<f64>,
    /// Floating-point operations, of products only. A sparse product is credited with those of the dense one.
    pub flop: Option<f64>,
    /// Seconds of each run.
    pub seconds: Vec<f64>,
}

impl Timing {
    /// The median of the times.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Floating-point operations a second, by the median.
    #[must_use]
    pub fn flops(&self) -> Option<f64> {
        Some(self.flop? / self.median())
    }

    fn to_json(&self) -> Value {
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

/// All that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The processor, the precision and the instructions in use.
    pub processor: String,
    /// Threads.
    pub threads: usize,
    /// Floating-point operations a second of multiply-adds on registers, on all threads; `None` without operations.
    pub peak_flops: Option<f64>,
    /// The density up to which the sparse kernel is the faster one.
    pub sparse_up_to: f32,
    /// Single operations.
    pub operations: Vec<Timing>,
    /// Whole steps.
    pub steps: Vec<Timing>,
    /// The largest resident set of the process so far, where the system tells it.
    pub peak_rss_bytes: Option<u64>,
}

impl Report {
    /// The report as an object.
    #[must_use]
    pub fn to_json(&self, settings: &BenchSettings) -> Value {
        let config = &settings.config;
        let list = |timings: &[Timing]| timings.iter().map(Timing::to_json).collect::<Vec<_>>();
        json!({
            "processor": self.processor,
            "threads": self.threads,
            "precision": settings.precision,
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "batch_size": settings.batch_size,
            "length": settings.length,
            "peak_gflops": self.peak_flops.map(|flops| flops * 1e-9),
            "sparse_up_to": self.sparse_up_to,
            "operations": list(&self.operations),
            "steps": list(&self.steps),
            "peak_rss_bytes": self.peak_rss_bytes,
        })
    }
}

/// Measures. `progress` is told what runs next.
///
/// # Errors
/// If the length is more than the model holds, or there is nothing in a batch.
pub fn bench(settings: &BenchSettings, mut progress: impl FnMut(&str)) -> Result<Report> {
    let longest = settings.config.max_length();
    if settings.length < 1 || settings.length > longest {
        let reason = format!("{} is not between 1 and the model's {longest} positions", settings.length);
        return Err(Error::setting("length", reason));
    }
    if settings.batch_size < 1 || settings.steps < 1 {
        return Err(Error::setting("batch-size", "there is nothing to measure without sequences and steps"));
    }
    let (mut operations, mut peak_flops) = (Vec::new(), None);
    if settings.operations {
        progress("peak");
        peak_flops = Some(measure_peak_flops(settings.precision));
        operations = operations::all(settings, &mut progress);
    }
    let mut steps = Vec::new();
    for &work in &settings.work {
        for (kernel, sparsity) in variants(settings) {
            progress(&format!("{}, {} at {}", work.name(), kernel.name(), sparsity.share()));
            steps.push(steps::time(settings, work, kernel, sparsity)?);
        }
    }
    Ok(Report {
        processor: processor(settings.precision),
        threads: rayon::current_num_threads(),
        peak_flops,
        sparse_up_to: break_even(settings.precision),
        operations,
        steps,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// Each kernel with the sparsities that it is measured at.
fn variants(settings: &BenchSettings) -> impl Iterator<Item = (Kernel, Sparsity)> {
    let sparsities = |kernel: Kernel| match kernel {
        Kernel::Dense => &settings.sparsities[..settings.sparsities.len().min(1)],
        Kernel::Sparse | Kernel::Auto => &settings.sparsities[..],
    };
    settings.kernels.iter().flat_map(move |&kernel| sparsities(kernel).iter().map(move |&sparsity| (kernel, sparsity)))
}

/// Seconds that `f` takes.
fn seconds(f: impl FnOnce()) -> f64 {
    let started = Instant::now();
    f();
    started.elapsed().as_secs_f64()
}

/// `VmHWM` of this process, on Linux.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    Some(1024 * kilobytes.parse::<u64>().ok()?)
}
