//! The weights of a model as one flat buffer, and gradients laid out the same way.

use std::ops::Range;

use tamt_kernels::bits::BitMask;
use tamt_kernels::linear::{Weight, WeightGrad, Write};

use crate::model::Model;

/// A tensor of a model, by its place in [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub(crate) usize);

impl ParamId {
    /// Position of the tensor in [`Params::ids`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// Name, shape and place of one tensor.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Canonical name: without the `bert.` or `roberta.` prefix.
    pub name: String,
    /// The name in the checkpoint this tensor came from, or the one it will be written under.
    pub checkpoint_name: String,
    /// `[rows, cols]` for a matrix, `[len]` for a vector.
    pub shape: Vec<usize>,
    range: Range<usize>,
}

/// All tensors of a model, in the order they were declared, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Params {
    specs: Vec<Spec>,
    data: Vec<f32>,
}

impl Params {
    /// Declares a tensor; its values are zero until [`Params::allocate`] and a loader fill them.
    pub(crate) fn declare(&mut self, name: String, checkpoint_name: String, shape: &[usize]) -> ParamId {
        let start = self.specs.last().map_or(0, |s| s.range.end);
        let len = shape.iter().product::<usize>();
        self.specs.push(Spec { name, checkpoint_name, shape: shape.to_vec(), range: start..start + len });
        ParamId(self.specs.len() - 1)
    }

    /// Gives every declared tensor its zeroed values.
    pub(crate) fn allocate(&mut self) {
        self.data = vec![0.0; self.specs.last().map_or(0, |s| s.range.end)];
    }

    /// Every tensor, in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ParamId> + use<> {
        (0..self.specs.len()).map(ParamId)
    }

    /// Name and shape of a tensor.
    #[must_use]
    pub fn spec(&self, id: ParamId) -> &Spec {
        &self.specs[id.0]
    }

    /// Changes the name that a tensor is written under.
    pub(crate) fn rename(&mut self, id: ParamId, checkpoint_name: String) {
        self.specs[id.0].checkpoint_name = checkpoint_name;
    }

    /// The tensor of this canonical name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.specs.iter().position(|s| s.name == name).map(ParamId)
    }

    /// Values of a tensor, row-major.
    #[must_use]
    pub fn get(&self, id: ParamId) -> &[f32] {
        &self.data[self.specs[id.0].range.clone()]
    }

    /// Values of a tensor, row-major, to write.
    #[must_use]
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        &mut self.data[self.specs[id.0].range.clone()]
    }

    /// A matrix as the kernels take it, masked where `masks` holds a mask for it.
    ///
    /// # Panics
    /// If the tensor is no matrix.
    #[must_use]
    pub fn weight<'a>(&'a self, id: ParamId, masks: Option<&'a Masks>) -> Weight<'a> {
        let [rows, cols] = self.matrix_shape(id);
        Weight { values: self.get(id), rows, cols, mask: masks.and_then(|m| m.get(id)) }
    }

    /// `[rows, cols]` of a matrix.
    ///
    /// # Panics
    /// If the tensor is no matrix.
    #[must_use]
    pub fn matrix_shape(&self, id: ParamId) -> [usize; 2] {
        match *self.spec(id).shape.as_slice() {
            [rows, cols] => [rows, cols],
            ref other => panic!("{} is no matrix: {other:?}", self.spec(id).name),
        }
    }
}

/// One optional bit mask for each tensor of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    by_param: Vec<Option<BitMask>>,
}

impl Masks {
    /// Masks of the matrices of a model's layers that drop the weights that are zero.
    #[must_use]
    pub fn of_nonzero(model: &Model) -> Self {
        let mut masks = Self::default();
        for id in model.layer_matrices() {
            let [rows, cols] = model.params.matrix_shape(id);
            masks.set(id, BitMask::of_nonzero(rows, cols, model.params.get(id)));
        }
        masks
    }

    /// The mask of a tensor, if it has one.
    #[must_use]
    pub fn get(&self, id: ParamId) -> Option<&BitMask> {
        self.by_param.get(id.0)?.as_ref()
    }

    /// The mask of a tensor, if it has one, to change in place.
    #[must_use]
    pub fn get_mut(&mut self, id: ParamId) -> Option<&mut BitMask> {
        self.by_param.get_mut(id.0)?.as_mut()
    }

    /// Sets the mask of a tensor.
    pub fn set(&mut self, id: ParamId, mask: BitMask) {
        if self.by_param.len() <= id.0 {
            self.by_param.resize(id.0 + 1, None);
        }
        self.by_param[id.0] = Some(mask);
    }

