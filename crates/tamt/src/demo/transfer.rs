//! Fine-tuning the dense model and tickets of every method on tasks in the invented language.
//!
//! The runs are many and small, so each has one thread and as many run at a time as the pool has threads. The results
//! do not depend on the number of threads.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};
use tamt_data::Tokenizer;
use tamt_data::tasks::{Head, Task};
use tamt_model::{HeadStart, Storage};

use crate::demo::files::{MODEL_DIR, TASKS_DIR, TUNED_DIR};
use crate::demo::report::{TaskScore, TicketLosses};
use crate::demo::settings::{DemoSettings, TASKS};
use crate::demo::stages::Stages;
use crate::error::Result;
use crate::run::{RunDir, Silent, Stop, VerbSettings, number, read_eval_results};
use crate::ticket::Ticket;
use crate::train::Session;
use crate::tune::{BEST_PREFIX, TaskData, TaskModel, TuneSettings, tune};

/// The content of a run's `eval_results.json`, or the failure of the run.
type RunResult = Result<Map<String, Value>>;

/// One fine-tuning.
struct FineTuning<'a> {
    task: &'a Task,
    data: &'a TaskData,
    settings: TuneSettings,
    /// The index of the entry among the scores.
    entry: usize,
    ticket: Option<&'a Ticket>,
    path: PathBuf,
}

/// Fine-tunes the dense model and the chosen tickets on every task. Returns the scores, and the seconds of all runs.
pub(super) fn transfer(
    settings: &DemoSettings,
    root: &Path,
    resumed: bool,
    tokenizer: &Tokenizer,
    tickets: &[TicketLosses],
    stages: &mut Stages<'_>,
    stop: &Stop,
) -> Result<(Vec<TaskScore>, f64)> {
    let model = root.join(MODEL_DIR);
    let is_chosen = |ticket: &&TicketLosses| {
        settings.task_sparsities.contains(&ticket.sparsity) && settings.task_methods.contains(&ticket.method)
    };
    let chosen: Vec<&TicketLosses> = tickets.iter().filter(is_chosen).collect();
    let read: Vec<Ticket> = chosen.iter().map(|ticket| Ticket::read(&ticket.ticket)).collect::<Result<_>>()?;
    let tasks: Vec<&Task> = TASKS.iter().filter_map(|name| Task::by_name(name)).collect();

    let mut data = Vec::with_capacity(tasks.len());
    for task in &tasks {
        data.push(TaskData::read(task, &root.join(TASKS_DIR), tokenizer, &settings.tuning(task, 0))?);
    }
    let (mut scores, mut runs) = (Vec::new(), Vec::new());
    for (task, data) in tasks.iter().zip(&data) {
        let subjects = [(None, None)].into_iter().chain(chosen.iter().copied().map(Some).zip(read.iter().map(Some)));
        for (losses, ticket) in subjects {
            let label = losses.map_or_else(
                || "dense".to_owned(),
                |losses| format!("{}-{}", losses.method.name(), losses.sparsity.share()),
            );
            for &seed in &settings.task_seeds {
                let path = root.join(TUNED_DIR).join(&task.name).join(format!("{label}-seed-{seed}"));
                let settings = settings.tuning(task, seed);
                runs.push(FineTuning { task, data, settings, entry: scores.len(), ticket, path });
            }
            scores.push(TaskScore {
                task: task.name.clone(),
                metric: task.primary.key(),
                method: losses.map(|losses| losses.method),
                sparsity: losses.map(|losses| losses.sparsity),
                scores: Vec::new(),
            });
        }
    }
    let results = run_all(&runs, &model, resumed, stages, stop)?;
    let mut seconds = 0.0;
    for (run, result) in runs.iter().zip(results) {
        let key = format!("{BEST_PREFIX}{}", run.task.primary.key());
        let percent = matches!(run.task.head, Head::Span { .. });
        let score = result.get(&key).and_then(Value::as_f64).unwrap_or(0.0);
        scores[run.entry].scores.push(if percent { score / 100.0 } else { score });
        seconds += number(&result, "seconds", &run.path)?;
    }
    Ok((scores, seconds))
}

/// Runs the fine-tunings, as many at a time as the current pool has threads, and returns their results in order.
fn run_all(
    runs: &[FineTuning<'_>],
    model: &Path,
    resumed: bool,
    stages: &mut Stages<'_>,
    stop: &Stop,
) -> Result<Vec<Map<String, Value>>> {
    let workers = rayon::current_num_threads().min(runs.len());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<RunResult>>> = Mutex::new(runs.iter().map(|_| None).collect());
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let done = done.clone();
            let (next, results) = (&next, &results);
            scope.spawn(move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = runs.get(index) else { break };
                    let outcome = match &pool {
                        Ok(pool) => pool.install(|| run_one(run, model, resumed, stop)),
                        Err(_) => run_one(run, model, resumed, stop),
                    };
                    let failed = outcome.is_err();
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[index] = Some(outcome);
                    // The receiver is gone once another run has failed.
                    let _ = done.send(());
                    if failed {
                        next.store(runs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
        drop(done);
        stages.count_runs(runs.len() as u64, finished.iter());
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A run without a result did not begin, because another run failed; the first failure in order is the result.
    results.into_iter().flatten().collect()
}

fn run_one(run: &FineTuning<'_>, model: &Path, resumed: bool, stop: &Stop) -> RunResult {
    let directory = RunDir::create(&run.path, &VerbSettings::new("tune", &run.settings), resumed)?;
    if directory.finished() {
        directory.retire_checkpoints_of_finished(|steps| run.settings.goes_on_after(steps))?;
        return read_eval_results(&run.path);
    }
    let base = TaskModel::load(model, run.task, HeadStart::Random(run.settings.seed), None, Storage::Dense)?;
    let masks = run.ticket.map(|ticket| base.masks_of(ticket, false)).transpose()?;
    let session = Session { directory, observer: &mut Silent, stop: stop.clone() };
    let tuned = tune(run.task, base, run.ticket.zip(masks), None, run.data, &run.settings, session)?;
    Ok(tuned.to_json())
}
