//! The update of all trainable tensors: clipping, then AdamW or `BertAdam`.

use serde::{Deserialize, Serialize};
use tamt_kernels::ops::optim;
use tamt_kernels::ops::reduce::{sum_squares, sum_squares_bf16};
use tamt_model::{GradKind, Gradient, Grads, Model, Params};

/// An optimiser with its constants.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Bias-corrected, decay after the update (TAMT-MLM, IMP, fine-tuning).
    #[serde(rename = "adamw")]
    AdamW,
    /// No bias correction, decay inside the update (TAMT-KD).
    BertAdam,
}

/// How gradients are limited before an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// One norm over all trainable tensors.
    Global,
    /// A norm for each tensor.
    PerTensor,
    /// No limit.
    None,
}

/// Settings of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptimizerSettings {
    /// Which optimiser.
    pub kind: OptimizerKind,
    /// Learning rate before the schedule's factor.
    pub learning_rate: f64,
    /// First-moment decay.
    pub beta1: f64,
    /// Second-moment decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay, on matrices and scores; biases and `LayerNorm`s have none.
    pub weight_decay: f64,
    /// What the norm limit applies to.
    pub clip: Clip,
    /// The norm limit.
    pub max_grad_norm: f64,
}

impl OptimizerSettings {
    /// The reference's AdamW: no decay, one norm limit of 1 over everything.
    pub fn adamw(learning_rate: f64) -> Self {
        Self {
            kind: OptimizerKind::AdamW,
            learning_rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: Clip::Global,
            max_grad_norm: 1.0,
        }
    }

    /// The reference's `BertAdam`: decay 0.01, a norm limit of 1 for each tensor.
    pub fn bert_adam(learning_rate: f64) -> Self {
        Self {
            kind: OptimizerKind::BertAdam,
            epsilon: 1e-6,
            weight_decay: 0.01,
            clip: Clip::PerTensor,
            ..Self::adamw(learning_rate)
        }
    }
}

/// Moments of all trainable tensors, laid out as their gradients.
#[derive(Clone, Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// First moments.
    pub(crate) m: Vec<f32>,
    /// Second moments.
    pub(crate) v: Vec<f32>,
    /// For each tensor with a gradient of rows: the rows that ever had a gradient. The moments of the other rows are
    /// zero, and the operating system gives their memory at the first write.
    rows_with_moments: Vec<Vec<bool>>,
    /// Updates since the moments were zero.
    pub(crate) updates: u64,
}

impl Optimizer {
    /// Zero moments for `grads`.
    pub fn new(settings: OptimizerSettings, grads: &Grads) -> Self {
        let n = grads.ranges().last().map_or(0, |range| range.end);
        let rows = grads.gradients().iter().map(|gradient| match gradient {
            Gradient::Rows(rows) => vec![false; rows.table_rows()],
            Gradient::All(_) | Gradient::Bf16(_) => Vec::new(),
        });
        Self { settings, m: vec![0.0; n], v: vec![0.0; n], rows_with_moments: rows.collect(), updates: 0 }
    }

    /// Finds the rows with moments again, after the moments were read from a checkpoint.
    pub(crate) fn follow_moments(&mut self, grads: &Grads, params: &Params) {
        for ((rows, t), range) in self.rows_with_moments.iter_mut().zip(grads.trainable()).zip(grads.ranges()) {
            if !rows.is_empty() {
                let (m, v) = (&self.m[range.clone()], &self.v[range.clone()]);
                *rows = optim::rows_with_moments(rows.len(), params.row_ranges(t.id), m, v);
            }
        }
    }

    /// Sets the moments and their count to zero.
    pub(crate) fn reset(&mut self) {
        self.m.fill(0.0);
        self.v.fill(0.0);
        self.rows_with_moments.iter_mut().for_each(|rows| rows.fill(false));
        self.updates = 0;
    }

    /// One update with a learning rate (the schedule's factor included) of the trainable weights of `model` and of
    /// `scores`, one after the other in the order of `grads`. Returns the norm of all gradients before clipping:
    ///
    /// ```text
    /// g ← g min(1, c / (|g| + 1e-6))     c = `max_grad_norm`; |g| over all tensors or over each (`clip`)
    /// ```
    ///
    /// and then the optimiser's own formula ([`optim::AdamW`], [`optim::BertAdam`]). If the norm is not finite,
    /// nothing changes.
    ///
    /// # Panics
    /// If there are fewer scores than score gradients, or a matrix learns by its survivors and is not compact.
    pub fn step(&mut self, learning_rate: f64, grads: &Grads, model: &mut Model, mut scores: &mut [f32]) -> f64 {
        let squares = grads.gradients().iter().map(|gradient| match gradient {
            Gradient::All(values) => sum_squares(values),
            Gradient::Bf16(values) => sum_squares_bf16(values),
            Gradient::Rows(rows) => sum_squares(rows.values()),
        });
        let squares: Vec<f64> = squares.collect();
        let norm = squares.iter().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return norm;
        }
        // A damaged checkpoint may hold any number.
        self.updates = self.updates.saturating_add(1);
        let clip = self.settings.clip;
        let scale_of = |norm: f64| (self.settings.max_grad_norm / (norm + 1e-6)).min(1.0);
        for (i, (trainable, range)) in grads.trainable().iter().zip(grads.ranges()).enumerate() {
            let scale = match clip {
                Clip::Global => scale_of(norm),
                Clip::PerTensor => scale_of(squares[i].sqrt()),
                Clip::None => 1.0,
            };
            let is_matrix = model.params.spec(trainable.id).shape.len() == 2;
            let update = self.update(learning_rate, scale, is_matrix);
            let (values, rows) = match trainable.kind {
                GradKind::Weight | GradKind::Survivors => model.params.learning_mut(trainable.id),
                GradKind::Score => {
                    let (own, rest) = std::mem::take(&mut scores).split_at_mut(range.len());
                    scores = rest;
                    (own, model.params.row_ranges(trainable.id))
                }
            };
            let (m, v) = (&mut self.m[range.clone()], &mut self.v[range.clone()]);
            match &grads.gradients()[i] {
                Gradient::All(g) => update.apply(values, g, m, v),
                Gradient::Bf16(g) => update.apply_bf16(values, g, m, v),
                Gradient::Rows(g) => update.apply_to_rows(rows, values, g, m, v, &mut self.rows_with_moments[i]),
            }
        }
        norm
    }

    /// The update of one tensor, whose gradient is multiplied by `scale`. Vectors have no weight decay.
    fn update(&self, learning_rate: f64, scale: f64, is_matrix: bool) -> optim::Update {
        let OptimizerSettings { kind, beta1, beta2, epsilon: eps, weight_decay, .. } = self.settings;
        let weight_decay = if is_matrix { weight_decay } else { 0.0 };
        match kind {
            OptimizerKind::AdamW => {
                optim::AdamW { beta1, beta2, eps, weight_decay }.update(learning_rate, self.updates, scale)
            }
            OptimizerKind::BertAdam => optim::BertAdam { beta1, beta2, eps, weight_decay }.update(learning_rate, scale),
        }
    }
}
