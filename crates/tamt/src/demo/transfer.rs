//! From tickets to tasks: the dense model and a ticket of every method, fine-tuned on tasks in the invented language.
//!
//! Runs are many and small, so several go on at a time, each on one thread; results do not depend on that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde_json::{Map, Value};
use tamt_data::Tokenizer;
use tamt_data::invented::{TaskSizes, World};
use tamt_data::tasks::{Head, Task};
use tamt_model::HeadStart;

use super::settings::{DemoSettings, TASKS};
use super::stages::Stages;
use super::{MODEL_DIR, TicketLosses, number, record};
use crate::find::Method;
use crate::prune::Sparsity;
use crate::run::{RunDir, Silent, Stop, read_eval_results};
use crate::ticket::Ticket;
use crate::tune::{TaskData, TaskModel, TuneSettings, tune};
use crate::{Error, Result};

/// The tasks' files, in the output directory.
pub const TASKS_DIR: &str = "tasks";
/// The fine-tuning runs, in the output directory.
pub const TUNED_DIR: &str = "tuned";

/// The score of the dense model, or of a method's ticket, on a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskScore {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: &'static str,
    /// How the ticket was found; `None` for the dense model.
    pub method: Option<Method>,
    /// The share of weights it drops; `None` for the dense model.
    pub sparsity: Option<Sparsity>,
    /// The best score on the development set, for each fine-tuning seed; as a share, also where the benchmark prints
    /// percentages. What is not a number counts as 0: predictions without any variation.
    pub scores: Vec<f64>,
}

impl TaskScore {
    /// The mean over seeds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }
}

/// Writes the tasks' files into `directory`.
///
/// # Errors
/// If one cannot be written.
pub(super) fn write_tasks(world: &World, settings: &DemoSettings, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    let sizes = TaskSizes { train: settings.task_train, dev: settings.task_dev, test: settings.task_dev };
    Ok(world.write_tasks(directory, sizes, settings.seed)?)
}

/// What a run's `eval_results.json` holds, or why it has none.
type RunResult = Result<Map<String, Value>>;

/// One fine-tuning.
struct Job<'a> {
    task: &'a Task,
    data: &'a TaskData,
    settings: TuneSettings,
    /// The index of its entry among the scores.
    entry: usize,
    ticket: Option<&'a Ticket>,
    path: PathBuf,
}

/// Fine-tunes everything on every task.
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
    let name = model.to_string_lossy();
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
    let (mut scores, mut jobs) = (Vec::new(), Vec::new());
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
                jobs.push(Job { task, data, settings, entry: scores.len(), ticket, path });
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
    let results = run_all(&jobs, &name, resumed, stages, stop)?;
    let mut seconds = 0.0;
    for (job, result) in jobs.iter().zip(results) {
        let key = format!("best_{}", job.task.primary.key());
        let percent = matches!(job.task.head, Head::Span { .. });
        let score = result.get(&key).and_then(Value::as_f64).unwrap_or(0.0);
        scores[job.entry].scores.push(if percent { score / 100.0 } else { score });
        seconds += number(&result, "seconds", &job.path)?;
    }
    Ok((scores, seconds))
}

/// Runs the jobs, as many at a time as the current pool has threads, and gives their results in order.
fn run_all(
    jobs: &[Job<'_>],
    model: &str,
    resumed: bool,
    stages: &mut Stages<'_>,
    stop: &Stop,
) -> Result<Vec<Map<String, Value>>> {
    let workers = rayon::current_num_threads().min(jobs.len());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<RunResult>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let done = done.clone();
            let (next, results) = (&next, &results);
            scope.spawn(move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let outcome = match &pool {
                        Ok(pool) => pool.install(|| run_one(job, model, resumed, stop)),
                        Err(_) => run_one(job, model, resumed, stop),
                    };
                    let failed = outcome.is_err();
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[index] = Some(outcome);
                    // Nobody is left to listen once another job has failed.
                    let _ = done.send(());
                    if failed {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
        drop(done);
        stages.count_runs(jobs.len() as u64, finished.iter());
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Only where a run failed, others were not begun: the result is then the first failure in order.
    results.into_iter().flatten().collect()
}

fn run_one(job: &Job<'_>, model: &str, resumed: bool, stop: &Stop) -> RunResult {
    let directory = RunDir::create(&job.path, &record("tune", &job.settings)?, resumed)?;
    if directory.finished() {
        return read_eval_results(&job.path);
    }
    let base = TaskModel::load(model, job.task, HeadStart::Random(job.settings.seed))?;
    let ticket = match job.ticket {
        Some(ticket) => Some((ticket, base.masks_of(ticket, false)?)),
        None => None,
    };
    let tuned = tune(job.task, base, ticket, None, job.data, &job.settings, directory, &mut Silent, stop.clone())?;
    Ok(tuned.to_json())
}
