//! Linear layers with masked weights: `y = x (W ∘ B)ᵀ + b`.

pub(crate) mod bias_gradient;
#[cfg(target_arch = "x86_64")]
pub(crate) mod epilogue;
pub(crate) mod ffn;
pub(crate) mod forward;
pub(crate) mod input_gradient;
pub(crate) mod packed_factor;
pub(crate) mod packed_input;
pub(crate) mod packed_weight;
pub(crate) mod portions;
pub(crate) mod saved_input;
pub(crate) mod weight_gradient;

pub use bias_gradient::{backward_bias, bias_gradient};
pub use ffn::{ActivatedGradient, backward_activated, forward_activated};
pub use forward::{Projection, forward, forward_each, forward_packed};
pub use input_gradient::{backward_input, backward_input_packed, backward_input_rows};
pub use packed_factor::{Factor, PackedFactor, PackedFactorPart};
pub use packed_input::PackedInput;
pub use packed_weight::{PackedFor, PackedWeight, WeightOperand};
pub use saved_input::saved_width;
pub use weight_gradient::{backward_weight, weight_gradient, weight_gradient_bf16};

#[cfg(test)]
mod tests;
