//! A study that is open: its plan, runs, store, and the file that names them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;
use tamt_study::plan::Plan;
use tamt_study::queue::{Counts, Queue};
use tamt_study::run::Run;
use tamt_study::store::{State, Store};
use tamt_study::study::StudyFile;

use crate::printer::Printer;

/// A plan with its runs and its store.
pub(super) struct Study {
    pub(super) plan: Plan,
    pub(super) runs: Vec<Run>,
    pub(super) store: Store,
    pub(super) directory: PathBuf,
}

impl Study {
    /// Writes `study.json`.
    pub(super) fn write(&self, queue: &Queue<'_>) -> Result<()> {
        let file = StudyFile::new(&self.plan, &self.store, &self.runs, queue.states());
        file.write(&self.directory)?;
        Ok(file.register(&self.directory)?)
    }

    /// The result: the counts, or an error that names every failed run.
    pub(super) fn end(&self, queue: &Queue<'_>, printer: Printer) -> Result<()> {
        self.write(queue)?;
        let counts = queue.counts();
        let failures: Vec<String> = self
            .runs
            .iter()
            .zip(queue.states())
            .filter_map(|(run, state)| match state {
                State::Failed { error } => Some(format!("\n  {}: {error}", run.directory().display())),
                _ => None,
            })
            .collect();
        let Counts { done, failed, blocked, open } = counts;
        if failed + blocked > 0 {
            let waiting =
                if blocked > 0 { format!(", and {blocked} wait for a ticket of them") } else { String::new() };
            bail!(
                "{failed} of {} runs failed{waiting}; --retry-failed runs them again:{}",
                self.runs.len(),
                failures.concat()
            );
        }
        let text = format!("{done} of {} runs are done: {}\n", self.runs.len(), self.store.root().display());
        printer.result(
            &json!({ "runs": self.runs.len(), "done": done, "failed": failed, "open": open,
            "store": self.store.root() }),
            &text,
        )
    }
}
