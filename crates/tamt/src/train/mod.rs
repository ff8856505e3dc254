//! The one training loop: mask training, iterative pruning, pre-training and fine-tuning are each a [`TrainingTask`].

pub(crate) mod interval;
pub(crate) mod learner;
pub(crate) mod optimizer;
mod resume;
pub(crate) mod schedule;
mod state;
pub(crate) mod task;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use learner::{Learner, Subnetwork, TrainingMode};
pub use optimizer::{Clip, Optimizer, OptimizerKind, OptimizerSettings};
pub use schedule::{Schedule, Shape};
pub use task::{Best, Metrics, StepResult, TrainingTask, Watch};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::metrics;
use crate::run::{EVAL_PREFIX, Hold, Log, Observer, RunDir, StepReport, Stop, TrainerState};
use crate::train::interval::Interval;
use crate::train::resume::{Resumed, resume};

/// The seed of a run by default.
pub const DEFAULT_SEED: u64 = 42;

/// Minutes between two checkpoints by default.
pub const SAVE_MINUTES: f64 = 10.0;

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
    /// Steps between checkpoints; 0 for none at fixed steps.
    pub save_every: u64,
    /// Minutes between checkpoints; 0 for none at fixed times. With neither, a run saves on a stop signal and ahead of
    /// its last evaluation.
    #[serde(default)]
    pub save_minutes: f64,
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
#[derive(Debug)]
pub struct Trained {
    /// The final evaluation; empty if it failed.
    pub metrics: Metrics,
    /// Why the final evaluation failed. What was trained is written all the same.
    failure: Option<Error>,
    /// Optimiser steps taken; fewer than planned where the task was exhausted.
    pub steps: u64,
    /// Seconds of the run ahead of its last resumption; 0 for a run that was never stopped.
    seconds_before: f64,
    /// The record so far, to be written with the result.
    pub state: TrainerState,
    /// The run answers stop requests until its result is written.
    _hold: Arc<Hold>,
}

impl Trained {
    /// Seconds of the run ahead of its last resumption; 0 for a run that was never stopped.
    pub(crate) fn seconds_before(&self) -> f64 {
        self.seconds_before
    }

    /// Writes the record into the directory of the run, then reports a failed evaluation.
    ///
    /// # Errors
    /// The error of the final evaluation, and those of writing.
    pub(crate) fn write_record(&mut self, directory: &RunDir) -> Result<()> {
        self.state.write(directory.path())?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Removes the checkpoints' training states, but for the last one where more steps can follow.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be removed.
    pub(crate) fn retire_checkpoints(&self, settings: &TrainSettings, directory: &RunDir) -> Result<()> {
        let goes_on = self.steps == settings.max_steps && settings.schedule.goes_on_after(self.steps);
        directory.retire_checkpoints_before(if goes_on { self.steps } else { u64::MAX }, settings.save_every)
    }
}

/// Runs `task` until `max_steps`, from the newest checkpoint where the run directory has one, and evaluates at the end.
/// `stage` is the observer's name of the run. A checkpoint of the last step is saved ahead of the last evaluation, whose
/// failure does not fail the training.
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
    let (mut run, hold) = Loop::start(task, learner, settings, session)?;
    run.session.observer.plan(stage, settings.max_steps, run.done);
    let exhausted = run.take_steps()?;
    run.save_if_possible()?;
    let outcome = exhausted.map_or_else(|| run.evaluate(), Ok);
    run.log.flush()?;
    run.session.observer.finish();
    run.session.directory.check_held()?;
    let (metrics, failure) = match outcome {
        Ok(metrics) => (metrics, None),
        Err(stopped @ Error::Stopped { .. }) => return Err(stopped),
        Err(error) => (Metrics::new(), Some(error)),
    };
    let seconds_before = run.log.seconds_before();
    Ok(Trained { metrics, failure, steps: run.done, seconds_before, state: run.record, _hold: hold })
}

