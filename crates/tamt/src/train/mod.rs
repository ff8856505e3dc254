//! The one training loop: mask training, iterative pruning and pre-training are a [`Method`] given to it.

mod optimizer;
mod schedule;
mod state;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use optimizer::{Clip, Optimizer, OptimizerKind, OptimizerSettings};
pub use schedule::{Schedule, Shape};

use serde::{Deserialize, Serialize};
use tamt_kernels::Precision;
use tamt_model::{GradKind, Grads, KernelChoice, Masks, Model, ParamId, PreparedWeights, Trainable};

use crate::objective::StepLoss;
use crate::run::{Log, Observer, RunDir, StepReport, Stop, TrainerState};
use crate::scores::Scores;
use crate::{Error, Result};

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
    /// Steps between logged lines.
    pub logging_steps: u64,
}

/// Everything that training changes.
#[derive(Debug)]
pub struct Learner<'m> {
    /// The model; frozen weights never change.
    pub model: &'m mut Model,
    /// Masks of the pruned matrices, as the next step uses them.
    pub masks: Option<Masks>,
    /// Scores behind the masks, in mask training.
    pub scores: Option<Scores>,
    /// What the sparse kernel multiplies by, following masks and weights.
    pub sparse: Option<PreparedWeights>,
    /// Gradients of the trainable tensors.
    pub grads: Grads,
    /// Moments of the trainable tensors.
    pub optimizer: Optimizer,
}

impl<'m> Learner<'m> {
    /// A learner whose `trainable` tensors learn; those with scores come first, in the order of `scores`. Matrices that learn by
    /// their survivors are kept without the others from here on.
    #[must_use]
    pub fn new(
        model: &'m mut Model,
        masks: Option<Masks>,
        scores: Option<Scores>,
        trainable: &[Trainable],
        settings: OptimizerSettings,
    ) -> Self {
        for t in trainable.iter().filter(|t| t.kind == GradKind::Survivors) {
            let mask = masks.as_ref().and_then(|masks| masks.get(t.id)).expect("survivors of a mask");
            model.params.compact(t.id, mask);
        }
        let grads = Grads::new(model, trainable);
        let optimizer = Optimizer::new(settings, &grads);
        Self { model, masks, scores, sparse: None, grads, optimizer }
    }

    /// The same with matrices prepared for the sparse kernel where `choice` says so, for products in a precision.
    #[must_use]
    pub fn with_kernel(mut self, choice: KernelChoice, precision: Precision) -> Self {
        self.sparse =
            self.masks.as_ref().map(|masks| prepare(self.model, masks, self.scores.as_ref(), choice, precision));
        self
    }

    /// The same for products in a precision. In bf16 the layers' matrices whose scores learn are rounded to it: they stay as
    /// they are, and products would round them each time.
    #[must_use]
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.grads = self.grads.in_precision(self.model, precision);
        if precision == Precision::Bf16 {
            let of_scores = |&id: &ParamId| self.grads.kind(id) == Some(GradKind::Score);
            let frozen: Vec<_> = self.model.layer_matrices().filter(of_scores).collect();
            frozen.into_iter().for_each(|id| self.model.params.round(id));
        }
        self
    }

    /// Clips and applies the gradients with learning rate `lr`; returns their norm before clipping.
    pub fn update(&mut self, lr: f64) -> f64 {
        if let Some(scores) = &self.scores {
            scores.shape_gradient(self.model, &mut self.grads);
        }
        let norm = self.optimizer.step(lr, &self.grads, self.model, self.scores.as_mut());
        if self.grads.trainable().iter().any(|t| t.kind != GradKind::Score && self.model.layer_of(t.id).is_some()) {
            self.follow_weights();
        }
        if let Some(scores) = &mut self.scores {
            scores.shape_values();
        }
        norm
    }

    /// Rewrites the masks that scores stand behind, for the training step `step`.
    pub fn binarize(&mut self, step: u64) {
        if let (Some(scores), Some(masks)) = (&self.scores, &mut self.masks) {
            scores.binarize(self.model, step, masks);
        }
        self.follow_masks();
    }

    /// To be called after weights of the layers were changed.
    pub fn follow_weights(&mut self) {
        if let Some(sparse) = &mut self.sparse {
            sparse.set_values(&self.model.params);
        }
    }

    /// To be called after masks were changed.
    pub fn follow_masks(&mut self) {
        if let (Some(sparse), Some(masks)) = (&mut self.sparse, &self.masks) {
            sparse.set_masks(self.model, masks);
        }
    }
}

