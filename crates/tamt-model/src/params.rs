//! The tensors of a model, and bit masks of some of them.

use std::borrow::Cow;

use half::bf16;
use tamt_kernels::masks::{BitMask, CompactWeight, RowRanges, Weight, WeightRef};

/// A tensor of a model, by its position in [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub(crate) usize);

impl ParamId {
    /// Position of the tensor in [`Params::ids`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// Name and shape of one tensor.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Canonical name: without the `bert.` or `roberta.` prefix.
    pub name: String,
    /// The name in the checkpoint that the tensor came from, or the name under which the tensor is written.
    pub checkpoint_name: String,
    /// `[rows, cols]` for a matrix, `[len]` for a vector.
    pub shape: Vec<usize>,
}

impl Spec {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// `[rows, cols]` of a matrix; a vector is one row.
    fn matrix_shape(&self) -> [usize; 2] {
        match self.shape.split_last() {
            Some((&cols, outer)) => [outer.iter().product(), cols],
            None => [1, 1],
        }
    }
}

/// A tensor with its elements, row-major.
#[derive(Clone, Debug)]
struct Tensor {
    spec: Spec,
    /// All elements in f32; empty where the storage is reduced.
    values: Vec<f32>,
    reduced: Option<Reduced>,
}

/// Storage that takes less memory than f32.
#[derive(Clone, Debug)]
enum Reduced {
    /// All elements, rounded.
    Bf16(Vec<bf16>),
    /// The elements that a mask keeps, in f32.
    Compact(CompactWeight),
}

impl Reduced {
    fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Self::Compact(weight) => weight.to_dense(),
        }
    }
}

impl Tensor {
    /// Reduces storage in f32; other storage stays as it is.
    fn reduce(&mut self, reduced: impl FnOnce(&[f32]) -> Reduced) {
        if self.reduced.is_none() {
            self.reduced = Some(reduced(&std::mem::take(&mut self.values)));
        }
    }

    /// Expands reduced storage to f32; returns all elements.
    fn expand(&mut self) -> &mut [f32] {
        if let Some(reduced) = self.reduced.take() {
            self.values = reduced.to_f32();
        }
        &mut self.values
    }
}

/// All tensors of a model, in the order of their declaration.
///
/// A tensor is stored in f32, rounded to bf16 ([`Params::round`]) or without its dropped elements
/// ([`Params::compact`]). Every accessor works on every storage.
#[derive(Clone, Debug, Default)]
pub struct Params {
    tensors: Vec<Tensor>,
}

impl Params {
    /// Declares a tensor without elements, which [`Params::fill_with_zeros`] adds.
    pub(crate) fn declare(&mut self, name: String, checkpoint_name: String, shape: &[usize]) -> ParamId {
        let spec = Spec { name, checkpoint_name, shape: shape.to_vec() };
        self.tensors.push(Tensor { values: Vec::new(), spec, reduced: None });
        ParamId(self.tensors.len() - 1)
    }

    /// Allocates all elements of a declared tensor.
    pub(crate) fn fill_with_zeros(&mut self, id: ParamId) {
        let tensor = &mut self.tensors[id.0];
        tensor.values = vec![0.0; tensor.spec.elements()];
    }

    /// Sets the elements of a declared matrix, and stores them without the dropped ones.
    pub(crate) fn set_compact(&mut self, id: ParamId, weight: CompactWeight) {
        self.tensors[id.0].reduced = Some(Reduced::Compact(weight));
    }

