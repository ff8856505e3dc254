//! The interface through which a program watches a run.

/// The measurements of one optimiser step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// The number of optimiser steps completed, this one included.
    pub step: u64,
    /// The training loss of this step's batch.
    pub loss: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Tokens in this step's batch.
    pub tokens: u64,
    /// Wall-clock seconds of this step.
    pub seconds: f64,
    /// Further quantities by name: the parts of a summed loss.
    pub extras: &'a [(&'a str, f64)],
}

/// A watcher of a run: a progress bar, a test, a notebook. An observer never changes the result of a run.
///
/// Every method does nothing unless overridden.
pub trait Observer {
    /// A stage named `stage` begins: `total_steps` optimiser steps, of which `start` were done in an earlier process.
    fn plan(&mut self, stage: &str, total_steps: u64, start: u64) {
        let _ = (stage, total_steps, start);
    }

    /// An optimiser step has ended.
    fn step(&mut self, report: &StepReport<'_>) {
        let _ = report;
    }

    /// The run's evaluations are on `tokens` tokens in blocks of `block_size`, special tokens included.
    fn evaluates_on(&mut self, tokens: u64, block_size: usize) {
        let _ = (tokens, block_size);
    }

    /// `done` of the `total` units of an evaluation have ended.
    fn evaluating(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// An evaluation after optimiser step `step` gave these values by name.
    fn evaluated(&mut self, step: u64, values: &[(&str, f64)]) {
        let _ = (step, values);
    }

    /// A notice for a person, in one sentence.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// The stage announced last has ended.
    fn finish(&mut self) {}
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
