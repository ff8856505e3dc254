//! What a find was asked for, resolved: every value that decides its result.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tamt_model::Model;

use super::Texts;
use crate::base::Base;
use crate::evaluate::Wanted;
use crate::objective::{KdSettings, ObjectiveSettings};
use crate::prune::{Scope, Sparsity};
use crate::scores::ScoreSettings;
use crate::train::{OptimizerSettings, Schedule, Shape, TrainSettings};
use crate::{Compute, Error, Result};

/// How a subnetwork is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Uniformly chosen weights are dropped.
    Random,
    /// The smallest weights are dropped, at once.
    Magnitude,
    /// The smallest weights are dropped, a tenth at a time, after training each time.
    Imp,
    /// Masks trained on masked language modelling.
    TamtMlm,
    /// Masks trained on distillation.
    TamtKd,
    /// Masks trained on the sum of both.
    TamtMlmKd,
}

impl Method {
    /// All methods, from the simplest on.
    pub const ALL: [Self; 6] = [Self::Random, Self::Magnitude, Self::Imp, Self::TamtMlm, Self::TamtKd, Self::TamtMlmKd];

    /// The name on the command line and in tickets.
    #[must_use]
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

    /// Whether it takes optimiser steps, and so needs a corpus.
    #[must_use]
    pub fn trains(self) -> bool {
        !matches!(self, Self::Random | Self::Magnitude)
    }

    /// Whether it trains masks over frozen weights.
    #[must_use]
    pub fn trains_masks(self) -> bool {
        matches!(self, Self::TamtMlm | Self::TamtKd | Self::TamtMlmKd)
    }

    /// Whether its loss is, or contains, masked language modelling.
    #[must_use]
    pub fn uses_mlm(self) -> bool {
        matches!(self, Self::Imp | Self::TamtMlm | Self::TamtMlmKd)
    }

    /// The objective with its default distillation.
    #[must_use]
    pub fn objective(self) -> ObjectiveSettings {
        let kd = matches!(self, Self::TamtKd | Self::TamtMlmKd).then(KdSettings::default);
        ObjectiveSettings { mlm: self.uses_mlm(), kd, mlm_probability: 0.15, dropout: None }
    }

    /// The optimiser of the reference.
    #[must_use]
    pub fn optimizer(self) -> OptimizerSettings {
        if self == Self::TamtKd { OptimizerSettings::bert_adam(2e-5) } else { OptimizerSettings::adamw(5e-5) }
    }
}

/// The mask that training starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The one-shot magnitude mask.
    #[default]
    Magnitude,
    /// A random mask.
    Random,
    /// The mask of a ticket of the same model.
    Ticket(PathBuf),
}

/// What happens to the weights after each round of iterative pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rewind {
    /// The encoder goes back to its pre-trained weights.
    #[default]
    Pretrained,
    /// Training goes on from where it is, as the reference's code really does.
    None,
}

/// Everything that decides the result of a find.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FindSettings {
    /// The method.
    pub method: Method,
    /// The wanted sparsity.
    pub sparsity: Sparsity,
    /// Over what weights are ranked.
    pub scope: Scope,
    /// The mask that training starts from.
    pub start: Start,
    /// Whether the ticket to start from may be one of other weights, so long as names and shapes fit.
    pub allow_other_base: bool,
    /// Layers to prune; all where `None`.
    pub layers: Option<Vec<usize>>,
    /// Decides the data order, corruption, dropout and random masks.
    pub seed: u64,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence, special tokens included.
    pub block_size: usize,
    /// Steps between re-settings of the thresholds; 0 for never.
    pub rethreshold_every: u64,
    /// Whether the MLM head keeps its weights in mask training.
    pub freeze_head: bool,
    /// Iterative pruning: what happens between rounds.
    pub rewind: Rewind,
    /// Scores and masks.
    pub scores: ScoreSettings,
    /// The loss.
    pub objective: ObjectiveSettings,
    /// The loop.
    pub train: TrainSettings,
    /// How products are computed.
    #[serde(flatten)]
    pub compute: Compute,
}

impl FindSettings {
    /// The defaults of a method at a sparsity: the reference's losses, optimisers and constants, for `max_steps` steps.
    #[must_use]
    pub fn new(method: Method, sparsity: Sparsity, max_steps: u64) -> Self {
        Self {
            method,
            sparsity,
            scope: Scope::Local,
            start: Start::Magnitude,
            allow_other_base: false,
            layers: None,
            seed: 42,
            batch_size: 16,
            block_size: 512,
            rethreshold_every: 100,
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
                logging_steps: 10,
            },
            compute: Compute::default(),
        }
    }

    /// What an evaluation of the run measures: the distance from the dense model, and the MLM loss where there is a head.
    #[must_use]
    pub fn wanted(&self, model: &Model) -> Wanted {
        Wanted { mlm: model.mlm_head.is_some(), kd: true }
    }

    pub(super) fn validate(&self, base: &Base, texts: &Texts) -> Result<()> {
        let needs = |what: &'static str, reason: String| Err(Error::setting(what, reason));
        if self.method.trains() || texts.eval.is_some() {
            base.check_block_size(self.block_size)?;
        }
        if !self.method.trains() {
            return Ok(());
        }
        let name = self.method.name();
        if texts.train.is_none() {
            return needs("corpus", format!("{name} trains on text; give --corpus FILE"));
        }
        if self.objective.mlm && base.model.mlm_head.is_none() {
            return Err(tamt_model::Error::NoMlmHead.into());
        }
        if self.train.max_steps == 0 {
            return needs("max-steps", format!("{name} takes at least one step"));
        }
        let rounds = super::imp_rounds(self.sparsity);
        if self.method == Method::Imp && rounds == 0 {
            let reason = "imp prunes its first tenth before it trains, so here it would be magnitude; give that method";
            return needs("sparsity", reason.to_owned());
        }
        if self.method == Method::Imp && self.train.max_steps < rounds {
            return needs("max-steps", format!("{rounds} rounds of pruning need at least {rounds} steps"));
        }
        Ok(())
    }
}
