//! Gradients of the trainable tensors.

use std::ops::Range;

use half::bf16;
use tamt_kernels::masks::{GradEpilogue, WeightRef};
use tamt_kernels::ops::embedding::RowGrads;
use tamt_kernels::{Precision, Write};

use crate::model::Model;
use crate::params::{Masks, ParamId, Params};

/// What a gradient slot collects for its tensor `W` with mask `B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradKind {
    /// `dL/dW`, zero where `B` drops the weight.
    Weight,
    /// `dL/dW` of the surviving weights of a compact matrix ([`Params::compact`]), in the order of `B` and without
    /// gaps. The same as [`GradKind::Weight`] for any other storage.
    Survivors,
    /// `dL/dB = dL/d(W ∘ B) ∘ W` at every position: the straight-through gradient of the scores behind `B`.
    Score,
}

/// A tensor whose weights or scores are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trainable {
    /// The tensor.
    pub id: ParamId,
    /// What is trained for it.
    pub kind: GradKind,
}

impl Trainable {
    /// Every tensor of a model without a decoder, under fixed masks: the survivors of masked matrices, all elements
    /// of the others.
    pub fn weights(model: &Model, masks: Option<&Masks>) -> Vec<Self> {
        let kind = |id: ParamId| match masks.and_then(|masks| masks.get(id)) {
            Some(_) => GradKind::Survivors,
            None => GradKind::Weight,
        };
        model.params.ids().map(|id| Self { id, kind: kind(id) }).collect()
    }
}

/// The gradient of a tensor.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// All values.
    All(Vec<f32>),
    /// All values in bf16: scores of a layer's matrix, if products are in bf16.
    Bf16(Vec<bf16>),
    /// The rows that a step reads, of word embeddings that are no decoder.
    Rows(RowGrads),
}

impl Gradient {
    /// All values of a gradient of a vector, of weights of a layer or of a head.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::All(values) => values,
            Self::Bf16(_) | Self::Rows(_) => unreachable!("only scores are in bf16, only word embeddings in rows"),
        }
    }
}

/// A gradient on loan from [`Grads`].
#[derive(Debug)]
pub(crate) struct OwnedGradient {
    slot: usize,
    pub(crate) gradient: Gradient,
    pub(crate) mode: Write,
    pub(crate) kind: GradKind,
}

/// Gradients of the trainable tensors, in the order given.
///
/// The first write to a slot after [`Grads::begin`] stores, any further write adds. No slot needs zeroing, and a tensor
/// that is used twice (the tied word embeddings) collects both contributions.
#[derive(Clone, Debug)]
pub struct Grads {
    trainable: Vec<Trainable>,
    ranges: Vec<Range<usize>>,
    by_param: Vec<Option<usize>>,
    written: Vec<bool>,
    gradients: Vec<Gradient>,
}

impl Grads {
    /// Buffers for `trainable`, all zero. Call [`Params::compact`] first: the buffers have the size of the present
    /// storage.
    ///
    /// # Panics
    /// If the scores of a compact matrix are to be trained: their gradient needs the dropped weights.
    pub fn new(model: &Model, trainable: &[Trainable]) -> Self {
        let mut by_param = vec![None; model.params.ids().len()];
        let (mut ranges, mut gradients) = (Vec::new(), Vec::new());
        let mut end = 0;
        for (slot, t) in trainable.iter().enumerate() {
            by_param[t.id.0] = Some(slot);
            let len = match model.params.weight(t.id, None) {
                WeightRef::Dense(weight) => weight.values.len(),
                WeightRef::Compact(weight) => {
                    assert_ne!(t.kind, GradKind::Score, "scores of a matrix with all weights");
                    weight.kept().survivors()
                }
            };
            ranges.push(end..end + len);
            end += len;
            let decodes = model.mlm_head.is_some() && t.kind == GradKind::Weight;
            gradients.push(match t.id == model.embeddings.word && !decodes {
                true => Gradient::Rows(RowGrads::new(model.config.vocab_size)),
                false => Gradient::All(vec![0.0; len]),
            });
        }
        Self { trainable: trainable.to_vec(), ranges, by_param, written: vec![false; trainable.len()], gradients }
    }

    /// The same buffers for products in `precision`. With bf16, score gradients of the layers' matrices are rounded
    /// to bf16 too: half the memory, and an optimiser that divides by the gradient's size loses nothing.
    #[must_use]
    pub fn in_precision(mut self, model: &Model, precision: Precision) -> Self {
        for (t, gradient) in self.trainable.iter().zip(&mut self.gradients) {
            if let Gradient::All(values) = gradient
                && (precision, t.kind) == (Precision::Bf16, GradKind::Score)
                && model.layer_of(t.id).is_some()
            {
                *gradient = Gradient::Bf16(vec![bf16::ZERO; values.len()]);
            }
        }
        self
    }

    /// Starts a step: the first write to each slot replaces its content.
    pub fn begin(&mut self) {
        self.written.fill(false);
    }

