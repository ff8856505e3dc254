//! Which masked matrices are multiplied by the sparse kernel, and what that kernel reads.

use tamt_kernels::bits::BitMask;
use tamt_kernels::sparse::{Panels, PreparedFor, SparseWeight};

use crate::model::Model;
use crate::params::{Masks, ParamId, Params};

/// The density up to which masked matrices of the encoder's layers are multiplied by the sparse kernel.
///
/// Forward passes and input gradients are the same numbers under every choice; gradients of weights differ in the last bits. A
/// run that is to be resumed therefore keeps its choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelChoice {
    sparse_up_to: f32,
}

impl KernelChoice {
    /// Never the sparse kernel.
    pub const DENSE: Self = Self { sparse_up_to: -1.0 };

    /// Always the sparse kernel.
    pub const SPARSE: Self = Self { sparse_up_to: 1.0 };

    /// The choice with this highest density of sparsely multiplied matrices; none for a negative one.
    #[must_use]
    pub fn sparse_up_to(density: f32) -> Self {
        Self { sparse_up_to: density }
    }

    /// The highest density of a matrix that is multiplied by the sparse kernel; negative if none is.
    #[must_use]
    pub fn density(self) -> f32 {
        self.sparse_up_to
    }

    /// Whether a matrix with this mask is multiplied by the sparse kernel.
    #[must_use]
    pub fn is_sparse(self, mask: &BitMask) -> bool {
        mask.count_ones() as f32 <= self.sparse_up_to * mask.len() as f32
    }
}

/// The masked matrices of a model's layers that are multiplied by the sparse kernel, as it reads them.
///
/// They are copies: whoever changes weights or masks calls [`SparseWeights::set_values`] or
/// [`SparseWeights::set_masks`].
#[derive(Clone, Debug)]
pub struct SparseWeights {
    choice: KernelChoice,
    prepared_for: PreparedFor,
    by_param: Vec<Option<SparseWeight>>,
}

impl SparseWeights {
    /// What a pass that does not train needs, if anything: nothing where the dense kernel multiplies by all matrices.
    ///
    /// Without masks the zeros among the weights count, as a checkpoint with zeros has them. Whichever kernel multiplies,
    /// the result is the same.
    #[must_use]
    pub fn for_inference(model: &Model, masks: Option<&Masks>, choice: KernelChoice) -> Option<Self> {
        if choice == KernelChoice::DENSE {
            return None;
        }
        let of_weights = masks.is_none().then(|| Masks::of_nonzero(model));
        let new = Self::new(model, masks.or(of_weights.as_ref())?, choice, PreparedFor::Inference);
        (!new.is_empty()).then_some(new)
    }

    /// Prepares the matrices that `choice` is for.
    #[must_use]
    pub fn new(model: &Model, masks: &Masks, choice: KernelChoice, prepared_for: PreparedFor) -> Self {
        let mut new = Self { choice, prepared_for, by_param: vec![None; model.params.ids().len()] };
        new.set_masks(model, masks);
        new
    }

    /// The choice that it was made with.
    #[must_use]
    pub fn choice(&self) -> KernelChoice {
        self.choice
    }

    /// A matrix, if it is multiplied by the sparse kernel.
    #[must_use]
    pub fn get(&self, id: ParamId) -> Option<&SparseWeight> {
        self.by_param.get(id.0)?.as_ref()
    }

    /// Whether no matrix is multiplied by the sparse kernel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_param.iter().all(Option::is_none)
    }

    /// Follows changed weights.
    pub fn set_values(&mut self, params: &Params) {
        for (i, sparse) in self.by_param.iter_mut().enumerate() {
            if let Some(sparse) = sparse {
                sparse.set_values(params.get(ParamId(i)));
            }
        }
    }

    /// Follows changed masks over weights that are the same. Matrices whose mask is the same are left as they are.
    pub fn set_masks(&mut self, model: &Model, masks: &Masks) {
        for id in model.layer_matrices() {
            let slot = &mut self.by_param[id.0];
            let Some(mask) = masks.get(id).filter(|mask| self.choice.is_sparse(mask)) else {
                *slot = None;
                continue;
            };
            match slot {
                Some(sparse) => {
                    sparse.set_mask(mask, model.params.get(id));
                }
                None => *slot = Some(SparseWeight::new(model.params.weight(id, Some(masks)), self.prepared_for)),
            }
        }
    }
}

/// Buffers of the products that have sparse weights.
#[derive(Debug, Default)]
pub(crate) struct SparseBuffers {
    /// A layer's input.
    pub(crate) input: Panels,
    /// The gradient of its output.
    pub(crate) gradient: Panels,
    /// A dense weight gradient on its way to its survivors.
    pub(crate) weight_gradient: Vec<f32>,
}
