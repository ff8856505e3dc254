//! What a source of masks holds.

use std::path::Path;

use tamt_kernels::masks::BitMask;
use tamt_model::Model;

use crate::error::Error;

/// The forms of masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A tensor of zeros and ones for each matrix.
    Masks,
    /// A state dict with `weight_orig` and `weight_mask`.
    TorchPrune,
    /// A tensor with a bit for each weight of a matrix, and the values of the others.
    SparseBitmask,
    /// A checkpoint with zeros.
    Zeros,
}

impl Form {
    /// The form in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masks => "masks",
            Self::TorchPrune => "torch.nn.utils.prune",
            Self::SparseBitmask => "sparse-bitmask",
            Self::Zeros => "zeros of a checkpoint",
        }
    }
}

/// The masks of a source.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) form: Form,
    /// SHA-256 of the source, in hexadecimal.
    pub(super) sha256: String,
    /// Masks by canonical names.
    pub(super) masks: Vec<(String, BitMask)>,
    /// Matrices whose kept weights differ from those of the model.
    pub(super) other_weights: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Found {
    /// Adds the mask of a matrix. `weights` are those in the source; the matrix is remembered where kept ones differ from
    /// the model's.
    pub(super) fn add(&mut self, model: &Model, matrix: &str, mask: BitMask, weights: Option<&[f32]>) {
        let cols = mask.cols();
        let own = model.params.find(matrix).map(|id| model.params.get(id));
        if let (Some(own), Some(weights)) = (own, weights) {
            let mut pairs = own.iter().zip(weights).enumerate();
            if pairs.any(|(i, (a, b))| a != b && mask.get(i / cols, i % cols)) {
                self.other_weights.push(matrix.to_owned());
            }
        }
        self.masks.push((matrix.to_owned(), mask));
    }
}

/// The error of a source that makes no ticket.
pub(super) fn refused(path: &Path, reason: String) -> Error {
    Error::NoMasks { path: path.to_owned(), reason }
}
