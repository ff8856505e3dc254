//! The resolved settings of a search for a ticket: every value that decides its result.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tamt_model::Model;

use crate::compute::Compute;
use crate::evaluate::EvalLosses;
use crate::objective::ObjectiveSettings;
use crate::objective::kd::KdSettings;
use crate::prune::{Scope, Sparsity};
use crate::scores::ScoreSettings;
use crate::shown_path::shown_path;
use crate::train::optimizer::OptimizerSettings;
use crate::train::schedule::{Schedule, Shape};
use crate::train::{DEFAULT_SEED, SAVE_MINUTES, TrainSettings};

/// How a subnetwork is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Drops uniformly chosen weights ([`random`](crate::random)).
    Random,
    /// Drops the smallest weights at once ([`magnitude`](crate::magnitude)).
    Magnitude,
    /// Drops the smallest weights a tenth at a time, with training between ([`imp`](crate::imp)).
    Imp,
    /// Trains masks on masked language modelling ([`mask_training`](crate::mask_training)).
    TamtMlm,
    /// Trains masks on distillation.
    TamtKd,
    /// Trains masks on the sum of both losses.
    TamtMlmKd,
}

impl Method {
    /// All methods, simplest first.
    pub const ALL: [Self; 6] = [Self::Random, Self::Magnitude, Self::Imp, Self::TamtMlm, Self::TamtKd, Self::TamtMlmKd];

    /// The name on the command line and in tickets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Magnitude => "magnitude",
            Self::Imp => "imp",
            Self::TamtMlm => "tamt-mlm",
            Self::TamtKd => "tamt-kd",
            Self::TamtMlmKd => "tamt-mlm-kd",
        }
    }

    /// Whether the method takes optimiser steps, and so needs a corpus.
    pub fn trains(self) -> bool {
        !matches!(self, Self::Random | Self::Magnitude)
    }

    /// Whether the method trains masks over frozen weights.
    pub fn trains_masks(self) -> bool {
        matches!(self, Self::TamtMlm | Self::TamtKd | Self::TamtMlmKd)
    }

    /// Whether the loss is, or contains, masked language modelling.
    pub fn uses_mlm(self) -> bool {
        matches!(self, Self::Imp | Self::TamtMlm | Self::TamtMlmKd)
    }

    /// The objective with its default distillation.
    pub fn objective(self) -> ObjectiveSettings {
        let kd = matches!(self, Self::TamtKd | Self::TamtMlmKd).then(KdSettings::default);
        ObjectiveSettings { mlm: self.uses_mlm(), kd, mlm_probability: 0.15, dropout: None }
    }

    /// The optimiser of the reference.
    pub fn optimizer(self) -> OptimizerSettings {
        if self == Self::TamtKd { OptimizerSettings::bert_adam(2e-5) } else { OptimizerSettings::adamw(5e-5) }
    }
}

/// The masks that mask training starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskInit {
    /// The one-shot magnitude masks.
    #[default]
    Magnitude,
    /// Random masks.
    Random,
    /// The masks of a ticket of the same model: a file, or a directory that holds one.
    Ticket(#[serde(serialize_with = "shown_path")] PathBuf),
}

/// The weights with which the next round of iterative pruning begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rewind {
    /// The pre-trained weights of the encoder; the MLM head stays as trained.
    #[default]
    Pretrained,
    /// The weights of the last round, as in the reference's code.
    None,
}

/// Everything that decides the result of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FindSettings {
    /// The method.
    pub method: Method,
    /// The ticket's sparsity.
    pub sparsity: Sparsity,
    /// Whether weights are ranked in each matrix or over all.
    pub scope: Scope,
    /// The masks that mask training starts from.
    pub start: MaskInit,
    /// Whether the initial ticket may be one of other weights with the same names and shapes.
    pub allow_other_base: bool,
    /// Layers to prune; all where `None`.
    pub layers: Option<Vec<usize>>,
    /// The seed of data order, corruption, dropout and random masks.
    pub seed: u64,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence, special tokens included.
    pub block_size: usize,
    /// Steps between re-settings of the thresholds; 0 for never.
    pub rethreshold_every: u64,
    /// Steps of mask training after which the ticket is written too, each into a folder of its own; 0 is the first mask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ticket_steps: Vec<u64>,
    /// Whether the MLM head keeps its weights in mask training.
    pub freeze_head: bool,
    /// The weights with which the rounds of iterative pruning begin.
    pub rewind: Rewind,
    /// Scores and masks.
    pub scores: ScoreSettings,
    /// The loss.
    pub objective: ObjectiveSettings,
    /// The loop.
    pub train: TrainSettings,
    /// Kernels and precision.
    #[serde(flatten)]
    pub compute: Compute,
}

impl FindSettings {
    /// Whether a finished run of so many steps can become longer: the learning rates of its steps are those of a longer
    /// run, and the number of steps does not decide the rounds.
    #[must_use]
    pub fn goes_on_after(&self, steps: u64) -> bool {
        self.method != Method::Imp && self.train.schedule.goes_on_after(steps)
    }

    /// The defaults of a method at a sparsity: the reference's losses, optimisers and constants, for `max_steps` steps.
    pub fn new(method: Method, sparsity: Sparsity, max_steps: u64) -> Self {
        Self {
            method,
            sparsity,
            scope: Scope::Local,
            start: MaskInit::Magnitude,
            allow_other_base: false,
            layers: None,
            seed: DEFAULT_SEED,
            batch_size: 16,
            block_size: 512,
            rethreshold_every: 100,
            ticket_steps: Vec::new(),
            freeze_head: false,
            rewind: Rewind::Pretrained,
            scores: ScoreSettings::default(),
            objective: method.objective(),
            train: TrainSettings {
                max_steps,
                schedule: Schedule { shape: Shape::Linear, warmup_steps: 0, horizon: max_steps },
                optimizer: method.optimizer(),
                eval_every: 0,
                save_every: 0,
                save_minutes: SAVE_MINUTES,
                logging_steps: 10,
            },
            compute: Compute::default(),
        }
    }

    /// The losses that evaluations of the run measure: the distance from the dense model, and the MLM loss where the
    /// model has a head.
    pub fn losses(&self, model: &Model) -> EvalLosses {
        EvalLosses { mlm: model.mlm_head.is_some(), kd: true }
    }
}
