//! A run as a line of `runs.csv`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Map;
use tamt_study::labels::{DENSE, Labels};

use crate::run::{BEST, Kind, Machine, Run};

/// A run. Fields without a meaning for its kind are empty.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    run: String,
    kind: Kind,
    base: String,
    method: String,
    sparsity: Option<f64>,
    scope: Option<String>,
    start: Option<String>,
    ticket_seed: Option<u64>,
    ticket_steps: Option<u64>,
    ticket: Option<String>,
    task: Option<String>,
    train_examples: Option<u64>,
    tuning_seed: Option<u64>,
    /// Settings that differ among runs whose other labels are equal.
    #[serde(default)]
    settings: String,
    mlm_loss: Option<f64>,
    mlm_accuracy: Option<f64>,
    kd_loss: Option<f64>,
    metric: Option<String>,
    /// In percent points, as the last score.
    best_score: Option<f64>,
    last_score: Option<f64>,
    seconds: Option<f64>,
    cpu: Option<String>,
    threads: Option<u64>,
    precision: Option<String>,
    version: Option<String>,
    digest: Option<String>,
}

impl Row {
    /// The line of a run, which `settings` set apart from others with its labels.
    pub(crate) fn new(run: &Run, settings: String) -> Self {
        let (labels, machine) = (run.labels.clone(), run.machine.clone());
        Self {
            run: run.name.clone(),
            kind: run.kind,
            base: labels.base,
            method: labels.method,
            sparsity: labels.sparsity,
            scope: labels.scope,
            // The ticket that a search starts from, without its directory.
            start: labels.start.as_deref().and_then(|start| start.rsplit('/').next()).map(str::to_owned),
            ticket_seed: labels.ticket_seed,
            ticket_steps: labels.steps,
            ticket: labels.ticket,
            task: labels.task,
            train_examples: run.train_examples(),
            tuning_seed: labels.seed,
            settings,
            mlm_loss: run.number("mlm_loss"),
            mlm_accuracy: run.number("mlm_accuracy"),
            kd_loss: run.number("kd_cosine"),
            metric: run.metric().map(str::to_owned),
            best_score: run.score(),
            last_score: run.final_score(),
            seconds: run.seconds,
            cpu: machine.cpu,
            threads: machine.threads,
            precision: machine.precision,
            version: run.tool_version.clone(),
            digest: run.id.clone(),
        }
    }

    /// The run of a line.
    ///
    /// # Errors
    /// The reason why the line is none of a finished run.
    pub(crate) fn into_run(self) -> Result<Run, String> {
        let mut results = Map::new();
        let numbers = [("mlm_loss", self.mlm_loss), ("mlm_accuracy", self.mlm_accuracy), ("kd_cosine", self.kd_loss)];
        for (name, value) in numbers.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            results.insert(name.to_owned(), value.into());
        }
        if let Some(metric) = &self.metric {
            results.insert("primary_metric".to_owned(), metric.as_str().into());
            for (name, score) in [(format!("{BEST}{metric}"), self.best_score), (metric.clone(), self.last_score)] {
                results.extend(score.map(|score| (name, score.into())));
            }
        }
        if let Some(steps) = self.ticket_steps.filter(|_| self.kind == Kind::Find) {
            results.insert("steps".to_owned(), steps.into());
        }
        let run = Run {
            name: self.run,
            directory: None,
            kind: self.kind,
            labels: Labels {
                base: self.base,
                method: self.method,
                sparsity: self.sparsity,
                scope: self.scope,
                start: self.start,
                ticket_seed: self.ticket_seed,
                steps: self.ticket_steps,
                ticket: self.ticket,
                task: self.task,
                seed: self.tuning_seed,
                train_examples: self.train_examples,
            },
            id: self.digest,
            command: Vec::new(),
            seconds: self.seconds,
            machine: Machine { cpu: self.cpu, threads: self.threads, precision: self.precision },
            tool_version: self.version,
            results,
            scale: 1.0,
            settings: BTreeMap::new(),
            variant: Some(self.settings),
        };
        let is_of_ticket = run.labels.method != DENSE && run.kind != Kind::Pretrain;
        match run.kind {
            _ if is_of_ticket && run.labels.sparsity.is_none() => Err("a ticket has no sparsity".to_owned()),
            Kind::Tune if run.labels.task.is_none() => Err("a fine-tuning has no task".to_owned()),
            Kind::Tune if run.score().is_none() => Err("a fine-tuning has no metric or no finite score".to_owned()),
            Kind::Losses if run.number("mlm_loss").or(run.number("kd_cosine")).is_none() => {
                Err("a run of losses has no finite loss".to_owned())
            }
            _ => Ok(run),
        }
    }
}
