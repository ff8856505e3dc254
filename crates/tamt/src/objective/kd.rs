//! Distillation: the distance of a subnetwork's (the student's) states from the dense model's (the teacher's), on the
//! same tokens.
//!
//! With hidden states `H_l` of layer `l`, `N` positions and width `d`, and `T` for the teacher's:
//!
//! ```text
//! representation   mean over layers of   mean over positions (1 - cos(H_l, T_l)), or |H_l - T_l|² / (N d)
//! attention        mean over layers, heads and pairs of (q k / sqrt(d_head) - teacher's)²
//! relation         mean over layers and pairs of (H_l H_lᵀ / sqrt(d) - T_l T_lᵀ / sqrt(d))²
//! L_kd             the sum of the three
//! ```

use serde::{Deserialize, Serialize};
use tamt_kernels::Scratch;
use tamt_kernels::ops::attention::AttentionShape;
use tamt_kernels::ops::{attention, distance, reduce, relation};
use tamt_model::{Activations, Batch, HiddenGrads, Model, Pass, Save, Workspace};

/// Which positions' hidden states are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Representation {
    /// Every position of every layer's output.
    #[default]
    Full,
    /// Position 0 of every layer's output.
    Cls,
    /// Every position of the last layer's output.
    LastLayer,
    /// No hidden states, for a loss of other distillation terms.
    None,
}

/// How two hidden states are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// `1 - cos`, mean over positions.
    #[default]
    Cosine,
    /// Squared difference, mean over positions and features.
    Mse,
}

/// Which relations between hidden states are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// None.
    #[default]
    None,
    /// `H Hᵀ / sqrt(d)` between the tokens of a sequence.
    Token,
    /// `H Hᵀ / sqrt(d)` between position 0 of the sequences of a batch.
    Sample,
}

/// Over which layers relations are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Span {
    /// Every layer's output.
    #[default]
    Full,
    /// The last layer's output.
    LastLayer,
}

/// The distillation losses. They are means over layers and are summed with unit weights, then multiplied by `weight`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KdSettings {
    /// Factor of the sum.
    pub weight: f32,
    /// Which hidden states are compared.
    pub representation: Representation,
    /// How hidden states are compared.
    pub distance: Distance,
    /// Whether attention scores before the softmax are compared, by squared difference.
    pub attention: bool,
    /// Which relations between hidden states are compared, by squared difference.
    pub relation: Relation,
    /// The layers of the relations.
    pub relation_span: Span,
}

impl Default for KdSettings {
    fn default() -> Self {
        Self {
            weight: 1.0,
            representation: Representation::Full,
            distance: Distance::Cosine,
            attention: false,
            relation: Relation::None,
            relation_span: Span::Full,
        }
    }
}

impl KdSettings {
    /// Whether nothing is compared, so that the loss is 0 for every mask.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.representation == Representation::None && !self.attention && self.relation == Relation::None
    }
}

/// A distillation objective with its buffers.
#[derive(Debug)]
pub(crate) struct Distillation {
    pub(crate) settings: KdSettings,
    teacher: Activations,
    scratch: Scratch,
    rows: [Vec<f32>; 3],
    first: Vec<u32>,
}

impl Distillation {
    pub(crate) fn new(settings: KdSettings) -> Self {
        let save = if settings.attention { Save::HiddenAndAttention } else { Save::Hidden };
        let teacher = Activations::new(save);
        Self { settings, teacher, scratch: Scratch::default(), rows: Default::default(), first: Vec::new() }
    }

    /// `L_kd` before its weight; the gradient, weight included, is added to `d`. The teacher is the dense model without
    /// dropout.
    pub(crate) fn loss_and_gradients(
        &mut self,
        model: &Model,
        batch: &Batch,
        student: &Activations,
        d: &mut HiddenGrads,
        workspace: &mut Workspace,
    ) -> f64 {
        model.forward(batch, Pass::default(), &mut self.teacher, workspace);
        let (settings, layers) = (self.settings, model.layers.len());
        self.first.clear();
        self.first.extend(batch.bounds[..batch.sequences()].iter().map(|&b| b as u32));
        let mut loss = 0.0;
        let span = |last_only: bool| if last_only { layers..=layers } else { 1..=layers };
        if settings.representation != Representation::None {
            let span = span(settings.representation == Representation::LastLayer);
            let share = 1.0 / span.clone().count() as f64;
            for index in span {
                loss += share * self.representation(index, share, model, student, d);
            }
        }
        if settings.attention {
            loss += self.attention(model, batch, student, d);
        }
        if settings.relation != Relation::None {
            let span = span(settings.relation_span == Span::LastLayer);
            let share = 1.0 / span.clone().count() as f64;
            for index in span {
                loss += share * self.relation(index, share, model, batch, student, d);
            }
        }
        loss
    }