/// Shows the progress of an evaluation after the last step, and ends it on a stop request.
pub(crate) fn watch<'a>(
    directory: &'a RunDir,
    observer: &'a mut dyn Observer,
    stop: &'a Stop,
    step: u64,
) -> impl FnMut(u64, u64) -> Result<()> + 'a {
    move |done, total| {
        observer.evaluating(done, total);
        let Some(signal) = stop.requested() else { return Ok(()) };
        let checkpoint = directory.latest_checkpoint()?.map(|(_, path)| path);
        Err(Error::Stopped { signal, step, checkpoint })
    }
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
    /// The time of the newest checkpoint of this process, or of its start.
    saved: Instant,
    /// Steps done.
    done: u64,
    /// Whether the evaluation due after the last step, if one is, has ended.
    evaluated: bool,
    /// The same at the newest checkpoint.
    saved_evaluated: bool,
}

impl<'a, 'm, 's> Loop<'a, 'm, 's> {
    /// Begins at step 0 or at the newest checkpoint. From the first written file on, the run answers stop requests.
    fn start(
        task: &'a mut dyn TrainingTask,
        learner: &'a mut Learner<'m>,
        settings: &'a TrainSettings,
        session: &'a mut Session<'s>,
    ) -> Result<(Self, Arc<Hold>)> {
        let resumed = resume(task, learner, &session.directory, session.observer)?;
        let hold = session.stop.hold().map_err(|signal| Error::Stopped {
            signal,
            step: resumed.as_ref().map_or(0, |resumed| resumed.step),
            checkpoint: resumed.as_ref().map(|resumed| resumed.path.clone()),
        })?;
        let log = Log::open(session.directory.path(), resumed.as_ref().map(|r| (r.step, r.evaluated)))?;
        let (done, checkpoint, interval, mut record, evaluated) = match resumed {
            Some(Resumed { step, path, interval, record, evaluated }) => {
                (step, Some((step, path)), interval, record, evaluated)
            }
            None => (0, None, Interval::default(), TrainerState::default(), true),
        };
        record.max_steps = settings.max_steps;
        record.num_train_epochs = settings.max_steps.div_ceil(task.batches_per_epoch().max(1));
        record.train_batch_size = Some(task.batch_size() as u64);
        record.eval_steps = settings.eval_every;
        record.save_steps = settings.save_every;
        record.logging_steps = settings.logging_steps;
        let saved = Instant::now();
        let run = Self {
            task,
            learner,
            settings,
            session,
            log,
            record,
            interval,
            checkpoint,
            saved,
            done,
            evaluated,
            saved_evaluated: evaluated,
        };
        Ok((run, hold))
    }

    /// Takes the remaining steps. The last evaluation, if the task was exhausted by it.
    fn take_steps(&mut self) -> Result<Option<Metrics>> {
        while self.done < self.settings.max_steps && !self.task.is_exhausted() {
            if self.is_due(self.settings.eval_every) && !self.evaluated {
                let metrics = self.evaluate_midway()?;
                if self.task.is_exhausted() {
                    return Ok(Some(metrics));
                }
                self.save_if_due()?;
            }
            self.stop_if_asked()?;
            self.step()?;
            self.evaluated = false;
            let minutes = self.settings.save_minutes;
            if minutes > 0.0
                && self.saved.elapsed() >= Duration::try_from_secs_f64(60.0 * minutes).unwrap_or(Duration::MAX)
            {
                self.save_if_possible()?;
            }
            if !self.is_due(self.settings.eval_every) {
                self.save_if_due()?;
            }
        }
        Ok(None)
    }

    /// Whether something that happens every `interval` steps, and not at the end, happens after this step.
    fn is_due(&self, interval: u64) -> bool {
        interval > 0 && self.done > 0 && self.done.is_multiple_of(interval) && self.done < self.settings.max_steps
    }

    /// Saves a checkpoint and returns an error if a signal asks the run to stop.
    fn stop_if_asked(&mut self) -> Result<()> {
        let Some(signal) = self.session.stop.requested() else { return Ok(()) };
        if self.done > 0 && !self.is_saved() {
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
        // A damaged checkpoint may hold any number.
        self.record.num_input_tokens_seen = self.record.num_input_tokens_seen.saturating_add(loss.tokens);
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
            // Without this, a run would learn at its next checkpoint, or at its end, that its directory is gone.
            self.session.directory.check_held()?;
        }
        Ok(())
    }

