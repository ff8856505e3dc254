//! All runs as one CSV file, a line each, for other programs. The file has no path of the machine, so that it can be
//! published beside a paper.

use serde::Serialize;

use crate::run::Run;
use crate::variants::variants;

/// A run. Fields without a meaning for its kind are empty.
#[derive(Serialize)]
struct Row<'a> {
    run: &'a str,
    kind: &'static str,
    base: &'a str,
    method: &'a str,
    sparsity: Option<f64>,
    scope: Option<&'a str>,
    start: Option<&'a str>,
    ticket_seed: Option<u64>,
    ticket_steps: Option<u64>,
    ticket: Option<&'a str>,
    task: Option<&'a str>,
    train_examples: Option<u64>,
    tuning_seed: Option<u64>,
    /// Settings that differ among runs whose other labels are equal.
    settings: String,
    mlm_loss: Option<f64>,
    mlm_accuracy: Option<f64>,
    kd_loss: Option<f64>,
    metric: Option<&'a str>,
    best_score: Option<f64>,
    last_score: Option<f64>,
    seconds: Option<f64>,
    cpu: Option<&'a str>,
    threads: Option<u64>,
    precision: Option<&'a str>,
    version: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn new(run: &'a Run, settings: String) -> Self {
        let (labels, machine) = (&run.labels, &run.machine);
        Self {
            run: &run.name,
            kind: run.kind.name(),
            base: &labels.base,
            method: &labels.method,
            sparsity: labels.sparsity,
            scope: labels.scope.as_deref(),
            // The ticket that a search starts from, without its directory.
            start: labels.start.as_deref().and_then(|start| start.rsplit('/').next()),
            ticket_seed: labels.ticket_seed,
            ticket_steps: labels.steps,
            ticket: labels.ticket.as_deref(),
            task: labels.task.as_deref(),
            train_examples: run.train_examples(),
            tuning_seed: labels.seed,
            settings,
            mlm_loss: run.number("mlm_loss"),
            mlm_accuracy: run.number("mlm_accuracy"),
            kd_loss: run.number("kd_cosine"),
            metric: run.metric(),
            best_score: run.score(),
            last_score: run.final_score(),
            seconds: run.seconds,
            cpu: machine.cpu.as_deref(),
            threads: machine.threads,
            precision: machine.precision.as_deref(),
            version: run.tool_version.as_deref(),
            digest: run.id.as_deref(),
        }
    }
}

/// The runs as CSV: results with all digits, scores in percent points.
pub(super) fn csv(runs: &[Run]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (run, settings) in runs.iter().zip(variants(runs)) {
        // Writing to memory does not fail.
        let _ = writer.serialize(Row::new(run, settings));
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