    /// Every masked tensor with its mask, in the model's order.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &BitMask)> {
        self.by_param.iter().enumerate().filter_map(|(i, m)| Some((ParamId(i), m.as_ref()?)))
    }
}

/// What a gradient slot collects for its tensor `W` with mask `B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradKind {
    /// `dL/dW`, zero where `B` drops the weight.
    Weight,
    /// `dL/dW` of the weights that `B` keeps, in its order and without gaps: dropped weights take no memory. For masks that
    /// stay, and not for a decoder, which is not masked.
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

/// Gradients of the trainable tensors, in one buffer, in the order given.
///
/// The first write to a slot after [`Grads::begin`] stores and later ones add, so nothing needs zeroing and a tensor
/// that is used twice (the tied word embeddings) collects both contributions.
#[derive(Clone, Debug)]
pub struct Grads {
    trainable: Vec<Trainable>,
    ranges: Vec<Range<usize>>,
    by_param: Vec<Option<usize>>,
    written: Vec<bool>,
    data: Vec<f32>,
}

impl Grads {
    /// Buffers for `trainable`, all zero.
    ///
    /// # Panics
    /// If one is of [`GradKind::Survivors`]: it needs [`Grads::with_masks`].
    #[must_use]
    pub fn new(params: &Params, trainable: &[Trainable]) -> Self {
        Self::with_masks(params, trainable, None)
    }

    /// [`Grads::new`] under masks, which count survivors.
    ///
    /// # Panics
    /// If one is of [`GradKind::Survivors`] and has no mask.
    #[must_use]
    pub fn with_masks(params: &Params, trainable: &[Trainable], masks: Option<&Masks>) -> Self {
        let mut by_param = vec![None; params.ids().len()];
        let mut ranges = Vec::with_capacity(trainable.len());
        let mut end = 0;
        for (slot, t) in trainable.iter().enumerate() {
            by_param[t.id.0] = Some(slot);
            let len = match t.kind {
                GradKind::Weight | GradKind::Score => params.get(t.id).len(),
                GradKind::Survivors => {
                    masks.and_then(|masks| masks.get(t.id)).expect("survivors of a mask").count_ones()
                }
            };
            ranges.push(end..end + len);
            end += len;
        }
        Self {
            trainable: trainable.to_vec(),
            ranges,
            by_param,
            written: vec![false; trainable.len()],
            data: vec![0.0; end],
        }
    }

    /// Starts a new step: the next write to each slot replaces what it holds.
    pub fn begin(&mut self) {
        self.written.fill(false);
    }

    /// Ends a step: what nothing was written to is zero.
    pub fn finish(&mut self) {
        for (range, _) in self.ranges.iter().zip(&self.written).filter(|(_, written)| !**written) {
            self.data[range.clone()].fill(0.0);
        }
    }

    /// The tensors these gradients are for.
    #[must_use]
    pub fn trainable(&self) -> &[Trainable] {
        &self.trainable
    }

    /// Where each trainable tensor's values lie in [`Grads::data`].
    #[must_use]
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// All gradients, one trainable tensor after the other.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All gradients, to change them before an update.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The gradient of one tensor, if it is trainable.
    #[must_use]
    pub fn get(&self, id: ParamId) -> Option<&[f32]> {
        let slot = self.by_param[id.0]?;
        Some(&self.data[self.ranges[slot].clone()])
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

    /// The slot of a tensor to write, with the way to write it; `None` if it is not trainable.
    pub(crate) fn slot(&mut self, id: ParamId) -> Option<(&mut [f32], Write, GradKind)> {
        let slot = self.by_param[id.0]?;
        let mode = if std::mem::replace(&mut self.written[slot], true) { Write::Add } else { Write::Store };
        Some((&mut self.data[self.ranges[slot].clone()], mode, self.trainable[slot].kind))
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
        let (ra, rb) = (self.ranges[self.by_param[a.0]?].clone(), self.ranges[self.by_param[b.0]?].clone());
        let [a, b] = self.data.get_disjoint_mut([ra, rb]).expect("slots of different tensors are disjoint");
        Some((a, b, mode_a))
    }
}

/// The step from `dL/d(W o B)` to what the slot collects.
pub(crate) fn epilogue(kind: GradKind, weight: Weight<'_>) -> WeightGrad<'_> {
    match (kind, weight.mask) {
        (GradKind::Survivors, Some(mask)) => WeightGrad::Survivors(mask),
        (GradKind::Score, _) => WeightGrad::Score(weight.values),
        (GradKind::Weight, Some(mask)) => WeightGrad::Masked(mask),
        (GradKind::Weight | GradKind::Survivors, None) => WeightGrad::Dense,
    }
}
