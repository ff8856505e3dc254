//! Linear layers of heads: their matrices are packed by each product.

use tamt_kernels::{Scratch, linear};

use crate::grads::{Grads, epilogue};
use crate::model::{Dense, Model};
use crate::pass::Pass;

impl Model {
    /// `y = x (W ∘ B)ᵀ + b`: `x` `[n, in]`, `y` `[n, out]`.
    pub(crate) fn linear(&self, dense: Dense, x: &[f32], pass: Pass<'_>, y: &mut [f32], scratch: &mut Scratch) {
        let bias = self.params.get(dense.bias);
        linear::forward(x, self.params.weight(dense.weight, pass.masks), Some(&bias), y, scratch);
    }

    /// Gradients of the weight (or score) and bias, where trainable: `dy` `[n, out]`, `x` `[n, in]`.
    pub(crate) fn linear_gradients(
        &self,
        dense: Dense,
        dy: &[f32],
        x: &[f32],
        pass: Pass<'_>,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) {
        if let Some((slot, mode, kind)) = grads.slot(dense.weight) {
            let [rows, cols] = self.params.matrix_shape(dense.weight);
            let epilogue = epilogue(kind, dense.weight, &self.params, pass.masks);
            linear::backward_weight(dy, x, rows, cols, epilogue, slot, mode, scratch);
        }
        if let Some((slot, mode, _)) = grads.slot(dense.bias) {
            linear::backward_bias(dy, slot, mode, scratch);
        }
    }
}
