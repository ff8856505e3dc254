//! Gradients of the tensors that learn.

use std::ops::Range;

use half::bf16;
use tamt_kernels::Precision;
use tamt_kernels::Write;
use tamt_kernels::masks::GradEpilogue;
use tamt_kernels::ops::embedding::RowGrads;

use crate::model::Model;
use crate::params::{Masks, ParamId, Params};

/// What a gradient slot collects for its tensor `W` with mask `B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradKind {
    /// `dL/dW`, zero where `B` drops the weight.
    Weight,
    /// `dL/dW` of the weights that `B` keeps, in its order and without gaps: dropped weights take no memory. For masks that
    /// stay, and matrices that are kept so ([`Params::compact`]).
    Survivors,
    /// `dL/dB = dL/d(W o B) o W` at every position: the straight-through gradient of the scores behind `B`.
    Score,
}

/// A tensor that learns, or whose scores do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trainable {
    /// The tensor.
    pub id: ParamId,
    /// What is trained for it.
    pub kind: GradKind,
}

impl Trainable {
    /// Every weight of a model without a decoder under masks that stay: of masked matrices the survivors, of the rest all.
    #[must_use]
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
    /// All values in bf16: of the scores of a layer's matrices, when its products are.
    Bf16(Vec<bf16>),
    /// Of the word embeddings where they are no decoder, of which a step reads few rows: those.
    Rows(RowGrads),
}

impl Gradient {
    /// Makes it zero.
    fn clear(&mut self) {
        match self {
            Self::All(values) => values.fill(0.0),
            Self::Bf16(values) => values.fill(bf16::ZERO),
            Self::Rows(rows) => rows.clear(),
        }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::All(values) => values,
            Self::Bf16(_) | Self::Rows(_) => unreachable!("the gradient of no layer's scores and of no table"),
        }
    }
}

/// A gradient that was taken out of [`Grads`].
#[derive(Debug)]
pub(crate) struct Taken {
    id: ParamId,
    pub(crate) gradient: Gradient,
    pub(crate) mode: Write,
    pub(crate) kind: GradKind,
}