    /// Removes all tensors but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.tensors.truncate(len);
    }

    /// Every tensor, in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ParamId> + use<> {
        (0..self.tensors.len()).map(ParamId)
    }

    /// Name and shape of a tensor.
    pub fn spec(&self, id: ParamId) -> &Spec {
        &self.tensors[id.0].spec
    }

    /// Changes the name that a tensor is written under.
    pub(crate) fn rename(&mut self, id: ParamId, checkpoint_name: String) {
        self.tensors[id.0].spec.checkpoint_name = checkpoint_name;
    }

    /// The tensor of this canonical name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.tensors.iter().position(|tensor| tensor.spec.name == name).map(ParamId)
    }

    /// All elements of a tensor in f32: borrowed from a tensor in f32, else expanded.
    pub fn get(&self, id: ParamId) -> Cow<'_, [f32]> {
        let tensor = &self.tensors[id.0];
        match &tensor.reduced {
            None => tensor.values.as_slice().into(),
            Some(reduced) => reduced.to_f32().into(),
        }
    }

    /// All elements of a tensor, to write. The tensor is stored in f32 from here on.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        self.tensors[id.0].expand()
    }

    /// Replaces all elements of a tensor and leaves its storage as it is.
    ///
    /// # Panics
    /// If `values` has another length than the tensor.
    pub fn set(&mut self, id: ParamId, values: &[f32]) {
        let tensor = &mut self.tensors[id.0];
        match &mut tensor.reduced {
            None => tensor.values.copy_from_slice(values),
            Some(Reduced::Bf16(own)) => tamt_kernels::round(values, own),
            Some(Reduced::Compact(own)) => own.set_dense(values),
        }
    }

    /// Copies the elements and the storage of all tensors of the same model.
    pub fn set_all(&mut self, other: &Self) {
        for (own, other) in self.tensors.iter_mut().zip(&other.tensors) {
            own.values.clone_from(&other.values);
            own.reduced.clone_from(&other.reduced);
        }
    }

    /// Rounds a tensor in f32 to bf16, which takes half the memory. Products in bf16 round a frozen matrix anew in each
    /// pass otherwise.
    pub fn round(&mut self, id: ParamId) {
        self.tensors[id.0].reduce(|values| {
            let mut rounded = vec![bf16::ZERO; values.len()];
            tamt_kernels::round(values, &mut rounded);
            Reduced::Bf16(rounded)
        });
    }

    /// Removes from a matrix in f32 the elements that `mask` drops, which count as zero from here on. For matrices that
    /// are trained under a fixed mask.
    pub fn compact(&mut self, id: ParamId, mask: &BitMask) {
        self.tensors[id.0].reduce(|values| Reduced::Compact(CompactWeight::new(mask.clone(), values)));
    }

    /// The trainable elements of a tensor, and the range of each row among them: the surviving elements of a compact
    /// matrix, else all elements. A rounded tensor is stored in f32 from here on.
    pub fn learning_mut(&mut self, id: ParamId) -> (&mut [f32], RowRanges<'_>) {
        let tensor = &mut self.tensors[id.0];
        if let Some(Reduced::Bf16(_)) = tensor.reduced {
            tensor.expand();
        }
        match &mut tensor.reduced {
            Some(Reduced::Compact(weight)) => weight.rows_mut(),
            _ => (&mut tensor.values, RowRanges::of_columns(tensor.spec.matrix_shape()[1])),
        }
    }

    /// The range of each row among the elements that [`Params::learning_mut`] returns.
    pub fn row_ranges(&self, id: ParamId) -> RowRanges<'_> {
        let tensor = &self.tensors[id.0];
        match &tensor.reduced {
            Some(Reduced::Compact(weight)) => weight.kept().row_ranges(),
            _ => RowRanges::of_columns(tensor.spec.matrix_shape()[1]),
        }
    }

    /// A matrix in its storage, as the kernels take it, under its mask in `masks`; a compact matrix is under its own
    /// mask.
    pub fn weight<'a>(&'a self, id: ParamId, masks: Option<&'a Masks>) -> WeightRef<'a> {
        let tensor = &self.tensors[id.0];
        let values = match &tensor.reduced {
            None => tensor.values.as_slice().into(),
            Some(Reduced::Bf16(values)) => values.as_slice().into(),
            Some(Reduced::Compact(weight)) => return weight.into(),
        };
        let [rows, cols] = self.matrix_shape(id);
        Weight { values, rows, cols, mask: masks.and_then(|masks| masks.get(id)) }.into()
    }

    /// `[rows, cols]` of a matrix; a vector is one row.
    pub fn matrix_shape(&self, id: ParamId) -> [usize; 2] {
        self.spec(id).matrix_shape()
    }
}

/// One optional bit mask for each tensor of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    by_param: Vec<Option<BitMask>>,
}

impl Masks {
    /// The mask of a tensor, if the tensor has one.
    pub fn get(&self, id: ParamId) -> Option<&BitMask> {
        self.by_param.get(id.0)?.as_ref()
    }

    /// The mask of a tensor, if the tensor has one, to change in place.
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
