//! `LayerNorm(residual + dropout(x))`, the end of every sub-layer.

use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::ops::layer_norm::SavedStatistics;
use tamt_kernels::ops::{dropout, layer_norm};
use tamt_kernels::{Scratch, Write};

use crate::plan::LayerNorm;
use crate::saved_norm::NormView;

impl LayerNorm<'_> {
    /// `s = residual + dropout(x)`, `y = (s - mean) rstd γ + β`: `[T, hidden]` each; `x` is overwritten.
    ///
    /// `BertSelfOutput.LayerNorm` and `BertOutput.LayerNorm` with the dropout and the sum in front of them.
    pub(crate) fn forward(
        &self,
        x: &mut [f32],
        residual: Option<&[f32]>,
        dropout: Option<Dropout>,
        y: &mut [f32],
        saved: Option<SavedStatistics<'_>>,
    ) {
        layer_norm::forward(x, residual, dropout, &self.gamma, &self.beta, self.eps, y, saved);
    }

    /// `ds` from `dy`, `[T, hidden]` each, and `(dγ, dβ)`, stored or added as the mode says, if `gradients` is given.
    ///
    /// With `n = (s - mean) rstd` and `g = dy γ`: `ds = rstd (g - mean(g) - n mean(g n))`, `dγ = Σ dy n`, `dβ = Σ dy`.
    pub(crate) fn backward(
        &self,
        dy: &[f32],
        saved: NormView<'_>,
        ds: &mut [f32],
        gradients: Option<(&mut [f32], &mut [f32], Write)>,
        scratch: &mut Scratch,
    ) {
        let NormView { sum, mean, rstd } = saved;
        layer_norm::backward(dy, sum, mean, rstd, &self.gamma, ds, gradients, scratch);
    }
}

/// `dx` from `ds`, through the dropout of [`LayerNorm::forward`].
pub(super) fn dropout_backward(ds: &[f32], dx: &mut [f32], dropout: Option<Dropout>) {
    match dropout {
        None => dx.copy_from_slice(ds),
        Some(dropout) => dropout::apply_to(ds, dx, dropout),
    }
}
