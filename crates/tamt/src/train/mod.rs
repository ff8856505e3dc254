//! The one training loop: mask training, iterative pruning, pre-training and fine-tuning are each a [`TrainingTask`].

pub(crate) mod interval;
pub(crate) mod learner;
pub(crate) mod optimizer;
pub(crate) mod schedule;
mod state;
pub(crate) mod task;

use std::path::PathBuf;
use std::time::Instant;

pub use learner::{Learner, Subnetwork, TrainingMode};
pub use optimizer::{Clip, Optimizer, OptimizerKind, OptimizerSettings};
pub use schedule::{Schedule, Shape};
pub use task::{Best, Metrics, StepResult, TrainingTask};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::metrics;
use crate::run::{Log, Observer, RunDir, StepReport, Stop, TrainerState};
use crate::train::interval::Interval;

/// Settings of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainSettings {
    /// Optimiser steps to take.
    pub max_steps: u64,
    /// The learning rate's schedule.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// Steps between evaluations; 0 for none before the end.
    pub eval_every: u64,
    /// Steps between checkpoints; 0 for none but on a stop signal.
    pub save_every: u64,
    /// Steps between logged lines; 0 for none.
    pub logging_steps: u64,
}

/// Where a run writes, who watches it and who may stop it.
pub struct Session<'a> {
    /// The run directory.
    pub directory: RunDir,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
    /// Who may stop it.
    pub stop: Stop,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The end of a training.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The final evaluation.
    pub metrics: Metrics,
    /// Optimiser steps taken; fewer than planned where the task was exhausted.
    pub steps: u64,
    /// Seconds of this call, evaluations included.
    pub seconds: f64,
    /// The record so far, to be written with the result.
    pub state: TrainerState,
}

/// Runs `task` until `max_steps`, from the newest checkpoint where the run directory has one, and evaluates at the end.
/// `stage` is the observer's name of the run.
///
/// # Errors
/// [`Error::Stopped`] on a stop signal, after saving a checkpoint; [`Error::NonFinite`] if a loss or a gradient is not
/// finite; the errors of the task and of writing.
pub fn train(
    task: &mut dyn TrainingTask,
    learner: &mut Learner<'_>,
    settings: &TrainSettings,
    stage: &str,
    session: &mut Session<'_>,
) -> Result<Trained> {
    let started = Instant::now();
    let mut run = Loop::start(task, learner, settings, session)?;
    run.session.observer.plan(stage, settings.max_steps, run.done);
    let mut exhausted = None;
    while run.done < settings.max_steps {
        run.stop_if_asked()?;
        run.step()?;
        if run.is_due(settings.eval_every) {
            let metrics = run.evaluate()?;
            if run.task.is_exhausted() {
                exhausted = Some(metrics);
                break;
            }
        }
        if run.is_due(settings.save_every) {
            run.save_checkpoint()?;
        }
    }
    let metrics = match exhausted {
        Some(metrics) => metrics,
        None => run.evaluate()?,
    };
    run.log.flush()?;
    run.session.observer.finish();
    Ok(Trained { metrics, steps: run.done, seconds: started.elapsed().as_secs_f64(), state: run.record })
}

/// The loop between two steps.
struct Loop<'a, 'm, 's> {
    task: &'a mut dyn TrainingTask,
    learner: &'a mut Learner<'m>,
    settings: &'a TrainSettings,
    session: &'a mut Session<'s>,
    log: Log,
    record: TrainerState,
    interval: Interval,
    /// The newest checkpoint and its step.
    checkpoint: Option<(u64, PathBuf)>,
    /// Steps done.
    done: u64,
}

