//! Linear layers `y = x (W ∘ B)ᵀ + b` (`torch.nn.Linear` under a mask), forward and back to their input.

use tamt_kernels::linear::WeightOperand;
use tamt_kernels::sparse::TokenPanelsView;
use tamt_kernels::{ValuesMut, Write, linear, sparse};

use crate::plan::{DenseLinear, Linear};
use crate::prepared::LinearWeight;
use crate::workspace::LinearBuffers;

impl Linear<'_> {
    /// `y = x (W ∘ B)ᵀ + b`: `x` `[T, in]`, `y` `[T, out]`. `panels` are `x`, if already in panels.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        panels: Option<TokenPanelsView<'_>>,
        y: &mut [f32],
        buffers: &mut LinearBuffers,
    ) {
        match self.weight {
            LinearWeight::Dense(weight) => {
                let weight = WeightOperand::Packed(weight);
                let layer = linear::Projection { weight, bias: Some(&self.bias), output: y.into() };
                linear::forward_each(x, [layer], &mut buffers.kernels);
            }
            LinearWeight::Sparse(weight) => {
                let panels = panels.unwrap_or_else(|| buffers.input.pack(x, weight.cols()));
                sparse::forward(panels, weight, Some(&self.bias), y);
            }
        }
    }

    /// `dx (+)= dy (W ∘ B)`: `dy` `[T, out]`, `dx` `[T, in]`. `panels` are `dy`, if already in panels.
    pub(crate) fn input_gradient(
        &self,
        dy: &[f32],
        panels: Option<TokenPanelsView<'_>>,
        dx: &mut [f32],
        mode: Write,
        buffers: &mut LinearBuffers,
    ) {
        match self.weight {
            LinearWeight::Dense(weight) => linear::backward_input_packed(dy, weight, dx, mode, &mut buffers.kernels),
            LinearWeight::Sparse(weight) => {
                let panels = panels.unwrap_or_else(|| buffers.gradient.pack(dy, weight.rows()));
                sparse::backward_input(panels, weight, dx, mode);
            }
        }
    }

    /// The same linear layer, if its matrix is dense.
    pub(crate) fn as_dense(&self) -> Option<DenseLinear<'_>> {
        match self.weight {
            LinearWeight::Dense(weight) => Some(Linear { weight, bias: (&*self.bias).into() }),
            LinearWeight::Sparse(_) => None,
        }
    }
}

impl DenseLinear<'_> {
    /// The kernel's operands for this linear layer with output `y`.
    pub(crate) fn with_output<'b>(&'b self, y: impl Into<ValuesMut<'b>>) -> linear::Projection<'b> {
        linear::Projection { weight: WeightOperand::Packed(self.weight), bias: Some(&self.bias), output: y.into() }
    }
}
