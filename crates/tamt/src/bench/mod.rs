//! How fast this machine computes: single operations and whole steps, dense and sparse, beside the machine's peak.
//!
//! Tokens are random, and so are weights unless a model is given: the time of a step depends on shapes and on the number
//! and the positions of kept weights, not on values.

mod operations;
mod steps;
pub(crate) mod timing;

pub use timing::{BenchSettings, Subject, Timing, Work};

use serde_json::{Value, json};
use tamt_kernels::{measure_peak_flops, processor, sparse};

use crate::compute::Kernel;
use crate::error::{Error, Result};
use crate::prune::Sparsity;

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The processor, the precision and the instructions in use.
    pub processor: String,
    /// Threads.
    pub threads: usize,
    /// Floating-point operations a second of multiply-adds on registers, on all threads; `None` without operations.
    pub peak_flops: Option<f64>,
    /// The density up to which `--kernel auto` takes the sparse kernel.
    pub sparse_up_to: f32,
    /// Single operations.
    pub operations: Vec<Timing>,
    /// Whole steps.
    pub steps: Vec<Timing>,
    /// The largest resident set of the process so far, where the system reports it.
    pub peak_rss_bytes: Option<u64>,
}

impl Report {
    /// The report as an object.
    pub fn to_json(&self, settings: &BenchSettings) -> Value {
        let config = &settings.config;
        let list = |timings: &[Timing]| timings.iter().map(Timing::to_json).collect::<Vec<_>>();
        json!({
            "processor": self.processor,
            "threads": self.threads,
            "precision": settings.precision,
            "model": settings.subject.as_ref().map(|subject| &subject.name),
            "with_ticket": settings.subject.as_ref().is_some_and(|subject| subject.ticket.is_some()),
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

/// Checks that the process may have memory for the hidden states of all layers: a batch of any size is refused ahead of
/// the allocation that would end the process.
fn check_memory(settings: &BenchSettings) -> Result<()> {
    let BenchSettings { config, batch_size, length, .. } = settings;
    let per_token = config.num_hidden_layers.saturating_add(1).saturating_mul(config.hidden_size);
    let states = batch_size.saturating_mul(*length).saturating_mul(per_token);
    let bytes = states.saturating_mul(size_of::<f32>());
    // The allocation is never touched, so that it costs address space only.
    if Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
        let reason = format!(
            "the hidden states of {batch_size} sequences of {length} tokens take {bytes} bytes, more than this process \
             may have"
        );
        return Err(Error::setting("batch-size", reason));
    }
    Ok(())
}

/// Measures. `progress` gets the name of each run before it begins.
///
/// # Errors
/// If the model has no positions for the length, or the batch or the number of steps is zero.
pub fn bench(settings: &BenchSettings, mut progress: impl FnMut(&str)) -> Result<Report> {
    let longest = settings.config.max_length();
    if settings.length < 1 || settings.length > longest {
        let reason = format!("{} is not between 1 and the model's {longest} positions", settings.length);
        return Err(Error::setting("length", reason));
    }
    if settings.batch_size < 1 || settings.steps < 1 {
        return Err(Error::setting("batch-size", "there is nothing to measure without sequences and steps"));
    }
    check_memory(settings)?;
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
        sparse_up_to: sparse::break_even(settings.precision),
        operations,
        steps,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// Each kernel with the sparsities of its measurements.
fn variants(settings: &BenchSettings) -> impl Iterator<Item = (Kernel, Sparsity)> {
    let sparsities = |kernel: Kernel| match kernel {
        Kernel::Dense => &settings.sparsities[..settings.sparsities.len().min(1)],
        Kernel::Sparse | Kernel::Auto => &settings.sparsities[..],
    };
    settings.kernels.iter().flat_map(move |&kernel| sparsities(kernel).iter().map(move |&sparsity| (kernel, sparsity)))
}

/// `VmHWM` of this process, on Linux.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    Some(1024 * kilobytes.parse::<u64>().ok()?)
}
