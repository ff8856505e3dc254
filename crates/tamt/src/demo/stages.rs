//! The stages of a demonstration, numbered for an observer.

use crate::demo::settings::DemoSettings;
use crate::find::Method;

use crate::run::{Observer, StepReport};
/// Forwards the progress of runs under the number and the name of their stage, and notes the outcome of each stage.
pub(super) struct Stages<'a> {
    observer: &'a mut dyn Observer,
    total: usize,
    begun: usize,
    label: String,
}

impl<'a> Stages<'a> {
    /// The language, the pre-training, a run for each method and sparsity (one run of iterative pruning reaches all
    /// sparsities), and the tasks.
    pub(super) fn new(settings: &DemoSettings, observer: &'a mut dyn Observer) -> Self {
        let runs = |&method: &Method| if method == Method::Imp { 1 } else { settings.sparsities.len() };
        let tasks = usize::from(!settings.task_sparsities.is_empty());
        let total = 2 + settings.methods.iter().map(runs).sum::<usize>() + tasks;
        Self { observer, total, begun: 0, label: String::new() }
    }

    /// Begins the next stage.
    pub(super) fn begin(&mut self, name: &str) {
        self.begun += 1;
        self.label = format!("[{}/{}] {name}", self.begun, self.total);
    }

    /// Shows the number of finished runs of the stage, one for each item of `done`.
    pub(super) fn count_runs(&mut self, total: u64, done: impl Iterator<Item = ()>) {
        self.observer.plan(&self.label, total, 0);
        for (step, ()) in (1..).zip(done) {
            self.observer.advance(step);
        }
        self.observer.finish();
    }

    /// Ends the stage, with this outcome.
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

    // The outcome of a stage covers the notes and evaluations of its runs.

    fn finish(&mut self) {
        self.observer.finish();
    }
}
