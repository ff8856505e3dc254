/// What one optimiser step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// The number of optimiser steps completed, this one included.
    pub step: u64,
    /// The training loss of this step's batch.
    pub loss: f64,
    /// The learning rate this step was taken with.
    pub learning_rate: f64,
    /// How many tokens the step's batch held.
    pub tokens: u64,
    /// Wall-clock seconds the step took.
    pub seconds: f64,
    /// Further quantities by name: the parts of a summed loss, the sparsity, the gradient norm.
    pub extras: &'a [(&'a str, f64)],
}

/// Someone who watches a run: a progress bar, a test, a notebook. Watching never changes what a run computes.
///
/// Every method does nothing unless overridden.
pub trait Observer {
    /// A stage named `stage` begins: `total_steps` optimiser steps, of which `start` were done before a resume.
    fn plan(&mut self, stage: &str, total_steps: u64, start: u64) {
        let _ = (stage, total_steps, start);
    }

    /// An optimiser step is done.
    fn step(&mut self, report: &StepReport<'_>) {
        let _ = report;
    }

    /// So many units of a stage without optimiser steps of its own are done.
    fn advance(&mut self, done: u64) {
        let _ = done;
    }

    /// An evaluation after optimiser step `step` gave these values by name.
    fn evaluated(&mut self, step: u64, values: &[(&str, f64)]) {
        let _ = (step, values);
    }

    /// Something a person should know, in one sentence.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// The stage announced last is over.
    fn finish(&mut self) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
