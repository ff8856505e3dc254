//! [`TrainingTask`]: the interface between the training loop and a kind of training.

use std::borrow::Cow;
use std::path::Path;

use crate::error::Result;
use crate::objective::StepLoss;
use crate::train::learner::Learner;

/// Values of an evaluation by name.
pub type Metrics = Vec<(Cow<'static, str>, f64)>;

/// Names and values of an evaluation as [`Metrics`].
pub(crate) fn named(values: Vec<(&'static str, f64)>) -> Metrics {
    values.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// Gets the finished and the total units of an evaluation; its error ends the evaluation.
pub type Watch<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// The best evaluation so far, by the metric that decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Steps done at the evaluation.
    pub step: u64,
    /// The deciding metric's value.
    pub value: f64,
}

/// The numbers of one optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct StepResult {
    /// Losses of the step's batch.
    pub loss: StepLoss,
    /// The norm of all gradients before clipping.
    pub grad_norm: f64,
}

impl StepResult {
    /// The quantity that is not finite, if one is. A run ends there.
    pub fn non_finite(&self) -> Option<&'static str> {
        let quantities = [("the loss", self.loss.total), ("the gradient", self.grad_norm)];
        quantities.into_iter().find(|(_, value)| !value.is_finite()).map(|(name, _)| name)
    }
}

/// A kind of training, given to [`train`](crate::train::train): mask training, iterative pruning, pre-training,
/// fine-tuning.
pub trait TrainingTask {
    /// Takes step `step` (from 0) at a learning rate: the losses of a batch, their gradients, the update, and all
    /// that follows the update.
    ///
    /// # Errors
    /// If the model lacks a part that the loss needs, or a file cannot be written.
    fn step(&mut self, learner: &mut Learner<'_>, step: u64, learning_rate: f64) -> Result<StepResult>;

    /// The number of updates before `step` since the schedule last began.
    fn scheduled_step(&self, step: u64) -> u64 {
        step
    }

    /// Losses or scores on held-out data, after `done` steps.
    ///
    /// # Errors
    /// If the model lacks a part that the loss needs, or a loss is not finite; the errors of `watch`.
    fn evaluate(&mut self, learner: &mut Learner<'_>, done: u64, watch: &mut Watch<'_>) -> Result<Metrics>;

    /// The best evaluation so far, for a task that records one.
    fn best(&self) -> Option<Best> {
        None
    }

    /// Whether to stop before the last step. The loop asks after each evaluation.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// Writes the intermediate results (a ticket, a head) into `directory`, a checkpoint.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, learner: &Learner<'_>, directory: &Path, done: u64) -> Result<()>;

    /// Reads back from a checkpoint what [`TrainingTask::save`] wrote and the task needs to go on.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    fn restore(&mut self, learner: &Learner<'_>, directory: &Path) -> Result<()> {
        let _ = (learner, directory);
        Ok(())
    }

    /// Batches in an epoch, for the record.
    fn batches_per_epoch(&self) -> u64;

    /// Sequences of a batch.
    fn batch_size(&self) -> usize;
}
