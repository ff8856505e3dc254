//! Linear layers with masked weights: `y = x (W ∘ B)ᵀ + b`.
//!
//! `x` `[T, cols]`, `W` and its mask `B` `[rows, cols]`, `b` `[rows]`, `y` `[T, rows]`; all matrices are row-major.
//!
//! | product | formula | from plain operands | from packed operands |
//! |---|---|---|---|
//! | output | `y = x (W ∘ B)ᵀ + b` | [`forward()`], [`forward_each`] | [`forward_packed`] |
//! | input gradient | `dx = dy (W ∘ B)` | [`backward_input`] | [`backward_input_packed`], [`backward_input_rows`] |
//! | weight gradient | `dW = epilogue(dyᵀ x)` | [`backward_weight`] | [`weight_gradient()`], [`weight_gradient_bf16`] |
//! | bias gradient | `db = Σ_t dy[t]` | [`backward_bias`] | [`bias_gradient()`] |
//! | fused FFN, first half | `f(x (W ∘ B)ᵀ + b)` | [`forward_activated`] | |
//! | its gradient | `du = dy W ∘ f'(u)` | | [`backward_activated`] |
//!
//! # The way of an operand
//!
//! A [`Weight`](crate::masks::Weight) or a [`CompactWeight`](crate::masks::CompactWeight) is packed into panels, masked
//! and rounded to the precision of the product: by each call, or once as a [`PackedWeight`]. The other operand is
//! packed by each call, or by the operation that computes the operand: [`PackedInput`] for the next product,
//! [`PackedFactor`] for weight gradients. The product of two packed operands is cut into strips of `C`, and an epilogue
//! turns the sums of each strip into the output while the sums are in L1 or L2: bias, activation,
//! [`GradEpilogue`](crate::masks::GradEpilogue), rounding to bf16, and packing for the next product.
//!
//! The private module `epilogue` has the epilogues of bf16 products on AVX-512-BF16 and AMX. Other products write plain
//! sums in place; for any other output they write the sums to a scratch block in L1 or L2 and transform the block.

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
mod fused_tests;
#[cfg(test)]
mod tests;
