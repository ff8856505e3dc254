//! The tables of `--dry-run` and `--status`.

use anyhow::Result;
use serde_json::json;
use tamt_study::queue::Queue;
use tamt_study::run::Run;
use tamt_study::store::{State, Store};
use tamt_study::worker::signs;

use crate::printer::{Printer, Table};
use crate::progress::duration;
use crate::verbs::study::estimate::{Estimate, Estimator};

/// Prints the runs with what each takes on this machine, and sums.
pub(super) fn dry_run(store: &Store, runs: &[Run], printer: Printer) -> Result<()> {
    let queue = Queue::new(runs, store)?;
    let estimator = Estimator::new(printer);
    let mut table = Table::new(&["run", "state", "time"]);
    let (mut rows, mut sum, mut counted) = (Vec::new(), Estimate::default(), 0);
    for (run, state) in runs.iter().zip(queue.states()) {
        let directory = run.directory().display().to_string();
        if let State::Done { seconds, .. } = state {
            table.row([directory.clone(), "done".to_owned(), duration(*seconds)]);
            rows.push(json!({ "run": directory, "state": "done", "seconds": seconds }));
            continue;
        }
        let estimate = estimator.of(run)?;
        sum.seconds += estimate.seconds;
        sum.bytes += estimate.bytes;
        sum.transient = sum.transient.max(estimate.transient);
        counted += 1;
        let word = word(&queue, run, state);
        table.row([directory.clone(), word.to_owned(), format!("about {}", duration(estimate.seconds))]);
        rows.push(json!({ "run": directory, "state": word, "seconds": estimate.seconds, "bytes": estimate.bytes }));
    }
    let threads = rayon::current_num_threads();
    let text = format!(
        "{}{} runs, {} done; the other {counted} take about {} with {threads} threads, {} on disk, and {} for checkpoints \
         while a run lasts\n",
        table.render(),
        runs.len(),
        runs.len() - counted,
        duration(sum.seconds),
        size(sum.bytes),
        size(sum.transient)
    );
    let json = json!({ "runs": rows, "seconds": sum.seconds, "bytes": sum.bytes, "checkpoint_bytes": sum.transient,
        "threads": threads });
    printer.result(&json, &text)
}

/// The state of a run in a word.
fn word(queue: &Queue<'_>, run: &Run, state: &State) -> &'static str {
    match state {
        State::Done { .. } => "done",
        State::Failed { .. } => "failed",
        _ if queue.is_blocked(run) => "blocked",
        State::Damaged { .. } => "damaged",
        State::Started => "started",
        State::ToDo => "to do",
    }
}

/// Bytes in the unit that fits.
fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes * 1e-9),
        bytes => format!("{:.1} MB", bytes * 1e-6),
    }
}

/// Prints the state of each run.
pub(super) fn status(store: &Store, runs: &[Run], printer: Printer) -> Result<()> {
    let queue = Queue::new(runs, store)?;
    let signs = signs(store)?;
    let mut table = Table::new(&["run", "state", "where", "step", "left"]);
    let mut rows = Vec::new();
    for (run, state) in runs.iter().zip(queue.states()) {
        let is_open = !matches!(state, State::Done { .. } | State::Failed { .. });
        let working = signs.values().find_map(|sign| {
            let work = sign.work.as_ref().filter(|work| is_open && work.run == run.id)?;
            Some((format!("{}:{}", sign.host, sign.pid), work))
        });
        let word = if working.is_some() { "running" } else { word(&queue, run, state) };
        let detail = match state {
            State::Failed { error } => Some(error.clone()),
            State::Damaged { reason } => Some(reason.clone()),
            _ => None,
        };
        let place = working.as_ref().map(|(place, _)| place.clone());
        let step = working.as_ref().map(|(_, work)| format!("{}/{}", work.step, work.total));
        let left = working.as_ref().and_then(|(_, work)| work.seconds_left);
        let directory = run.directory().display().to_string();
        let cells = [Some(directory.clone()), Some(word.to_owned()), place.clone().or(detail.clone()), step.clone()];
        table.row(cells.into_iter().chain([left.map(duration)]).map(Option::unwrap_or_default));
        rows.push(json!({ "run": directory, "state": word, "where": place, "step": step, "seconds_left": left,
            "detail": detail }));
    }
    let counts = queue.counts();
    let text = format!(
        "{}{} runs: {} done, {} failed, {} blocked, {} open\n",
        table.render(),
        runs.len(),
        counts.done,
        counts.failed,
        counts.blocked,
        counts.open
    );
    printer.result(&json!({ "runs": rows }), &text)
}
