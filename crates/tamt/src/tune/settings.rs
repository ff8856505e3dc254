//! What a fine-tuning was asked for, resolved: every value that decides its result.

use serde::{Deserialize, Serialize};
use tamt_data::squad::{PredictOptions, WindowOptions};
use tamt_data::tasks::{Head, Task};

use crate::train::{OptimizerSettings, Schedule, Shape, TrainSettings};
use crate::{Compute, Error, Result};

/// How long training lasts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duration {
    /// This many times through the training set.
    Epochs(f64),
    /// This many optimiser steps.
    MaxSteps(u64),
}

impl Duration {
    /// Optimiser steps, at least one.
    #[must_use]
    pub fn steps(self, batches_per_epoch: u64) -> u64 {
        match self {
            Self::Epochs(epochs) => ((epochs * batches_per_epoch as f64).ceil() as u64).max(1),
            Self::MaxSteps(steps) => steps,
        }
    }
}

/// Which of a run's models is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The one with the best score on the development set, over all evaluations and the final one.
    #[default]
    Best,
    /// The last one.
    Final,
    /// None: only results and predictions are written.
    None,
}

/// Learning from a fine-tuned dense teacher beside the labels. Losses are summed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DistillSettings {
    /// Softens both distributions; for regression it has no effect.
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

/// How contexts of span tasks are cut and answers chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpanSettings {
    /// Tokens from the start of a window to the start of the next.
    pub doc_stride: usize,
    /// Tokens of the question that are kept.
    pub max_query_length: usize,
    /// Candidates per window and per question.
    pub n_best: usize,
    /// Tokens in the longest answer.
    pub max_answer_length: usize,
    /// By how much the score of no answer must exceed that of the best answer for none to be given.
    pub null_threshold: f64,
}

impl Default for SpanSettings {
    /// Those of the reference.
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

/// How a task's texts become tokens and its outputs answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InputSettings {
    /// Tokens in a sequence, special tokens included.
    pub max_length: usize,
    /// Span tasks only.
    pub spans: Option<SpanSettings>,
}

impl InputSettings {
    /// The task's defaults.
    #[must_use]
    pub fn new(task: &Task) -> Self {
        let spans = matches!(task.head, Head::Span { .. }).then(SpanSettings::default);
        Self { max_length: task.defaults.max_length, spans }
    }
}

/// Everything that decides the result of a fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TuneSettings {
    /// The task's name.
    pub task: String,
    /// Decides the head's start, the data order, the subset and the dropout.
    pub seed: u64,
    /// Train on so many examples (questions, for spans) only; on all where `None`.
    pub train_examples: Option<usize>,
    /// Examples (for spans: windows) in a batch.
    pub batch_size: usize,
    /// How long.
    pub duration: Duration,
    /// Steps at which the learning rate reaches zero; the run's own where `None`.
    pub lr_horizon_steps: Option<u64>,
    /// The schedule's shape.
    pub lr_schedule: Shape,
    /// Steps in which the learning rate rises from zero.
    pub warmup_steps: u64,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// Dropout rate everywhere; the model's own rates where `None`.
    pub dropout: Option<f32>,
    /// Stop after so many evaluations without a better score.
    pub early_stopping: Option<u64>,
    /// The model that is written.
    pub keep: Keep,
    /// Learning from a teacher.
    pub distillation: Option<DistillSettings>,
    /// Whether test splits are predicted at the end.
    pub predict_test: bool,
    /// From texts to tokens.
    pub inputs: InputSettings,
    /// Steps between evaluations; 0 for none before the end.
    pub eval_every: u64,
    /// Steps between checkpoints; 0 for none but on a stop signal.
    pub save_every: u64,
    /// Steps between logged lines.
    pub logging_steps: u64,
    /// How products are computed.
    #[serde(flatten)]
    pub compute: Compute,
}

impl TuneSettings {
    /// The task's defaults with the reference's optimiser: AdamW, no decay, one norm limit of 1, linear decay.
    #[must_use]
    pub fn new(task: &Task) -> Self {
        let defaults = task.defaults;
        Self {
            task: task.name.clone(),
            seed: 42,
            train_examples: None,
            batch_size: defaults.batch_size,
            duration: Duration::Epochs(f64::from(defaults.epochs)),
            lr_horizon_steps: None,
            lr_schedule: Shape::Linear,
            warmup_steps: 0,
            optimizer: OptimizerSettings::adamw(defaults.learning_rate),
            dropout: None,
            early_stopping: None,
            keep: Keep::Best,
            distillation: None,
            predict_test: false,
            inputs: InputSettings::new(task),
            eval_every: defaults.eval_every,
            save_every: 0,
            logging_steps: 10,
            compute: Compute::default(),
        }
    }

    /// The loop's settings for a training set of so many batches.
    pub(super) fn training(&self, batches_per_epoch: u64) -> TrainSettings {
        let max_steps = self.duration.steps(batches_per_epoch);
        let horizon = self.lr_horizon_steps.unwrap_or(max_steps);
        TrainSettings {
            max_steps,
            schedule: Schedule { shape: self.lr_schedule, warmup_steps: self.warmup_steps, horizon },
            optimizer: self.optimizer,
            eval_every: self.eval_every,
            save_every: self.save_every,
            logging_steps: self.logging_steps,
        }
    }

    /// Checks what can be checked without the data.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting does not fit the others or a model with room for `longest` tokens.
    pub fn validate(&self, longest: usize) -> Result<()> {
        self.inputs.validate(longest)?;
        if self.batch_size == 0 {
            return Err(Error::setting("batch-size", "a batch holds at least one example"));
        }
        match self.duration {
            Duration::Epochs(epochs) if !(epochs > 0.0 && epochs.is_finite()) => {
                Err(Error::setting("epochs", format!("{epochs} is no number of epochs above 0")))
            }
            Duration::MaxSteps(0) => Err(Error::setting("max-steps", "fine-tuning takes at least one step")),
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
