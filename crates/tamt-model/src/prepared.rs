//! Which masked matrices are multiplied by the sparse kernel, and copies of matrices as the kernels read them.

use rayon::prelude::*;
use tamt_kernels::Precision;
use tamt_kernels::linear::{PackedFor, PackedWeight};
use tamt_kernels::masks::BitMask;
use tamt_kernels::sparse::{PreparedFor, SparseWeight, TokenPanels};

use crate::encoder::Pass;
use crate::model::Model;
use crate::params::{Masks, ParamId, Params};

/// The density up to which masked matrices of the encoder's layers are multiplied by the sparse kernel.
///
/// In f32, forward passes and input gradients are the same numbers under every choice, and gradients of weights differ in the last bits.
/// A run that is to be resumed therefore keeps its choice.
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

/// A matrix as a kernel reads it.
#[derive(Clone, Debug)]
enum Prepared {
    Sparse(Box<SparseWeight>),
    /// For the sparse kernel by each pass.
    SparseInPasses,
    Dense(PackedWeight),
}

/// Matrices of a model's layers as the kernels read them.
///
/// They are copies: whoever changes weights or masks calls [`PreparedWeights::set_values`] or
/// [`PreparedWeights::set_masks`].
#[derive(Clone, Debug)]
pub struct PreparedWeights {
    choice: KernelChoice,
    precision: Precision,
    /// Whether masks change in each step.
    in_passes: bool,
    by_param: Vec<Option<Prepared>>,
}

impl PreparedWeights {
    /// For passes that train nothing, all matrices: for the sparse kernel where `choice` says so, and the others packed for dense
    /// products in `precision`.
    ///
    /// Without masks the zeros among the weights count, as a checkpoint with zeros has them.
    #[must_use]
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

    /// For training weights under masks that stay for many steps, the matrices that `choice` is for.
    #[must_use]
    pub fn for_training(model: &Model, masks: &Masks, choice: KernelChoice, precision: Precision) -> Self {
        let mut new = Self::empty(model, choice, precision);
        new.set_masks(model, masks);
        new
    }

    /// For training masks, which change in each step: each pass prepares the matrices that `choice` is for, those of a layer when it
    /// comes to it, and only these take memory.
    #[must_use]
    pub fn for_mask_training(model: &Model, masks: &Masks, choice: KernelChoice, precision: Precision) -> Self {
        let mut new = Self { in_passes: true, ..Self::empty(model, choice, precision) };
        new.set_masks(model, masks);
        new
    }

    fn empty(model: &Model, choice: KernelChoice, precision: Precision) -> Self {
        Self { choice, precision, in_passes: false, by_param: vec![None; model.params.ids().len()] }
    }

    /// The choice that it was made with.
    #[must_use]
    pub fn choice(&self) -> KernelChoice {
        self.choice
    }

    /// The precision of the products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether a matrix is multiplied by the sparse kernel.
    #[must_use]
    pub fn is_sparse(&self, id: ParamId) -> bool {
        matches!(self.by_param.get(id.0), Some(Some(Prepared::Sparse(_) | Prepared::SparseInPasses)))
    }

    /// A matrix, if it is prepared for the sparse kernel.
    #[must_use]
    pub fn sparse(&self, id: ParamId) -> Option<&SparseWeight> {
        match self.by_param.get(id.0)? {
            Some(Prepared::Sparse(weight)) => Some(weight),
            _ => None,
        }
    }

    /// A matrix, if it is packed for the dense kernel.
    #[must_use]
    pub fn dense(&self, id: ParamId) -> Option<&PackedWeight> {
        match self.by_param.get(id.0)? {
            Some(Prepared::Dense(weight)) => Some(weight),
            _ => None,
        }
    }

    /// Whether a forward pass finds a matrix prepared.
    pub(crate) fn has(&self, id: ParamId) -> bool {
        matches!(self.by_param[id.0], Some(Prepared::Sparse(_) | Prepared::Dense(_)))
    }

    /// Follows changed weights.
    pub fn set_values(&mut self, params: &Params) {
        for (i, prepared) in self.by_param.iter_mut().enumerate() {
            if let Some(Prepared::Sparse(sparse)) = prepared {
                sparse.set_values(params.weight(ParamId(i), None));
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
                _ if self.in_passes => *slot = Some(Prepared::SparseInPasses),
                Some(Prepared::Sparse(sparse)) => {
                    sparse.set_mask(mask, model.params.values(id));
                }
                _ => {
                    let weight = model.params.weight(id, Some(masks));
                    *slot = Some(Prepared::Sparse(Box::new(SparseWeight::new(
                        weight,
                        PreparedFor::Training,
                        self.precision,
                    ))));
                }
            }
        }
    }
}

/// Matrices of one layer, made ready for a pass that does not find them prepared.
#[derive(Debug, Default)]
pub(crate) struct LayerWeights {
    packed: [PackedWeight; 6],
    sparse: [SparseWeight; 6],
    made: [Option<(ParamId, Made)>; 6],
}

/// What was made of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Packed,
    Sparse,
}

impl LayerWeights {
    /// Makes the matrices of a layer ready that are not prepared for these products.
    pub(crate) fn make(
        &mut self,
        model: &Model,
        layer: usize,
        pass: Pass<'_>,
        product: PackedFor,
        precision: Precision,
    ) {
        // side by side: one alone has too few parts for an even end
        let maps = model.layers[layer].dense();
        let own = self.packed.par_iter_mut().zip(&mut self.sparse).zip(&mut self.made);
        own.zip(maps.par_iter()).with_max_len(1).for_each(|(((packed, sparse), made), dense)| {
            let id = dense.weight;
            let prepared = pass.prepared.is_some_and(|prepared| match product {
                PackedFor::Forward => prepared.has(id),
                PackedFor::InputGradient => prepared.sparse(id).is_some(),
            });
            let (weight, is_sparse) = (model.params.weight(id, pass.masks), pass.is_sparse(*dense));
            *made = (!prepared).then_some((id, if is_sparse { Made::Sparse } else { Made::Packed }));
            match made {
                None => {}
                Some((_, Made::Packed)) => packed.pack(weight, product, precision),
                Some((_, Made::Sparse)) => sparse.prepare(
                    weight,
                    match product {
                        PackedFor::Forward => PreparedFor::Forward,
                        PackedFor::InputGradient => PreparedFor::InputGradient,
                    },
                    precision,
                ),
            }
        });
    }

    fn position(&self, id: ParamId, made: Made) -> Option<usize> {
        self.made.iter().position(|own| *own == Some((id, made)))
    }

    /// A matrix, if it was packed for the dense kernel.
    pub(crate) fn packed(&self, id: ParamId) -> Option<&PackedWeight> {
        Some(&self.packed[self.position(id, Made::Packed)?])
    }

    /// A matrix, if it was prepared for the sparse kernel.
    pub(crate) fn sparse(&self, id: ParamId) -> Option<&SparseWeight> {
        Some(&self.sparse[self.position(id, Made::Sparse)?])
    }
}

/// Buffers of the products that have sparse weights.
#[derive(Debug, Default)]
pub(crate) struct SparseBuffers {
    /// A layer's input.
    pub(crate) input: TokenPanels,
    /// The gradient of its output.
    pub(crate) gradient: TokenPanels,
    /// An FFN before and after its activation.
    pub(crate) ffn: [TokenPanels; 2],
}