    /// Ends a step: sets the slots without a write to zero.
    pub fn finish(&mut self) {
        for (gradient, written) in self.gradients.iter_mut().zip(&self.written) {
            match gradient {
                _ if *written => {}
                Gradient::All(values) => values.fill(0.0),
                Gradient::Bf16(values) => values.fill(bf16::ZERO),
                Gradient::Rows(rows) => rows.clear(),
            }
        }
    }

    /// The tensors these gradients are for.
    pub fn trainable(&self) -> &[Trainable] {
        &self.trainable
    }

    /// The gradients, as [`Grads::trainable`].
    pub fn gradients(&self) -> &[Gradient] {
        &self.gradients
    }

    /// The range of each gradient in the concatenation of all.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// All values of one tensor's gradient, if the tensor is trainable.
    pub fn get(&self, id: ParamId, params: &Params) -> Option<Vec<f32>> {
        let slot = self.by_param[id.0]?;
        Some(match &self.gradients[slot] {
            Gradient::All(values) => values.clone(),
            Gradient::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Gradient::Rows(rows) => {
                let ranges = params.row_ranges(id);
                let row = |row| rows.get(row).map_or(vec![0.0; ranges.of(row).len()], <[f32]>::to_vec);
                (0..rows.table_rows()).flat_map(row).collect()
            }
        })
    }

    /// Sets the elements `i` of a tensor's gradient with `drop(i)` to zero. Not for compact matrices.
    pub fn zero_where(&mut self, id: ParamId, drop: impl Fn(usize) -> bool) {
        let Some(slot) = self.by_param[id.0] else { return };
        fn zero<T: Default>(first: usize, values: &mut [T], drop: impl Fn(usize) -> bool) {
            values.iter_mut().enumerate().filter(|(i, _)| drop(first + i)).for_each(|(_, v)| *v = T::default());
        }
        match &mut self.gradients[slot] {
            Gradient::All(values) => zero(0, values, drop),
            Gradient::Bf16(values) => zero(0, values, drop),
            Gradient::Rows(rows) => rows.iter_mut().for_each(|(row, values)| zero(row * values.len(), values, &drop)),
        }
    }

    /// The kind of a tensor's gradient, if the tensor is trainable.
    pub fn kind(&self, id: ParamId) -> Option<GradKind> {
        Some(self.trainable[self.by_param[id.0]?].kind)
    }

    /// Whether a tensor is trainable.
    pub fn contains(&self, id: ParamId) -> bool {
        self.by_param[id.0].is_some()
    }

    /// The gradient of a tensor, to write in the mode returned; `None` if the tensor is not trainable.
    pub(crate) fn gradient(&mut self, id: ParamId) -> Option<(&mut Gradient, Write, GradKind)> {
        let slot = self.by_param[id.0]?;
        let mode = if std::mem::replace(&mut self.written[slot], true) { Write::Add } else { Write::Store };
        Some((&mut self.gradients[slot], mode, self.trainable[slot].kind))
    }

    /// [`Grads::gradient`] by value, so that several jobs write gradients in parallel; [`Grads::restore`] ends the
    /// loan.
    pub(crate) fn take(&mut self, id: ParamId) -> Option<OwnedGradient> {
        let slot = self.by_param[id.0]?;
        let (gradient, mode, kind) = self.gradient(id)?;
        Some(OwnedGradient { slot, gradient: std::mem::replace(gradient, Gradient::All(Vec::new())), mode, kind })
    }

    pub(crate) fn restore(&mut self, owned: OwnedGradient) {
        self.gradients[owned.slot] = owned.gradient;
    }

    /// [`Grads::gradient`] of a tensor outside the layers whose gradient is [`Gradient::All`].
    pub(crate) fn slot(&mut self, id: ParamId) -> Option<(&mut [f32], Write, GradKind)> {
        self.gradient(id).map(|(gradient, mode, kind)| (gradient.values_mut(), mode, kind))
    }

    /// The gradients of two tensors that are trained together or not at all (scale and shift of a `LayerNorm`).
    pub(crate) fn pair(&mut self, a: ParamId, b: ParamId) -> Option<(&mut [f32], &mut [f32], Write)> {
        let (mode_a, mode_b) = (self.slot(a)?.1, self.slot(b)?.1);
        debug_assert_eq!(mode_a, mode_b, "equally many writes to both");
        let [a, b] = [self.by_param[a.0]?, self.by_param[b.0]?];
        let [a, b] = self.gradients.get_disjoint_mut([a, b]).expect("different tensors");
        Some((a.values_mut(), b.values_mut(), mode_a))
    }
}

/// The epilogue that turns `dL/d(W ∘ B)` into the gradient of the given kind, in the layout of the tensor's storage.
pub(crate) fn epilogue<'a>(
    kind: GradKind,
    id: ParamId,
    params: &'a Params,
    masks: Option<&'a Masks>,
) -> GradEpilogue<'a> {
    match (params.weight(id, masks), kind) {
        (WeightRef::Compact(weight), _) => GradEpilogue::Survivors(weight.kept()),
        (WeightRef::Dense(weight), GradKind::Score) => GradEpilogue::Score(weight.values),
        (WeightRef::Dense(weight), _) => weight.mask.map_or(GradEpilogue::Dense, GradEpilogue::Masked),
    }
}
