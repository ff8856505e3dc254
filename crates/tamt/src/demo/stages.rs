//! The runs of a demonstration, numbered for whoever watches.

use super::DemoSettings;
use crate::find::Method;
use crate::run::{Observer, StepReport};

/// Passes a run's progress on under the number and name of its stage, and says in a line what came of it.
pub(super) struct Stages<'a> {
    observer: &'a mut dyn Observer,
    total: usize,
    begun: usize,
    label: String,
}

impl<'a> Stages<'a> {
    /// The language, the pre-training, and a run for each method and sparsity; iterative pruning has one for all.
    pub(super) fn new(settings: &DemoSettings, observer: &'a mut dyn Observer) -> Self {
        let runs = |&method: &Method| if method == Method::Imp { 1 } else { settings.sparsities.len() };
        let tasks = usize::from(!settings.task_sparsities.is_empty());
        let total = 2 + settings.methods.iter().map(runs).sum::<usize>() + tasks;
        Self { observer, total, begun: 0, label: String::new() }
    }

    /// The next stage begins.
    pub(super) fn begin(&mut self, name: &str) {
        self.begun += 1;
        self.label = format!("[{}/{}] {name}", self.begun, self.total);
    }

    /// Shows how many of the stage's runs are done, one for each item of `done`.
    pub(super) fn count_runs(&mut self, total: u64, done: impl Iterator<Item = ()>) {
        self.observer.plan(&self.label, total, 0);
        for (step, ()) in (1..).zip(done) {
            self.observer.advance(step);
        }
        self.observer.finish();
    }

    /// The stage is over, with this outcome.
    pub(super) fn end(&mut self, outcome: &str) {
        self.observer.note(&format!("{}: {outcome}", self.label));
    }
}

impl Observer for Stages<'_> {
    fn plan(&mut self, _: &str, total_steps: u64, start: u64) {
        self.observer.plan(&self.label, total_steps, start);
    }

    fn step(&mut self, report: &StepReport<'_>) {
        self.observer.step(report);
    }

    // What a run notes and evaluates by itself is in the line at its end, or the same for all of them.

    fn finish(&mut self) {
        self.observer.finish();
    }
}
