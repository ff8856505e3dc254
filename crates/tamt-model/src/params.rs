//! The weights of a model, and masks of some.

use std::borrow::Cow;

use half::bf16;
use tamt_kernels::Values;
use tamt_kernels::masks::BitMask;
use tamt_kernels::masks::{CompactWeight, RankedMask, RowRanges};
use tamt_kernels::masks::{Weight, WeightRef};

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

/// Name and shape of one tensor.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Canonical name: without the `bert.` or `roberta.` prefix.
    pub name: String,
    /// The name in the checkpoint this tensor came from, or the one it will be written under.
    pub checkpoint_name: String,
    /// `[rows, cols]` for a matrix, `[len]` for a vector.
    pub shape: Vec<usize>,
}

impl Spec {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of elements of a row, of a vector all.
    fn row_elements(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Elements of a tensor.
#[derive(Clone, Debug)]
enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    /// In f32, without those that a mask drops.
    Compact(CompactWeight),
}

/// All tensors of a model, in the order they were declared.
#[derive(Clone, Debug, Default)]
pub struct Params {
    specs: Vec<Spec>,
    elements: Vec<Elements>,
}

impl Params {
    /// Declares a tensor of zeros.
    pub(crate) fn declare(&mut self, name: String, checkpoint_name: String, shape: &[usize]) -> ParamId {
        let spec = Spec { name, checkpoint_name, shape: shape.to_vec() };
        self.elements.push(Elements::F32(vec![0.0; spec.elements()]));
        self.specs.push(spec);
        ParamId(self.specs.len() - 1)
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
    ///
    /// # Panics
    /// If it is kept otherwise, by [`Params::round`] or [`Params::compact`].
    #[must_use]
    pub fn get(&self, id: ParamId) -> &[f32] {
        match &self.elements[id.0] {
            Elements::F32(values) => values,
            Elements::Bf16(_) => panic!("{} is kept in bf16", self.spec(id).name),
            Elements::Compact(_) => panic!("{} is kept without its zeros", self.spec(id).name),
        }
    }

    /// Values of a tensor, row-major, to write.
    ///
    /// # Panics
    /// As [`Params::get`].
    #[must_use]
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        match &mut self.elements[id.0] {
            Elements::F32(values) => values,
            Elements::Bf16(_) => panic!("{} is kept in bf16", self.specs[id.0].name),
            Elements::Compact(_) => panic!("{} is kept without its zeros", self.specs[id.0].name),
        }
    }

    /// Values of a tensor, row-major, however it is kept.
    #[must_use]
    pub fn dense(&self, id: ParamId) -> Cow<'_, [f32]> {
        match &self.elements[id.0] {
            Elements::F32(values) => values.into(),
            Elements::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Elements::Compact(weight) => weight.to_dense().into(),
        }
    }

    /// Takes other values of a tensor, row-major, and keeps them as it kept the old ones.
    ///
    /// # Panics
    /// If there are not as many as the tensor has.
    pub fn set(&mut self, id: ParamId, values: &[f32]) {
        match &mut self.elements[id.0] {
            Elements::F32(own) => own.copy_from_slice(values),
            Elements::Bf16(own) => tamt_kernels::round(values, own),
            Elements::Compact(own) => own.set_dense(values),
        }
    }

    /// Takes the values of all tensors of the same model, as they are kept there.
    pub fn set_all(&mut self, other: &Self) {
        for (own, other) in self.elements.iter_mut().zip(&other.elements) {
            match (own, other) {
                (Elements::F32(own), Elements::F32(other)) => own.copy_from_slice(other),
                (own, other) => own.clone_from(other),
            }
        }
    }

    /// Rounds a tensor to bf16, which takes half the memory: for matrices of products in bf16, which would round them for each,
    /// that do not change any more.
    pub fn round(&mut self, id: ParamId) {
        if let Elements::F32(values) = &self.elements[id.0] {
            let mut rounded = vec![bf16::ZERO; values.len()];
            tamt_kernels::round(values, &mut rounded);
            self.elements[id.0] = Elements::Bf16(rounded);
        }
    }

    /// Keeps a matrix without what `mask` drops, which is zero from here on: for matrices that learn under a mask that stays, of
    /// which everybody else would walk the zeros too.
    pub fn compact(&mut self, id: ParamId, mask: &BitMask) {
        if let Elements::F32(values) = &self.elements[id.0] {
            self.elements[id.0] = Elements::Compact(CompactWeight::new(mask.clone(), values));
        }
    }

    /// Which elements a compact matrix has.
    ///
    /// # Panics
    /// If it is not kept by [`Params::compact`].
    pub(crate) fn survivors(&self, id: ParamId) -> &RankedMask {
        match &self.elements[id.0] {
            Elements::Compact(weight) => weight.kept(),
            Elements::F32(_) | Elements::Bf16(_) => panic!("{} is kept with its zeros", self.spec(id).name),
        }
    }

    /// The values of a tensor that learn, and where those of its rows lie: all, or of a compact matrix what the mask keeps.
    ///
    /// # Panics
    /// If it was rounded by [`Params::round`].
    #[must_use]
    pub fn learning_mut(&mut self, id: ParamId) -> (&mut [f32], RowRanges<'_>) {
        let spec = &self.specs[id.0];
        match &mut self.elements[id.0] {
            Elements::F32(values) => (values, RowRanges::of_columns(spec.row_elements())),
            Elements::Bf16(_) => panic!("{} is kept in bf16", spec.name),
            Elements::Compact(weight) => weight.rows_mut(),
        }
    }

    /// Where the values of a tensor's rows lie, as [`Params::learning_mut`] has them.
    #[must_use]
    pub fn row_ranges(&self, id: ParamId) -> RowRanges<'_> {
        match &self.elements[id.0] {
            Elements::F32(_) | Elements::Bf16(_) => RowRanges::of_columns(self.spec(id).row_elements()),
            Elements::Compact(weight) => weight.kept().row_ranges(),
        }
    }

    /// Values of a tensor, row-major, as they are kept.
    ///
    /// # Panics
    /// If it is kept by [`Params::compact`].
    pub(crate) fn values(&self, id: ParamId) -> Values<'_> {
        match &self.elements[id.0] {
            Elements::F32(values) => values.into(),
            Elements::Bf16(values) => values.as_slice().into(),
            Elements::Compact(_) => panic!("{} is kept without its zeros", self.spec(id).name),
        }
    }

    /// A matrix as the kernels take it, masked where `masks` holds a mask for it; a compact one by its own.
    ///
    /// # Panics
    /// If the tensor is no matrix.
    #[must_use]
    pub fn weight<'a>(&'a self, id: ParamId, masks: Option<&'a Masks>) -> WeightRef<'a> {
        if let Elements::Compact(weight) = &self.elements[id.0] {
            return weight.into();
        }
        let [rows, cols] = self.matrix_shape(id);
        Weight { values: self.values(id), rows, cols, mask: masks.and_then(|m| m.get(id)) }.into()
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
