//! How a forward or backward pass runs: masks, prepared matrices and dropout.

use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::sparse::SparseWeight;

use crate::dropout::{DropoutPlan, DropoutSite};
use crate::model::Dense;
use crate::params::Masks;
use crate::prepared::PreparedWeights;

/// Masks, prepared matrices and dropout of a pass. A backward pass takes the same as its forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass<'a> {
    /// Masks of the pruned matrices; `None` runs the dense model.
    pub masks: Option<&'a Masks>,
    /// Matrices in kernel layout, prepared for these masks and the model's weights. The pass packs any other matrix for
    /// the dense kernel.
    pub prepared: Option<&'a PreparedWeights>,
    /// Dropout of a training pass; `None` switches dropout off.
    pub dropout: Option<DropoutPlan>,
}

impl<'a> Pass<'a> {
    /// A pass without dropout.
    pub fn new(masks: Option<&'a Masks>, prepared: Option<&'a PreparedWeights>) -> Self {
        Self { masks, prepared, dropout: None }
    }

    /// The same pass with dropout.
    #[must_use]
    pub fn with_dropout(self, dropout: DropoutPlan) -> Self {
        Self { dropout: Some(dropout), ..self }
    }

    /// Dropout of the elements of a site from number `first` on.
    pub(crate) fn dropout(&self, site: DropoutSite, first: usize) -> Option<Dropout> {
        self.dropout.as_ref()?.at(site, first)
    }

    /// Whether the sparse kernel multiplies by the matrix.
    pub(crate) fn is_sparse(&self, dense: Dense) -> bool {
        self.prepared.is_some_and(|prepared| prepared.is_sparse(dense.weight))
    }

    /// The matrix for which the sparse kernel computes gradients of weights, if prepared so. Gradients of scores
    /// always take the dense kernel.
    pub(crate) fn sparse_gradient(&self, dense: Dense) -> Option<&'a SparseWeight> {
        self.prepared?.sparse(dense.weight)
    }
}
