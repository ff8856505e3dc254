//! The resolved settings of a fine-tuning: every value that decides its result.

use serde::{Deserialize, Serialize};
use tamt_data::squad::{PredictOptions, WindowOptions};
use tamt_data::tasks::{Head, Task};

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::train::{DEFAULT_SEED, OptimizerSettings, SAVE_MINUTES, Schedule, Shape, TrainSettings};

/// The length of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingLength {
    /// Passes through the training set.
    Epochs(f64),
    /// Optimiser steps.
    MaxSteps(u64),
}

impl TrainingLength {
    /// Optimiser steps, at least one.
    pub fn steps(self, batches_per_epoch: u64) -> u64 {
        match self {
            Self::Epochs(epochs) => ((epochs * batches_per_epoch as f64).ceil() as u64).max(1),
            Self::MaxSteps(steps) => steps,
        }
    }
}

/// The model that a run writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptModel {
    /// The model with the best score on the development set, among all evaluations.
    #[default]
    Best,
    /// The model after the last step.
    Final,
    /// No model: the run writes results and predictions only.
    None,
}

/// Distillation from a fine-tuned dense teacher. The loss is the sum of the loss against the labels and these terms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DistillSettings {
    /// Divides the logits of both models; no effect on regression.
    pub temperature: f32,
    /// Factor of the divergence from the teacher's outputs (regression: of the squared difference).
    pub logits_weight: f32,
    /// Factor of `1 - cos` between hidden states, mean over layers and tokens.
    pub hidden_weight: f32,
}

impl Default for DistillSettings {
    fn default() -> Self {
        Self { temperature: 2.0, logits_weight: 1.0, hidden_weight: 1.0 }
    }
}

/// How the contexts of a span task are cut into windows, and how its answers are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpanSettings {
    /// Tokens from the start of a window to the start of the next.
    pub doc_stride: usize,
    /// Tokens of a question; longer questions are cut.
    pub max_query_length: usize,
    /// Candidates per window and per question.
    pub n_best: usize,
    /// Tokens in the longest answer.
    pub max_answer_length: usize,
    /// No answer is given if its score exceeds the score of the best answer by more than this.
    pub null_threshold: f64,
}

impl Default for SpanSettings {
    /// The values of the reference.
    fn default() -> Self {
        let (windows, answers) = (WindowOptions::default(), PredictOptions::default());
        Self {
            doc_stride: windows.stride,
            max_query_length: windows.max_query,
            n_best: answers.n_best,
            max_answer_length: answers.max_answer_tokens,
            null_threshold: answers.null_threshold,
        }
    }
}

/// How the texts of a task become tokens, and the outputs of the model become answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InputSettings {
    /// Tokens in a sequence, special tokens included.
    pub max_length: usize,
    /// `None` unless the task predicts spans.
    pub spans: Option<SpanSettings>,
}

impl InputSettings {
    /// The task's defaults.
    pub fn new(task: &Task) -> Self {
        let spans = matches!(task.head, Head::Span { .. }).then(SpanSettings::default);
        Self { max_length: task.defaults.max_length, spans }
    }
}

/// All settings that decide the result of a fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TuneSettings {
    /// The task's name.
    pub task: String,
    /// The seed of a new head, the data order, the subset and the dropout.
    pub seed: u64,
    /// Examples (questions, for spans) to train on; all of them where `None`.
    pub train_examples: Option<usize>,
    /// Examples (for spans: windows) in a batch.
    pub batch_size: usize,
    /// The length of the training.
    pub duration: TrainingLength,
    /// The step at which the learning rate reaches zero; the last one where `None`.
    pub lr_horizon_steps: Option<u64>,
    /// The shape of the learning rate's schedule.
    pub lr_schedule: Shape,
    /// Steps in which the learning rate rises from zero.
    pub warmup_steps: u64,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// The dropout rate; the model's own rates where `None`.
    pub dropout: Option<f32>,
    /// Evaluations without a better score after which the run stops; `None` for no early stop.
    pub early_stopping: Option<u64>,
    /// The model that the run writes.
    pub keep: KeptModel,
    /// Distillation, for a run with a teacher.
    pub distillation: Option<DistillSettings>,
    /// Whether the run predicts the test splits at the end.
    pub predict_test: bool,
    /// From texts to tokens and from outputs to answers.
    pub inputs: InputSettings,
    /// Steps between evaluations; 0 for a final evaluation only.
    pub eval_every: u64,
    /// Steps between checkpoints; 0 for none at fixed steps.
    pub save_every: u64,
    /// Minutes between checkpoints; 0 for none at fixed times.
    #[serde(default)]
    pub save_minutes: f64,
    /// Steps between logged lines.
    pub logging_steps: u64,
    /// The kernel and the precision of matrix products.
    #[serde(flatten)]
    pub compute: Compute,
}

