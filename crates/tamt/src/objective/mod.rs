//! Pre-training objectives: the loss of a batch of text, and its gradients.
//!
//! Masked language modelling, distillation of the dense model's hidden states, or both (Liu et al. 2022, section 3.3).

pub(crate) mod kd;

pub use kd::{Distance, KdSettings, Relation, Representation, Span};

use serde::{Deserialize, Serialize};
use tamt_data::Corruption;
use tamt_kernels::Precision;
use tamt_model::{Activations, Batch, DropoutPlan, Grads, HiddenGrads, MlmGrads, Model, Pass, Save, Workspace};

use crate::error::Result;
use crate::metrics;
use crate::objective::kd::Distillation;
use crate::text::{MaskedTokens, TextBatch};

/// Which losses are minimised, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectiveSettings {
    /// Masked language modelling.
    pub mlm: bool,
    /// Distillation from the dense model.
    pub kd: Option<KdSettings>,
    /// Probability that a token is to be predicted.
    pub mlm_probability: f32,
    /// Dropout on embeddings, sub-layer outputs and attention probabilities; `None` takes the model's own rates.
    pub dropout: Option<f32>,
}

impl ObjectiveSettings {
    /// The name that tickets carry: `mlm`, `kd`, `mlm+kd`.
    pub fn name(&self) -> &'static str {
        match (self.mlm, self.kd.is_some()) {
            (true, true) => "mlm+kd",
            (false, true) => "kd",
            (_, false) => "mlm",
        }
    }

    /// The corruption of the training text; distillation alone reads clean text.
    pub fn corruption(&self) -> Option<Corruption> {
        self.mlm.then(|| Corruption { probability: self.mlm_probability, ..Corruption::default() })
    }
}

/// Losses of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepLoss {
    /// The minimised sum.
    pub total: f64,
    /// The loss against a task's labels.
    pub task: Option<f64>,
    /// Mean cross-entropy over masked tokens.
    pub mlm: Option<f64>,
    /// The distillation loss, before its weight.
    pub kd: Option<f64>,
    /// Tokens in the batch.
    pub tokens: u64,
}

impl StepLoss {
    /// The summands by name, where there is more than one.
    pub(crate) fn parts(&self) -> Vec<(&'static str, f64)> {
        let all = [(metrics::TASK_LOSS, self.task), (metrics::MLM_LOSS, self.mlm), (metrics::KD_LOSS, self.kd)];
        let parts: Vec<_> = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if parts.len() > 1 { parts } else { Vec::new() }
    }
}

/// An objective with its buffers.
#[derive(Debug)]
pub struct Objective {
    settings: ObjectiveSettings,
    seed: u64,
    student: Activations,
    distillation: Option<Distillation>,
    d_hidden: HiddenGrads,
    workspace: Workspace,
}

impl Objective {
    /// An objective whose passes have `precision`. `seed` decides the dropout. Buffers grow at the first batch.
    pub fn new(settings: ObjectiveSettings, seed: u64, precision: Precision) -> Self {
        Self {
            settings,
            seed,
            student: Activations::new(match settings.kd {
                Some(kd) if kd.attention => Save::AllAndAttention,
                _ => Save::All,
            }),
            distillation: settings.kd.map(Distillation::new),
            d_hidden: HiddenGrads::default(),
            workspace: Workspace::new(precision),
        }
    }

    /// Losses of a batch, and their gradients in `grads`. `pass` has the masks and kernels; the objective adds its own
    /// dropout of training step `step`.
    ///
    /// ```text
    /// forward    H = f(x; W ∘ B)                    hidden states of every layer
    /// loss       L = L_mlm(H) + w L_kd(H, f(x; W))
    /// backward   dL/dH, then dL/d(W ∘ B); of scores dL/d(W ∘ B) ∘ W
    /// ```
    ///
    /// # Errors
    /// If the objective has an MLM loss and the model no MLM head.
    pub fn losses_and_gradients(
        &mut self,
        model: &Model,
        pass: Pass<'_>,
        batch: &TextBatch,
        step: u64,
        grads: &mut Grads,
    ) -> Result<StepLoss> {
        let TextBatch { tokens, masked } = batch;
        let pass = pass.with_dropout(DropoutPlan::for_step(&model.config, self.settings.dropout, self.seed, step));
        grads.begin();
        model.forward(tokens, pass, &mut self.student, &mut self.workspace);
        let loss = self.loss(model, tokens, masked, grads)?;
        model.backward(tokens, pass, &self.student, &self.d_hidden, grads, &mut self.workspace);
        grads.finish();
        Ok(loss)
    }

    /// `L_mlm + w L_kd` of the student's hidden states. Their gradients are in `d_hidden` afterwards, the MLM head's in
    /// `grads`.
    fn loss(&mut self, model: &Model, tokens: &Batch, masked: &MaskedTokens, grads: &mut Grads) -> Result<StepLoss> {
        let Self { settings, student, distillation, d_hidden, workspace, .. } = self;
        d_hidden.begin(student);
        let mut loss = StepLoss { tokens: tokens.tokens() as u64, ..StepLoss::default() };
        if settings.mlm {
            let count = masked.positions.len().max(1) as f64;
            let top = student.last_hidden();
            let d_top = d_hidden.hidden_mut(student.hidden_count() - 1, top.len());
            let back = MlmGrads { scale: (1.0 / count) as f32, hidden: d_top, grads };
            let sums = model.mlm_loss(top, &masked.positions, &masked.labels, Some(back), workspace)?;
            loss.mlm = Some(sums.loss_sum / count);
        }
        let mut weight = 0.0;
        if let Some(distillation) = distillation {
            loss.kd = Some(distillation.loss_and_gradients(model, tokens, student, d_hidden, workspace));
            weight = f64::from(distillation.settings.weight);
        }
        loss.total = loss.mlm.unwrap_or(0.0) + weight * loss.kd.unwrap_or(0.0);
        Ok(loss)
    }
}
