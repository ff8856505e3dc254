//! Everything that a training step changes.

use tamt_kernels::Precision;
use tamt_model::{GradKind, Grads, KernelChoice, Masks, Model, ParamId, Pass, PreparedWeights, Trainable};

use crate::compute::Compute;
use crate::error::Result;
use crate::objective::{Objective, StepLoss};
use crate::scores::Scores;
use crate::text::TextBatch;
use crate::train::optimizer::{Optimizer, OptimizerSettings};

/// Masks of the pruned matrices, and the matrices under these masks as the kernels read them.
#[derive(Debug)]
pub struct Subnetwork {
    pub(super) masks: Masks,
    prepared: PreparedWeights,
}

/// The trained values (weights or scores) and the masks they train under.
#[derive(Debug)]
pub enum TrainingMode {
    /// Weights of the dense model.
    Weights,
    /// Weights under masks that a step does not change.
    MaskedWeights(Subnetwork),
    /// Scores behind the masks of frozen weights. Each step ends with new masks.
    Scores(Subnetwork, Scores),
}

impl TrainingMode {
    fn subnetwork(&self) -> Option<&Subnetwork> {
        match self {
            Self::Weights => None,
            Self::MaskedWeights(subnetwork) | Self::Scores(subnetwork, _) => Some(subnetwork),
        }
    }

    /// The masks that the next step trains under; `None` for the dense model.
    pub fn masks(&self) -> Option<&Masks> {
        self.subnetwork().map(|subnetwork| &subnetwork.masks)
    }

    /// The scores behind the masks, where scores learn.
    pub fn scores(&self) -> Option<&Scores> {
        if let Self::Scores(_, scores) = self { Some(scores) } else { None }
    }

    /// The matrices as the kernels read them; `None` for the dense model, whose passes pack their matrices.
    pub fn prepared(&self) -> Option<&PreparedWeights> {
        self.subnetwork().map(|subnetwork| &subnetwork.prepared)
    }

    /// A pass of the next step, without dropout.
    pub fn pass(&self) -> Pass<'_> {
        Pass::new(self.masks(), self.prepared())
    }

    /// Prepares the matrices anew, for other kernels.
    pub(super) fn choose_kernels(&mut self, model: &Model, choice: KernelChoice) {
        match self {
            Self::Weights => {}
            Self::MaskedWeights(Subnetwork { masks, prepared }) => {
                *prepared = PreparedWeights::for_training(model, masks, choice, prepared.precision());
            }
            Self::Scores(Subnetwork { masks, prepared }, _) => {
                *prepared = PreparedWeights::for_mask_training(model, masks, choice, prepared.precision());
            }
        }
    }
}

/// A model in training: its weights, masks and scores, their gradients, and the optimiser's moments.
#[derive(Debug)]
pub struct Learner<'m> {
    /// The model; frozen weights never change.
    pub model: &'m mut Model,
    /// The trained values and their masks.
    pub mode: TrainingMode,
    /// Gradients of the trainable tensors.
    pub grads: Grads,
    /// Moments of the trainable tensors.
    pub optimizer: Optimizer,
}

impl<'m> Learner<'m> {
    /// Trains weights of the dense model.
    pub fn of_weights(model: &'m mut Model, trainable: &[Trainable], settings: OptimizerSettings) -> Self {
        let grads = Grads::new(model, trainable);
        let optimizer = Optimizer::new(settings, &grads);
        Self { model, mode: TrainingMode::Weights, grads, optimizer }
    }

    /// Trains weights under masks. Matrices of kind [`GradKind::Survivors`] are made compact.
    ///
    /// # Panics
    /// If a mask does not have the shape of its matrix.
    pub fn of_masked_weights(
        model: &'m mut Model,
        masks: Masks,
        trainable: &[Trainable],
        settings: OptimizerSettings,
        compute: Compute,
    ) -> Self {
        for t in trainable.iter().filter(|t| t.kind == GradKind::Survivors) {
            if let Some(mask) = masks.get(t.id) {
                model.params.compact(t.id, mask);
            }
        }
        let learner = Self::of_weights(model, trainable, settings);
        let prepared = PreparedWeights::for_training(learner.model, &masks, compute.kernels(), compute.precision);
        Self { mode: TrainingMode::MaskedWeights(Subnetwork { masks, prepared }), ..learner }
    }

