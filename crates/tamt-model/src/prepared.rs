//! Which masked matrices the sparse kernel multiplies by, and copies of matrices in kernel layout.

use tamt_kernels::Precision;
use tamt_kernels::linear::{PackedFor, PackedWeight};
use tamt_kernels::masks::{BitMask, WeightRef};
use tamt_kernels::sparse::{PreparedFor, SparseWeight};

use crate::model::Model;
use crate::params::{Masks, ParamId, Params};

/// The density (share of kept weights) up to which the sparse kernel multiplies by a masked matrix of a layer.
///
/// In f32, forward passes and input gradients have the same bits under every choice; weight gradients differ in the
/// last bits. A resumed run therefore needs the choice of its first part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelChoice {
    sparse_up_to: f32,
}

impl KernelChoice {
    /// Never the sparse kernel.
    pub const DENSE: Self = Self { sparse_up_to: -1.0 };

    /// Always the sparse kernel.
    pub const SPARSE: Self = Self { sparse_up_to: 1.0 };

    /// The sparse kernel up to this density; a negative density means never.
    pub fn sparse_up_to(density: f32) -> Self {
        Self { sparse_up_to: density }
    }

    /// The highest density at which the sparse kernel multiplies; negative for never.
    pub fn density(self) -> f32 {
        self.sparse_up_to
    }

    /// Whether the sparse kernel multiplies by a matrix with this mask.
    pub fn is_sparse(self, mask: &BitMask) -> bool {
        mask.count_ones() as f32 <= self.sparse_up_to * mask.len() as f32
    }
}

/// A matrix of a layer in the layout of the kernel that multiplies by the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinearWeight<'a> {
    Dense(&'a PackedWeight),
    Sparse(&'a SparseWeight),
}

/// How a matrix is prepared.
#[derive(Clone, Debug)]
enum Prepared {
    Sparse(Box<SparseWeight>),
    /// Each pass prepares the matrix for the sparse kernel.
    SparseInPasses,
    Dense(PackedWeight),
}

/// Matrices of a model's layers in kernel layout.
///
/// The matrices are copies: a change of weights needs [`PreparedWeights::set_values`], a change of masks
/// [`PreparedWeights::set_masks`].
#[derive(Clone, Debug)]
pub struct PreparedWeights {
    choice: KernelChoice,
    precision: Precision,
    /// Whether each pass prepares the sparse matrices, because the masks change in each step.
    in_passes: bool,
    by_param: Vec<Option<Prepared>>,
}

impl PreparedWeights {
    /// All matrices, for forward passes in `precision`: for the sparse kernel up to the density of `choice`, else
    /// packed for the dense kernel.
    ///
    /// Without `masks`, the zeros of the weights (a pruned checkpoint's) count as dropped.
    pub fn for_inference(model: &Model, masks: Option<&Masks>, choice: KernelChoice, precision: Precision) -> Self {
        let of_weights = (masks.is_none() && choice != KernelChoice::DENSE).then(|| Masks::of_nonzero(model));
        let counted = masks.or(of_weights.as_ref());
        let mut new = Self::empty(model, choice, precision);
        for id in model.layer_matrices() {
            new.by_param[id.0] = Some(match counted.and_then(|masks| masks.get(id)) {
                Some(mask) if choice.is_sparse(mask) => {
                    let weight = model.params.weight(id, counted);
                    Prepared::Sparse(Box::new(SparseWeight::new(weight, PreparedFor::Forward, precision)))
                }
                _ => Prepared::Dense(PackedWeight::new(model.params.weight(id, masks), PackedFor::Forward, precision)),
            });
        }
        new
    }

    /// The matrices up to the density of `choice`, for training the weights under masks that are fixed for many steps.
    pub fn for_training(model: &Model, masks: &Masks, choice: KernelChoice, precision: Precision) -> Self {
        let mut new = Self::empty(model, choice, precision);
        new.set_masks(model, masks);
        new
    }

    /// For mask training, where masks change in each step: each pass prepares the matrices up to the density of
    /// `choice`, one layer at a time, so that only one layer's copies take memory.
    pub fn for_mask_training(model: &Model, masks: &Masks, choice: KernelChoice, precision: Precision) -> Self {
        let mut new = Self { in_passes: true, ..Self::empty(model, choice, precision) };
        new.set_masks(model, masks);
        new
    }

    fn empty(model: &Model, choice: KernelChoice, precision: Precision) -> Self {
        Self { choice, precision, in_passes: false, by_param: vec![None; model.params.ids().len()] }
    }

    /// The choice of kernels.
    pub fn choice(&self) -> KernelChoice {
        self.choice
    }

    /// The precision of the products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether the sparse kernel multiplies by the matrix.
    pub fn is_sparse(&self, id: ParamId) -> bool {
        matches!(self.by_param.get(id.0), Some(Some(Prepared::Sparse(_) | Prepared::SparseInPasses)))
    }

    /// The matrix in the sparse kernel's layout, if prepared so.
    pub fn sparse(&self, id: ParamId) -> Option<&SparseWeight> {
        if let Some(Prepared::Sparse(weight)) = self.by_param.get(id.0)? { Some(weight) } else { None }
    }

    /// The matrix in the dense kernel's layout, if prepared so.
    pub fn dense(&self, id: ParamId) -> Option<&PackedWeight> {
        if let Some(Prepared::Dense(weight)) = self.by_param.get(id.0)? { Some(weight) } else { None }
    }

    /// The matrix in the layout that `product` needs, if prepared so.
    pub(crate) fn weight(&self, id: ParamId, product: PackedFor) -> Option<LinearWeight<'_>> {
        match self.by_param.get(id.0)? {
            Some(Prepared::Sparse(weight)) => Some(LinearWeight::Sparse(weight)),
            Some(Prepared::Dense(weight)) if product == PackedFor::Forward => Some(LinearWeight::Dense(weight)),
            _ => None,
        }
    }

    /// Copies changed weights, under the same masks.
    pub fn set_values(&mut self, params: &Params) {
        for (i, prepared) in self.by_param.iter_mut().enumerate() {
            if let Some(Prepared::Sparse(sparse)) = prepared {
                sparse.set_values(params.weight(ParamId(i), None));
            }
        }
    }

    /// Prepares the matrices whose mask changed, for the same weights.
    pub fn set_masks(&mut self, model: &Model, masks: &Masks) {
        for id in model.layer_matrices() {
            let slot = &mut self.by_param[id.0];
            let Some(mask) = masks.get(id).filter(|mask| self.choice.is_sparse(mask)) else {
                *slot = None;
                continue;
            };
            match (slot, model.params.weight(id, Some(masks))) {
                (slot, _) if self.in_passes => *slot = Some(Prepared::SparseInPasses),
                (Some(Prepared::Sparse(sparse)), WeightRef::Dense(weight)) => {
                    sparse.set_mask(mask, weight.values);
                }
                (slot, weight) => {
                    let sparse = SparseWeight::new(weight, PreparedFor::Training, self.precision);
                    *slot = Some(Prepared::Sparse(Box::new(sparse)));
                }
            }
        }
    }
}