impl TuneSettings {
    /// The task's defaults with the reference's optimiser: AdamW without weight decay, gradients clipped to a global
    /// norm of 1, a learning rate that falls linearly.
    pub fn new(task: &Task) -> Self {
        let defaults = task.defaults;
        Self {
            task: task.name.clone(),
            seed: DEFAULT_SEED,
            train_examples: None,
            batch_size: defaults.batch_size,
            duration: TrainingLength::Epochs(f64::from(defaults.epochs)),
            lr_horizon_steps: None,
            lr_schedule: Shape::Linear,
            warmup_steps: 0,
            optimizer: OptimizerSettings::adamw(defaults.learning_rate),
            dropout: None,
            early_stopping: None,
            keep: KeptModel::Best,
            distillation: None,
            predict_test: false,
            inputs: InputSettings::new(task),
            eval_every: defaults.eval_every,
            save_every: 0,
            save_minutes: SAVE_MINUTES,
            logging_steps: 10,
            compute: Compute::default(),
        }
    }

    /// Whether a finished fine-tuning of so many steps can become longer: the learning rates of its steps are those of a
    /// longer run. Without a horizon of its own, a schedule ends with the last step.
    #[must_use]
    pub fn goes_on_after(&self, steps: u64) -> bool {
        self.lr_schedule == Shape::Constant || self.lr_horizon_steps.is_some_and(|horizon| horizon != steps)
    }

    /// The settings of the training loop, for a training set of `batches_per_epoch` batches.
    pub(super) fn training(&self, batches_per_epoch: u64) -> TrainSettings {
        let max_steps = self.duration.steps(batches_per_epoch);
        let horizon = self.lr_horizon_steps.unwrap_or(max_steps);
        TrainSettings {
            max_steps,
            schedule: Schedule { shape: self.lr_schedule, warmup_steps: self.warmup_steps, horizon },
            optimizer: self.optimizer,
            eval_every: self.eval_every,
            save_every: self.save_every,
            save_minutes: self.save_minutes,
            logging_steps: self.logging_steps,
        }
    }

    /// Checks all that does not depend on the data.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting does not fit the others or a model with room for `longest` tokens.
    pub fn validate(&self, longest: usize) -> Result<()> {
        self.inputs.validate(longest)?;
        if self.batch_size == 0 {
            return Err(Error::setting("batch-size", "a batch holds at least one example"));
        }
        if self.distillation.is_some_and(|kd| kd.logits_weight == 0.0 && kd.hidden_weight == 0.0) {
            return Err(Error::setting(
                "kd-logits-weight",
                "with --kd-hidden-weight 0 too, the teacher teaches nothing",
            ));
        }
        match self.duration {
            TrainingLength::Epochs(epochs) if !(epochs > 0.0 && epochs.is_finite()) => {
                Err(Error::setting("epochs", format!("{epochs} is no number of epochs above 0")))
            }
            TrainingLength::MaxSteps(0) => Err(Error::setting("max-steps", "fine-tuning takes at least one step")),
            _ => Ok(()),
        }
    }
}

impl InputSettings {
    /// Checks that sequences of this length fit a model with room for `longest` tokens.
    ///
    /// # Errors
    /// [`Error::Setting`] if they do not.
    pub fn validate(&self, longest: usize) -> Result<()> {
        if self.max_length > longest {
            let reason = format!("{} tokens do not fit the model, which has {longest} positions", self.max_length);
            return Err(Error::setting("max-length", reason));
        }
        Ok(())
    }
}