    /// Trains `scores` over frozen weights, and the weights of `unmasked` (an MLM head) beside them. `masks` start as
    /// the scores give them.
    ///
    /// In bf16, the gradients of the layers' scores have this precision, and so do the layers' matrices: they are
    /// frozen, and each product would round them.
    pub fn of_scores(
        model: &'m mut Model,
        mut masks: Masks,
        scores: Scores,
        unmasked: &[ParamId],
        settings: OptimizerSettings,
        compute: Compute,
    ) -> Self {
        scores.binarize(model, 0, &mut masks);
        // `Optimizer::step` splits the score buffer in the order of `trainable`, so matrices keep the order of `ids`.
        let scored = scores.ids().iter().map(|&id| Trainable { id, kind: GradKind::Score });
        let unmasked = unmasked.iter().map(|&id| Trainable { id, kind: GradKind::Weight });
        let trainable: Vec<Trainable> = scored.chain(unmasked).collect();
        let Self { model, grads, optimizer, .. } = Self::of_weights(model, &trainable, settings);
        let prepared = PreparedWeights::for_mask_training(model, &masks, compute.kernels(), compute.precision);
        let grads = grads.in_precision(model, compute.precision);
        if compute.precision == Precision::Bf16 {
            let is_scored = |&id: &ParamId| grads.kind(id) == Some(GradKind::Score);
            let frozen: Vec<ParamId> = model.layer_matrices().filter(is_scored).collect();
            frozen.into_iter().for_each(|id| model.params.round(id));
        }
        Self { model, mode: TrainingMode::Scores(Subnetwork { masks, prepared }, scores), grads, optimizer }
    }

    /// Forward pass, loss and backward pass on a batch of text. The gradients are in `grads` afterwards.
    ///
    /// # Errors
    /// If the objective has an MLM loss and the model no MLM head.
    pub fn losses_and_gradients(
        &mut self,
        objective: &mut Objective,
        batch: &TextBatch,
        step: u64,
    ) -> Result<StepLoss> {
        objective.losses_and_gradients(self.model, self.mode.pass(), batch, step, &mut self.grads)
    }

    /// Clips the gradients and applies them. Returns their norm before clipping; if it is not finite, nothing changes.
    pub fn update(&mut self, learning_rate: f64) -> f64 {
        let Self { model, mode, grads, optimizer } = self;
        let norm = match mode {
            TrainingMode::Scores(_, scores) => {
                scores.shape_gradient(model, grads);
                let norm = optimizer.step(learning_rate, grads, model, &mut scores.values);
                scores.shape_values();
                norm
            }
            TrainingMode::Weights | TrainingMode::MaskedWeights(_) => {
                optimizer.step(learning_rate, grads, model, &mut [])
            }
        };
        let in_layer = |t: &Trainable| t.kind != GradKind::Score && self.model.layer_of(t.id).is_some();
        if self.grads.trainable().iter().any(in_layer) {
            self.follow_weights();
        }
        norm
    }

    /// Re-sets the thresholds of the scores, so that the next masks have exactly their number of zeros.
    pub fn reset_thresholds(&mut self) {
        if let TrainingMode::Scores(_, scores) = &mut self.mode {
            scores.reset_thresholds(self.model);
        }
    }

    /// Turns the scores into the masks of training step `step`.
    pub fn binarize(&mut self, step: u64) {
        if let TrainingMode::Scores(Subnetwork { masks, prepared }, scores) = &mut self.mode {
            scores.binarize(self.model, step, masks);
            prepared.set_masks(self.model, masks);
        }
    }

    /// The masks of a ticket saved now: masks of exactly the target sparsity if scores are trained, else the masks of
    /// training; none for the dense model.
    pub fn exact_masks(&self) -> Masks {
        let mut masks = self.mode.masks().cloned().unwrap_or_default();
        if let Some(scores) = self.mode.scores() {
            scores.binarize_exactly(self.model, &mut masks);
        }
        masks
    }

    /// Replaces the masks; no effect on the dense model.
    pub fn set_masks(&mut self, new: Masks) {
        if let TrainingMode::MaskedWeights(subnetwork) | TrainingMode::Scores(subnetwork, _) = &mut self.mode {
            subnetwork.prepared.set_masks(self.model, &new);
            subnetwork.masks = new;
        }
    }

    /// Copies changed weights of the layers to the matrices that the kernels read.
    pub fn follow_weights(&mut self) {
        if let TrainingMode::MaskedWeights(subnetwork) | TrainingMode::Scores(subnetwork, _) = &mut self.mode {
            subnetwork.prepared.set_values(&self.model.params);
        }
    }
}