    /// The distance of the hidden states of layer output `index`; `share` is the layer's part of the mean.
    fn representation(
        &mut self,
        index: usize,
        share: f64,
        model: &Model,
        student: &Activations,
        d: &mut HiddenGrads,
    ) -> f64 {
        let (width, weight) = (model.config.hidden_size, share * f64::from(self.settings.weight));
        let distance = self.settings.distance;
        let of_rows = |s: &[f32], t: &[f32], ds: &mut [f32]| compare(distance, s, t, width, weight, ds);
        if self.settings.representation == Representation::Cls {
            return self.at_first_positions(index, width, student, d, of_rows);
        }
        let s = student.hidden(index);
        of_rows(s, self.teacher.hidden(index), d.hidden_mut(index, s.len()))
    }

    /// The squared difference of attention scores, mean over layers, heads and pairs of tokens of a sequence.
    fn attention(&mut self, model: &Model, batch: &Batch, student: &Activations, d: &mut HiddenGrads) -> f64 {
        let (heads, width) = (model.config.num_attention_heads, model.config.hidden_size);
        let shape = AttentionShape { bounds: &batch.bounds, heads, head_dim: width / heads, first_sequence: 0 };
        let pairs: usize = batch.bounds.windows(2).map(|b| (b[1] - b[0]).pow(2)).sum();
        let share = 1.0 / (model.layers.len() as f64 * heads as f64 * pairs.max(1) as f64);
        let weight = (share * f64::from(self.settings.weight)) as f32;
        (0..model.layers.len())
            .map(|layer| {
                let (q, k) = student.query_key(layer);
                let (tq, tk) = self.teacher.query_key(layer);
                let grads = d.query_key_mut(layer, q.len());
                share * attention::score_mse(q, k, tq, tk, &shape, weight, Some(grads), &mut self.scratch)
            })
            .sum()
    }

    /// The squared difference of relations at layer output `index`; `share` is the layer's part of the mean.
    fn relation(
        &mut self,
        index: usize,
        share: f64,
        model: &Model,
        batch: &Batch,
        student: &Activations,
        d: &mut HiddenGrads,
    ) -> f64 {
        let (width, count) = (model.config.hidden_size, batch.sequences());
        let samples = self.settings.relation == Relation::Sample;
        let pairs = if samples { count * count } else { batch.bounds.windows(2).map(|b| (b[1] - b[0]).pow(2)).sum() };
        let mean = 1.0 / pairs.max(1) as f64;
        let weight = (share * f64::from(self.settings.weight) * mean) as f32;
        if samples {
            let gram_mse =
                |s: &[f32], t: &[f32], ds: &mut [f32]| relation::gram_mse(s, t, count, width, weight, Some(ds));
            return mean * self.at_first_positions(index, width, student, d, gram_mse);
        }
        let (s, t) = (student.hidden(index), self.teacher.hidden(index));
        let ds = d.hidden_mut(index, s.len());
        mean * relation::token(s, t, &batch.bounds, width, weight, Some(ds), &mut self.scratch)
    }

    /// A loss over position 0 of every sequence: gathers student's and teacher's states, and scatters the gradient.
    fn at_first_positions(
        &mut self,
        index: usize,
        width: usize,
        student: &Activations,
        d: &mut HiddenGrads,
        loss: impl FnOnce(&[f32], &[f32], &mut [f32]) -> f64,
    ) -> f64 {
        for buffer in &mut self.rows {
            buffer.clear();
            buffer.resize(self.first.len() * width, 0.0);
        }
        let ([s, t, ds], hidden) = (&mut self.rows, student.hidden(index));
        reduce::gather_rows(hidden, width, &self.first, s);
        reduce::gather_rows(self.teacher.hidden(index), width, &self.first, t);
        let value = loss(s, t, ds);
        reduce::scatter_add_rows(ds, width, &self.first, d.hidden_mut(index, hidden.len()));
        value
    }
}

/// Mean distance of rows of `width` floats; the gradient of `weight` times the mean is added to `ds`.
fn compare(distance: Distance, s: &[f32], t: &[f32], width: usize, weight: f64, ds: &mut [f32]) -> f64 {
    match distance {
        Distance::Cosine => {
            let mean = width as f64 / s.len().max(1) as f64;
            mean * distance::cosine(s, t, width, (weight * mean) as f32, Some(ds))
        }
        Distance::Mse => {
            let mean = 1.0 / s.len().max(1) as f64;
            mean * distance::mse(s, t, (weight * mean) as f32, Some(ds))
        }
    }
}