impl<'a, 'm, 's> Loop<'a, 'm, 's> {
    /// Begins at step 0 or at the newest checkpoint.
    fn start(
        task: &'a mut dyn TrainingTask,
        learner: &'a mut Learner<'m>,
        settings: &'a TrainSettings,
        session: &'a mut Session<'s>,
    ) -> Result<Self> {
        let checkpoint = session.directory.latest_checkpoint()?;
        let mut record = TrainerState {
            max_steps: settings.max_steps,
            eval_steps: settings.eval_every,
            save_steps: settings.save_every,
            logging_steps: settings.logging_steps,
            ..TrainerState::default()
        };
        let mut interval = Interval::default();
        if let Some((step, path)) = &checkpoint {
            interval = state::load(learner, path, *step)?;
            task.restore(learner, path)?;
            record = TrainerState::read(path)?;
            session.observer.note(&format!("resuming from {}", path.display()));
        }
        let saved = checkpoint.as_ref().map(|(step, _)| *step);
        let log = Log::open(session.directory.path(), saved)?;
        let done = saved.unwrap_or(0);
        Ok(Self { task, learner, settings, session, log, record, interval, checkpoint, done })
    }

    /// Whether something that happens every `interval` steps, and not at the end, happens after this step.
    fn is_due(&self, interval: u64) -> bool {
        interval > 0 && self.done.is_multiple_of(interval) && self.done < self.settings.max_steps
    }

    /// Saves a checkpoint and returns an error if a signal asks the run to stop.
    fn stop_if_asked(&mut self) -> Result<()> {
        let Some(signal) = self.session.stop.requested() else { return Ok(()) };
        if self.checkpoint.as_ref().is_none_or(|(step, _)| *step < self.done) {
            self.save_checkpoint()?;
        }
        self.log.flush()?;
        let checkpoint = self.checkpoint.take().map(|(_, path)| path);
        Err(Error::Stopped { signal, step: self.done, checkpoint })
    }

    fn step(&mut self) -> Result<()> {
        let started = Instant::now();
        let factor = self.settings.schedule.factor(self.task.scheduled_step(self.done));
        let learning_rate = self.settings.optimizer.learning_rate * factor;
        let result = self.task.step(self.learner, self.done, learning_rate)?;
        self.done += 1;
        if let Some(what) = result.non_finite() {
            let last_good = self.checkpoint.take().map(|(_, path)| path);
            return Err(Error::NonFinite { step: self.done, what: what.to_owned(), last_good });
        }
        let loss = &result.loss;
        self.record.global_step = self.done;
        self.record.num_input_tokens_seen += loss.tokens;
        self.record.epoch = Some(self.done as f64 / self.task.batches_per_epoch() as f64);

        self.interval.add(&result);
        let parts = loss.parts();
        self.session.observer.step(&StepReport {
            step: self.done,
            loss: loss.total,
            learning_rate,
            tokens: loss.tokens,
            seconds: started.elapsed().as_secs_f64(),
            extras: &parts,
        });
        if self.settings.logging_steps > 0 && self.done.is_multiple_of(self.settings.logging_steps) {
            let mut values = self.interval.take(&parts);
            values.push((metrics::LEARNING_RATE, learning_rate));
            self.log.scalars(self.done, &values)?;
            self.record.log(&values);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Metrics> {
        let metrics = self.task.evaluate(self.learner, self.done)?;
        if let Some(best) = self.task.best() {
            self.record.best_metric = Some(best.value);
            self.record.best_global_step = Some(best.step);
        }
        if metrics.is_empty() {
            return Ok(metrics);
        }
        let logged: Vec<(String, f64)> = metrics.iter().map(|(name, value)| (format!("eval_{name}"), *value)).collect();
        let logged: Vec<(&str, f64)> = logged.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.log.scalars(self.done, &logged)?;
        self.record.log(&logged);
        let shown: Vec<(&str, f64)> = metrics.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        self.session.observer.evaluated(self.done, &shown);
        Ok(metrics)
    }

    fn save_checkpoint(&mut self) -> Result<()> {
        let Self { task, learner, record, interval, done, .. } = self;
        let path = self.session.directory.publish_checkpoint(*done, |partial| {
            task.save(learner, partial, *done)?;
            state::save(learner, interval, partial, *done)?;
            record.write(partial)
        })?;
        self.session.directory.discard_training_state_before(self.done)?;
        self.checkpoint = Some((self.done, path));
        Ok(())
    }
}