/// Gradients of the trainable tensors, in the order given.
///
/// The first write to a slot after [`Grads::begin`] stores and later ones add, so nothing needs zeroing and a tensor
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
    /// Buffers for `trainable`, all zero.
    ///
    /// # Panics
    /// If one is of [`GradKind::Survivors`] and is not compact.
    #[must_use]
    pub fn new(model: &Model, trainable: &[Trainable]) -> Self {
        let mut by_param = vec![None; model.params.ids().len()];
        let (mut ranges, mut gradients) = (Vec::new(), Vec::new());
        let mut end = 0;
        for (slot, t) in trainable.iter().enumerate() {
            by_param[t.id.0] = Some(slot);
            let len = match t.kind {
                GradKind::Weight | GradKind::Score => model.params.spec(t.id).elements(),
                GradKind::Survivors => model.params.survivors(t.id).survivors(),
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

    /// The same for products in a precision: in bf16 gradients of scores of the layers' matrices are rounded to it as well. They
    /// take half the memory, and an optimiser that divides by their size does not see the last bits.
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

    /// Starts a new step: the next write to each slot replaces what it holds.
    pub fn begin(&mut self) {
        self.written.fill(false);
    }

    /// Ends a step: what nothing was written to is zero.
    pub fn finish(&mut self) {
        for (gradient, _) in self.gradients.iter_mut().zip(&self.written).filter(|(_, written)| !**written) {
            gradient.clear();
        }
    }

    /// The tensors these gradients are for.
    #[must_use]
    pub fn trainable(&self) -> &[Trainable] {
        &self.trainable
    }

    /// The gradients, as [`Grads::trainable`].
    #[must_use]
    pub fn gradients(&self) -> &[Gradient] {
        &self.gradients
    }

    /// Where the elements of each trainable tensor (or its survivors) lie when all follow each other.
    #[must_use]
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// All values of one tensor's gradient, if it is trainable.
    #[must_use]
    pub fn get(&self, id: ParamId, params: &Params) -> Option<Vec<f32>> {
        let slot = self.by_param[id.0]?;
        Some(match &self.gradients[slot] {
            Gradient::All(values) => values.clone(),
            Gradient::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Gradient::Rows(rows) => {
                let places = params.row_ranges(id);
                let row = |row| rows.get(row).map_or(vec![0.0; places.of(row).len()], <[f32]>::to_vec);
                (0..rows.table_rows()).flat_map(row).collect()
            }
        })
    }

    /// Sets elements of a tensor's gradient to zero: those whose number `drop` says; not for survivors.
    pub fn zero_where(&mut self, id: ParamId, drop: impl Fn(usize) -> bool) {
        let Some(slot) = self.by_param[id.0] else { return };
        fn zero<'a, T: Default + 'a>(
            first: usize,
            values: impl Iterator<Item = &'a mut T>,
            drop: impl Fn(usize) -> bool,
        ) {
            values.enumerate().filter(|(i, _)| drop(first + i)).for_each(|(_, v)| *v = T::default());
        }
        match &mut self.gradients[slot] {
            Gradient::All(values) => zero(0, values.iter_mut(), drop),
            Gradient::Bf16(values) => zero(0, values.iter_mut(), drop),
            Gradient::Rows(rows) => {
                for (row, values) in rows.iter_mut() {
                    zero(row * values.len(), values.iter_mut(), &drop);
                }
            }
        }
    }

    /// What a tensor's gradient is, if it is trainable.
    #[must_use]
    pub fn kind(&self, id: ParamId) -> Option<GradKind> {
        Some(self.trainable[self.by_param[id.0]?].kind)
    }

    /// Whether a tensor is trainable.
    #[must_use]
    pub fn wants(&self, id: ParamId) -> bool {
        self.by_param[id.0].is_some()
    }

    /// The slot of a tensor to write, however it is kept, with the way to write it; `None` if it is not trainable.
    pub(crate) fn gradient(&mut self, id: ParamId) -> Option<(&mut Gradient, Write, GradKind)> {
        let slot = self.by_param[id.0]?;
        let mode = if std::mem::replace(&mut self.written[slot], true) { Write::Add } else { Write::Store };
        Some((&mut self.gradients[slot], mode, self.trainable[slot].kind))
    }

    /// [`Grads::gradient`] to own for a while, so that several are written at once: until [`Grads::put_back`].
    pub(crate) fn take(&mut self, id: ParamId) -> Option<Taken> {
        let (gradient, mode, kind) = self.gradient(id)?;
        Some(Taken { id, gradient: std::mem::replace(gradient, Gradient::All(Vec::new())), mode, kind })
    }

    pub(crate) fn put_back(&mut self, taken: Taken) {
        let slot = self.by_param[taken.id.0].expect("it was taken from here");
        self.gradients[slot] = taken.gradient;
    }

    /// [`Grads::gradient`] of a tensor whose gradient is [`Gradient::All`]: no layer's scores, no word embeddings.
    pub(crate) fn slot(&mut self, id: ParamId) -> Option<(&mut [f32], Write, GradKind)> {
        self.gradient(id).map(|(gradient, mode, kind)| (gradient.values_mut(), mode, kind))
    }

    /// The slot of the word embeddings for their use as decoder: there the mask does not act, so it concerns the
    /// weights only, never their scores.
    pub(crate) fn decoder_slot(&mut self, id: ParamId) -> Option<(&mut [f32], Write)> {
        let slot = self.by_param[id.0]?;
        if self.trainable[slot].kind == GradKind::Score {
            return None;
        }
        self.slot(id).map(|(data, mode, _)| (data, mode))
    }

    /// Two slots that are trained together or not at all (scale and shift of a LayerNorm).
    pub(crate) fn pair(&mut self, a: ParamId, b: ParamId) -> Option<(&mut [f32], &mut [f32], Write)> {
        let (mode_a, mode_b) = (self.slot(a)?.1, self.slot(b)?.1);
        debug_assert_eq!(mode_a, mode_b, "both were written equally often");
        let [a, b] = [self.by_param[a.0]?, self.by_param[b.0]?];
        let [a, b] = self.gradients.get_disjoint_mut([a, b]).expect("different tensors");
        Some((a.values_mut(), b.values_mut(), mode_a))
    }
}

/// The step from `dL/d(W o B)` to what the slot collects.
pub(crate) fn epilogue<'a>(
    kind: GradKind,
    id: ParamId,
    params: &'a Params,
    masks: Option<&'a Masks>,
) -> GradEpilogue<'a> {
    match (kind, masks.and_then(|masks| masks.get(id))) {
        (GradKind::Survivors, _) => GradEpilogue::Survivors(params.survivors(id)),
        (GradKind::Score, _) => GradEpilogue::Score(params.values(id)),
        (GradKind::Weight, Some(mask)) => GradEpilogue::Masked(mask),
        (GradKind::Weight, None) => GradEpilogue::Dense,
    }
}