/// Matrices for the sparse kernel, for training under masks that stay or that `scores` change.
fn prepare(
    model: &Model,
    masks: &Masks,
    scores: Option<&Scores>,
    choice: KernelChoice,
    precision: Precision,
) -> PreparedWeights {
    match scores {
        Some(_) => PreparedWeights::for_mask_training(model, masks, choice, precision),
        None => PreparedWeights::for_training(model, masks, choice, precision),
    }
}

/// Values of an evaluation by name.
pub type Metrics = Vec<(Cow<'static, str>, f64)>;

/// Names and values of an evaluation as [`Metrics`].
pub(crate) fn named(values: Vec<(&'static str, f64)>) -> Metrics {
    values.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// The best evaluation so far, by the metric that decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Steps done when it was made.
    pub step: u64,
    /// The deciding metric's value.
    pub value: f64,
}

/// What distinguishes one kind of training from another.
pub trait Method {
    /// The losses of step `step` (from 0) and their gradients in `learner.grads`.
    ///
    /// # Errors
    /// If the model lacks what the loss needs.
    fn gradients(&mut self, learner: &mut Learner<'_>, step: u64) -> Result<StepLoss>;

    /// The update that `step` is since the schedule last began.
    fn scheduled_step(&self, step: u64) -> u64 {
        step
    }

    /// Called after each update with the number of steps done: thresholds, pruning, rewinding.
    ///
    /// # Errors
    /// If something is to be written and cannot.
    fn after_update(&mut self, learner: &mut Learner<'_>, done: u64) -> Result<()> {
        let _ = (learner, done);
        Ok(())
    }

    /// Losses or scores on held-out data, after `done` steps.
    ///
    /// # Errors
    /// If the model lacks what the loss needs.
    fn evaluate(&mut self, learner: &mut Learner<'_>, done: u64) -> Result<Metrics>;

    /// The best evaluation so far, for a method that keeps one.
    fn best(&self) -> Option<Best> {
        None
    }

    /// Whether to stop before the last step: asked after each evaluation.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// Writes what a user of the run wants of this moment (a ticket, a head) into `directory`.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, learner: &Learner<'_>, directory: &Path, done: u64) -> Result<()>;

    /// Takes back from a checkpoint what [`Method::save`] put there and the method needs to go on.
    ///
    /// # Errors
    /// If it is missing or damaged.
    fn restore(&mut self, learner: &Learner<'_>, directory: &Path) -> Result<()> {
        let _ = (learner, directory);
        Ok(())
    }

    /// Batches in an epoch, for the record.
    fn batches_per_epoch(&self) -> u64;
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

/// How a loop ended.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The final evaluation.
    pub metrics: Metrics,
    /// Optimiser steps taken; fewer than were planned where the method was exhausted.
    pub steps: u64,
    /// Seconds of this call, evaluations included.
    pub seconds: f64,
    /// The record so far, to be written with the result.
    pub state: TrainerState,
}

/// Runs `method` until `max_steps`, from the newest checkpoint where the run directory has one, and evaluates at the end.
///
/// # Errors
/// [`Error::Stopped`] on a stop signal, after saving a checkpoint; [`Error::NonFinite`] if a loss or a gradient is not
/// finite; those of the method and of writing.
pub fn train(
    method: &mut dyn Method,
    learner: &mut Learner<'_>,
    settings: &TrainSettings,
    stage: &str,
    session: &mut Session<'_>,
) -> Result<Trained> {
    let started = Instant::now();
    let mut checkpoint = session.directory.latest_checkpoint()?;
    let mut record = TrainerState {
        max_steps: settings.max_steps,
        eval_steps: settings.eval_every,
        save_steps: settings.save_every,
        logging_steps: settings.logging_steps,
        ..TrainerState::default()
    };
    let mut done = 0;
    let mut interval = Interval::default();
    if let Some((step, path)) = &checkpoint {
        interval = state::load(learner, path, *step)?;
        method.restore(learner, path)?;
        record = TrainerState::read(path)?;
        done = *step;
        session.observer.note(&format!("resuming from {}", path.display()));
    }
    let mut log = Log::open(session.directory.path(), checkpoint.as_ref().map(|(step, _)| *step))?;
    session.observer.plan(stage, settings.max_steps, done);
    let mut exhausted = None;

    while done < settings.max_steps {
        if let Some(signal) = session.stop.requested() {
            if checkpoint.as_ref().is_none_or(|(step, _)| *step < done) {
                let path = save_checkpoint(method, learner, &session.directory, &record, &interval, done)?;
                checkpoint = Some((done, path));
            }
            log.flush()?;
            return Err(Error::Stopped { signal, step: done, checkpoint: checkpoint.map(|(_, path)| path) });
        }
        let step_started = Instant::now();
        let last_good = || checkpoint.as_ref().map(|(_, path)| path.clone());
        let loss = method.gradients(learner, done)?;
        if !loss.total.is_finite() {
            return Err(Error::NonFinite { step: done + 1, what: "the loss".to_owned(), last_good: last_good() });
        }
        let lr = settings.optimizer.learning_rate * settings.schedule.factor(method.scheduled_step(done));
        let norm = learner.update(lr);
        if !norm.is_finite() {
            return Err(Error::NonFinite { step: done + 1, what: "the gradient".to_owned(), last_good: last_good() });
        }
        done += 1;
        method.after_update(learner, done)?;
        record.global_step = done;
        record.num_input_tokens_seen += loss.tokens;
        record.epoch = Some(done as f64 / method.batches_per_epoch() as f64);

        interval.add(&loss, norm);
        let parts = loss.parts();
        session.observer.step(&StepReport {
            step: done,
            loss: loss.total,
            learning_rate: lr,
            tokens: loss.tokens,
            seconds: step_started.elapsed().as_secs_f64(),
            extras: &parts,
        });
        if settings.logging_steps > 0 && done.is_multiple_of(settings.logging_steps) {
            let mut values = interval.take(&parts);
            values.push(("learning_rate", lr));
            log.scalars(done, &values)?;
            record.log(&values);
        }
        if settings.eval_every > 0 && done.is_multiple_of(settings.eval_every) && done < settings.max_steps {
            let metrics = evaluate(method, learner, &mut log, &mut record, session.observer, done)?;
            if method.is_exhausted() {
                exhausted = Some(metrics);
                break;
            }
        }
        if settings.save_every > 0 && done.is_multiple_of(settings.save_every) && done < settings.max_steps {
            let path = save_checkpoint(method, learner, &session.directory, &record, &interval, done)?;
            checkpoint = Some((done, path));
        }
    }

    let metrics = match exhausted {
        Some(metrics) => metrics,
        None => evaluate(method, learner, &mut log, &mut record, session.observer, done)?,
    };
    log.flush()?;
    session.observer.finish();
    Ok(Trained { metrics, steps: done, seconds: started.elapsed().as_secs_f64(), state: record })
}

fn evaluate(
    method: &mut dyn Method,
    learner: &mut Learner<'_>,
    log: &mut Log,
    record: &mut TrainerState,
    observer: &mut dyn Observer,
    done: u64,
) -> Result<Metrics> {
    let metrics = method.evaluate(learner, done)?;
    if let Some(best) = method.best() {
        record.best_metric = Some(best.value);
        record.best_global_step = Some(best.step);
    }
    if metrics.is_empty() {
        return Ok(metrics);
    }
    let logged: Vec<(String, f64)> = metrics.iter().map(|(name, value)| (format!("eval_{name}"), *value)).collect();
    let logged: Vec<(&str, f64)> = logged.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    log.scalars(done, &logged)?;
    record.log(&logged);
    let shown: Vec<(&str, f64)> = metrics.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
    observer.evaluated(done, &shown);
    Ok(metrics)
}

fn save_checkpoint(
    method: &dyn Method,
    learner: &Learner<'_>,
    directory: &RunDir,
    record: &TrainerState,
    interval: &Interval,
    done: u64,
) -> Result<PathBuf> {
    let path = directory.publish_checkpoint(done, |partial| {
        method.save(learner, partial, done)?;
        state::save(learner, interval, partial, done)?;
        record.write(partial)
    })?;
    directory.discard_training_state_before(done)?;
    Ok(path)
}

impl StepLoss {
    /// The summands by name, where there is more than one.
    fn parts(&self) -> Vec<(&'static str, f64)> {
        let all = [("task_loss", self.task), ("mlm_loss", self.mlm), ("kd_loss", self.kd)];
        let parts: Vec<_> = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if parts.len() > 1 { parts } else { Vec::new() }
    }
}

/// Sums since the last logged line. A checkpoint holds them, so that a resumed run logs the same means.
#[derive(Debug, Default, PartialEq)]
struct Interval {
    steps: u64,
    loss: f64,
    norm: f64,
    /// Those of [`StepLoss::parts`], which has the same ones in every step of a run.
    parts: Vec<f64>,
}

impl Interval {
    fn add(&mut self, loss: &StepLoss, norm: f64) {
        self.steps += 1;
        self.loss += loss.total;
        self.norm += norm;
        let parts = loss.parts();
        self.parts.resize(parts.len(), 0.0);
        self.parts.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part.1);
    }

    /// The means by name; `parts` are those of the last step.
    fn take(&mut self, parts: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
        let Self { steps, loss, norm, parts: sums } = std::mem::take(self);
        let n = steps.max(1) as f64;
        let mut means = vec![("loss", loss / n), ("grad_norm", norm / n)];
        means.extend(parts.iter().zip(sums).map(|((name, _), sum)| (*name, sum / n)));
        means
    }

    /// As words for a checkpoint.
    fn to_words(&self) -> Vec<u64> {
        let sums = [self.loss, self.norm].into_iter().chain(self.parts.iter().copied());
        std::iter::once(self.steps).chain(sums.map(f64::to_bits)).collect()
    }

    /// What [`Interval::to_words`] gave; `None` of anything else.
    fn from_words(words: &[u64]) -> Option<Self> {
        let [steps, loss, norm, parts @ ..] = words else { return None };
        let parts = parts.iter().map(|&bits| f64::from_bits(bits)).collect();
        Some(Self { steps: *steps, loss: f64::from_bits(*loss), norm: f64::from_bits(*norm), parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_survives_a_checkpoint() {
        let step = |kd| StepLoss { total: 0.1 + 0.2, task: Some(0.3), mlm: None, kd, tokens: 7 };
        for kd in [None, Some(1.0 / 3.0)] {
            let mut interval = Interval::default();
            interval.add(&step(kd), 1.5);
            interval.add(&step(kd), 0.7);
            let mut read = Interval::from_words(&interval.to_words()).unwrap();
            assert_eq!(read, interval);
            assert_eq!(read.take(&step(kd).parts()), interval.take(&step(kd).parts()));
            assert_eq!(interval, Interval::default());
        }
        assert_eq!(Interval::from_words(&[1, 2]), None);
    }
}