    /// Evaluates between two steps. A quantity that is not finite is noted and does not end the run; any other failure
    /// ends it after a checkpoint.
    fn evaluate_midway(&mut self) -> Result<Metrics> {
        match self.evaluate() {
            Err(error @ Error::NonFiniteEvaluation { .. }) => {
                self.session.observer.note(&format!("step {}: {error}", self.done));
                self.evaluated = true;
                Ok(Metrics::new())
            }
            Err(error) => {
                self.save_if_possible()?;
                Err(error)
            }
            metrics => metrics,
        }
    }

    /// Evaluates. A stop request ends the evaluation, and the checkpoint says that it is still due.
    fn evaluate(&mut self) -> Result<Metrics> {
        let Self { task, learner, session, done, .. } = self;
        let (stop, observer) = (&session.stop, &mut *session.observer);
        let mut watch = |at, total| {
            observer.evaluating(at, total);
            let stopped = |signal| Error::Stopped { signal, step: *done, checkpoint: None };
            stop.requested().map_or(Ok(()), |signal| Err(stopped(signal)))
        };
        let metrics = match task.evaluate(learner, *done, &mut watch) {
            Err(Error::Stopped { .. }) => {
                self.stop_if_asked()?;
                return Ok(Metrics::new());
            }
            outcome => outcome?,
        };
        // A resumed run whose task was exhausted evaluates again for the numbers alone.
        let is_logged = !self.evaluated && !metrics.is_empty();
        self.evaluated = true;
        if let Some(best) = self.task.best() {
            self.record.best_metric = Some(best.value);
            self.record.best_global_step = Some(best.step);
        }
        if !is_logged {
            return Ok(metrics);
        }
        let logged: Vec<(String, f64)> =
            metrics.iter().map(|(name, value)| (format!("{EVAL_PREFIX}{name}"), *value)).collect();
        let logged: Vec<(&str, f64)> = logged.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.log.scalars(self.done, &logged)?;
        self.record.log(&logged);
        let shown: Vec<(&str, f64)> = metrics.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        self.session.observer.evaluated(self.done, &shown);
        Ok(metrics)
    }

    /// Whether the newest checkpoint is of this step.
    fn is_saved(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|(step, _)| *step == self.done)
    }

    /// Saves a checkpoint after every `save_every` steps; once more, if the newest one precedes an evaluation after the
    /// same step.
    fn save_if_due(&mut self) -> Result<()> {
        let is_saved = self.is_saved() && self.saved_evaluated == self.evaluated;
        if self.is_due(self.settings.save_every) && !is_saved { self.save_checkpoint() } else { Ok(()) }
    }

    /// Saves a checkpoint that no one asked for: the run goes on where it cannot be written, on a full disk, say, but not
    /// where the run directory is gone.
    fn save_if_possible(&mut self) -> Result<()> {
        if self.is_saved() {
            return Ok(());
        }
        let Err(error) = self.save_checkpoint() else { return Ok(()) };
        self.session.directory.check_held()?;
        self.saved = Instant::now();
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        self.session.observer.note(&format!("no checkpoint after step {}: {error}{cause}", self.done));
        Ok(())
    }

    fn save_checkpoint(&mut self) -> Result<()> {
        let Self { task, learner, record, interval, done, evaluated, .. } = self;
        let path = self.session.directory.publish_checkpoint(*done, |partial| {
            task.save(learner, partial, *done)?;
            state::save(learner, interval, partial, *done, *evaluated)?;
            record.write(partial)
        })?;
        let before = self.checkpoint.replace((self.done, path));
        (self.saved, self.saved_evaluated) = (Instant::now(), self.evaluated);
        // The newest checkpoint and the one before stay resumable.
        match before.filter(|(step, _)| *step < self.done) {
            Some((step, _)) => self.session.directory.retire_checkpoints_before(step, self.settings.save_every),
            None => Ok(()),
        }
    }
}
