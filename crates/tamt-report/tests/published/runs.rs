//! The runs of docs/data, and the scores and losses of tickets among them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use tamt_report::stats::summary::Summary;

/// The steps of the searches whose tickets the tables have where they name no others.
const STEPS: u64 = 1000;

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    Summary::of(&values).map_or(f64::NAN, |of| of.mean)
}

/// What a run measured, by the columns of `runs.csv`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) run: String,
    pub(crate) kind: String,
    pub(crate) method: String,
    pub(crate) sparsity: Option<f64>,
    pub(crate) scope: Option<String>,
    pub(crate) ticket_seed: Option<u64>,
    pub(crate) ticket_steps: Option<u64>,
    /// The search that the measured ticket comes from.
    pub(crate) ticket: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) train_examples: Option<u64>,
    pub(crate) tuning_seed: Option<u64>,
    pub(crate) mlm_loss: Option<f64>,
    pub(crate) kd_loss: Option<f64>,
    pub(crate) best_score: Option<f64>,
    /// The values of the flags that a plan gives several values.
    pub(crate) settings: Option<String>,
}

impl Run {
    pub(crate) fn loss(&self, name: &str) -> f64 {
        let loss = match name {
            "MLM loss" => self.mlm_loss,
            "KD loss" => self.kd_loss,
            _ => panic!("{name:?} is no loss"),
        };
        loss.unwrap()
    }
}

/// Tickets of one method. The dense model has no sparsity, and tickets that are not searched for have no seed or steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tickets<'a> {
    pub(crate) method: &'a str,
    pub(crate) sparsity: f64,
    pub(crate) scope: &'a str,
    pub(crate) steps: u64,
    /// The seed of tickets and of fine-tuning; `None` for all of both.
    pub(crate) seed: Option<u64>,
}

impl<'a> Tickets<'a> {
    /// Those of local scope after all steps, with all seeds.
    pub(crate) fn all(method: &'a str, sparsity: f64) -> Self {
        Self { method, sparsity, scope: "local", steps: STEPS, seed: None }
    }

    /// Those with the first seeds.
    pub(crate) fn first(method: &'a str, sparsity: f64) -> Self {
        Self { seed: Some(1), ..Self::all(method, sparsity) }
    }

    pub(crate) fn have(&self, run: &Run) -> bool {
        run.method == self.method
            && run.sparsity.is_none_or(|of| of == self.sparsity)
            && run.scope.as_ref().is_none_or(|of| of == self.scope)
            && run.ticket_steps.is_none_or(|of| of == self.steps)
            && [run.ticket_seed, run.tuning_seed].iter().flatten().all(|seed| self.seed.is_none_or(|of| of == *seed))
    }
}

/// Scores in percent points by the seeds of ticket and of fine-tuning.
pub(crate) type Scores = BTreeMap<(Option<u64>, Option<u64>), f64>;

pub(crate) struct Runs(pub(crate) Vec<Run>);

impl Runs {
    pub(crate) fn read(path: &str) -> Self {
        Self(csv::Reader::from_reader(read(path).as_bytes()).deserialize().map(Result::unwrap).collect())
    }

    /// The runs that `is_chosen` chooses.
    pub(crate) fn chosen(&self, is_chosen: impl Fn(&Run) -> bool) -> Self {
        Self(self.0.iter().filter(|run| is_chosen(run)).cloned().collect())
    }

    pub(crate) fn loss(&self, tickets: Tickets<'_>, name: &str) -> f64 {
        let runs = self.0.iter().filter(|run| run.kind == "losses" && tickets.have(run));
        mean(runs.map(|run| run.loss(name)))
    }

    /// Fine-tunings on a task with so many examples, or with the most.
    pub(crate) fn tunings(&self, task: &str, examples: Option<u64>) -> impl Iterator<Item = &Run> {
        let of_task = move |run: &&Run| run.kind == "tune" && run.task.as_deref() == Some(task);
        let most = self.0.iter().filter(of_task).filter_map(|run| run.train_examples).max();
        self.0.iter().filter(of_task).filter(move |run| run.train_examples == examples.or(most))
    }

    pub(crate) fn scores(&self, tickets: Tickets<'_>, task: &str, examples: Option<u64>) -> Scores {
        let runs = self.tunings(task, examples).filter(|run| tickets.have(run));
        runs.map(|run| ((run.ticket_seed, run.tuning_seed), run.best_score.unwrap())).collect()
    }

    pub(crate) fn score(&self, tickets: Tickets<'_>, task: &str, examples: Option<u64>) -> f64 {
        mean(self.scores(tickets, task, examples).into_values())
    }
}
