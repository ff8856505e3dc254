use crate::base::sums::Write;
use crate::gemm::block::Init;
use crate::sparse::product::{Output, product};
use crate::sparse::token_panels::{TokenPanelsPart, TokenPanelsView};
use crate::sparse::weight::SparseWeight;

/// `y = x (W ∘ B)ᵀ + b`: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]`.
///
/// # Panics
/// If the shapes do not match, or the weight was prepared for [`PreparedFor::InputGradient`].
pub fn forward(x: TokenPanelsView<'_>, w: &SparseWeight, bias: Option<&[f32]>, y: &mut [f32]) {
    product(x, w.forward(), bias_start(bias, w), Output::Rows(y));
}

/// [`forward`] into panels, for a next product; what is computed of padding there is finite where all else is.
///
/// # Panics
/// As [`forward`].
pub fn forward_to_panels(x: TokenPanelsView<'_>, w: &SparseWeight, bias: Option<&[f32]>, y: &mut TokenPanelsPart<'_>) {
    product(x, w.forward(), bias_start(bias, w), Output::TokenPanels(y));
}

fn bias_start<'a>(bias: Option<&'a [f32]>, w: &SparseWeight) -> Init<'a> {
    assert!(bias.is_none_or(|bias| bias.len() == w.rows()), "a bias per output feature");
    bias.map_or(Init::Zero, Init::Bias)
}

/// `dx (+)= dy (W ∘ B)`: `dy` `[T, rows]`, `dx` `[T, cols]`.
///
/// # Panics
/// If the shapes do not match, or the weight was prepared for [`PreparedFor::Forward`].
pub fn backward_input(dy: TokenPanelsView<'_>, w: &SparseWeight, dx: &mut [f32], mode: Write) {
    let start = if mode == Write::Add { Init::Accumulate } else { Init::Zero };
    product(dy, w.transposed(), start, Output::Rows(dx));
}

/// [`backward_input`] into panels, zero in padding.
///
/// # Panics
/// As [`backward_input`].
pub fn backward_input_to_panels(dy: TokenPanelsView<'_>, w: &SparseWeight, dx: &mut TokenPanelsPart<'_>) {
    product(dy, w.transposed(), Init::Zero, Output::TokenPanels(dx));
}
