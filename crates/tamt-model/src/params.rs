//! The weights of a model, and masks of some.

use half::bf16;
use tamt_kernels::Values;
use tamt_kernels::bits::BitMask;
use tamt_kernels::linear::Weight;

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
}

/// Elements of a tensor.
#[derive(Clone, Debug)]
enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
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
    /// If it was rounded by [`Params::round`].
    #[must_use]
    pub fn get(&self, id: ParamId) -> &[f32] {
        match &self.elements[id.0] {
            Elements::F32(values) => values,
            Elements::Bf16(_) => panic!("{} is kept in bf16", self.spec(id).name),
        }
    }

    /// Values of a tensor, row-major, to write.
    ///
    /// # Panics
    /// If it was rounded by [`Params::round`].
    #[must_use]
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        match &mut self.elements[id.0] {
            Elements::F32(values) => values,
            Elements::Bf16(_) => panic!("{} is kept in bf16", self.specs[id.0].name),
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

    /// Values of a tensor, row-major, as they are kept.
    pub(crate) fn values(&self, id: ParamId) -> Values<'_> {
        match &self.elements[id.0] {
            Elements::F32(values) => values.into(),
            Elements::Bf16(values) => values.as_slice().into(),
        }
    }

    /// A matrix as the kernels take it, masked where `masks` holds a mask for it.
    ///
    /// # Panics
    /// If the tensor is no matrix.
    #[must_use]
    pub fn weight<'a>(&'a self, id: ParamId, masks: Option<&'a Masks>) -> Weight<'a> {
        let [rows, cols] = self.matrix_shape(id);
        Weight { values: self.values(id), rows, cols, mask: masks.and_then(|m| m.get(id)) }
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
