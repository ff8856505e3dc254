//! Linear layers with sparse weights: the three products of [`crate::linear`] at the cost of the surviving weights.
//!
//! A [`SparseWeight`] holds a masked matrix in compressed sparse rows (CSR): the matrix for forward products and
//! weight gradients, its transpose for input gradients. [`SparseWeight::set_values`] follows weights that are trained
//! under a fixed mask; [`SparseWeight::set_mask`] follows a mask that is trained over fixed weights.
//!
//! Products read activations from [`TokenPanels`], so that several products share one packing: Q, K and V, or an input
//! gradient and a weight gradient. The products are [`forward`], [`backward_input`] and [`backward_weight`];
//! [`forward_to_panels`] and [`backward_input_to_panels`] write panels for a following product.
//! [`break_even`](break_even()) is the density up to which they are used rather than the dense ones.
//!
//! The sizes of panels and of column blocks depend on the processor: the sums of one output feature for all tokens of a
//! panel fill the registers, and the activations of a column block fit the L1 cache.
//!
//! # Equality with the dense product
//!
//! In f32 [`forward`] and [`backward_input`] add the same terms in the same order as their dense counterparts, except
//! for the terms that are zero: with finite activations the results are equal, on every processor. [`backward_weight`]
//! adds in another order and differs in the last bits.
//!
//! [`Precision::Bf16`](crate::Precision::Bf16) rounds the weights. On processors that have AVX-512-BF16 and no AMX,
//! where bf16 is faster, it rounds the other operands too, and the sums differ from those of the dense product in the
//! last bits. On other processors the products are those of f32 with the rounded weights.
//!
//! # Example
//!
//! ```
//! use tamt_kernels::masks::{BitMask, Weight};
//! use tamt_kernels::{Precision, Write};
//! use tamt_kernels::sparse::{self, GradLayout, TokenPanels, PreparedFor, SparseWeight};
//!
//! let weights = [0.5, -2.0, 0.1, 3.0, -0.2, 1.0]; // 2 outputs x 3 inputs
//! let mask = BitMask::from_bytes(2, 3, vec![0b010, 0b101]).unwrap();
//! let w = Weight { values: (&weights).into(), rows: 2, cols: 3, mask: Some(&mask) };
//! let w = SparseWeight::new(w, PreparedFor::Training, Precision::F32);
//!
//! let mut x = TokenPanels::default();
//! let mut y = [0.0; 2];
//! sparse::forward(x.pack(&[1.0, 10.0, 100.0], 3), &w, Some(&[0.5, 0.0]), &mut y); // one token
//! assert_eq!(y, [-19.5, 103.0]);
//!
//! let mut dy = TokenPanels::default();
//! let mut dx = [0.0; 3];
//! sparse::backward_input(dy.pack(&[1.0, -1.0], 2), &w, &mut dx, Write::Store);
//! assert_eq!(dx, [-3.0, -2.0, -1.0]);
//!
//! let mut dw = [0.0; 3]; // the gradients of -2.0, 3.0 and 1.0
//! sparse::backward_weight(&dy, &x, &w, GradLayout::Survivors, &mut dw, Write::Store);
//! assert_eq!(dw, [10.0, -1.0, -100.0]);
//! ```

#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod break_even;
pub(crate) mod csr;
pub(crate) mod product;
pub(crate) mod product_kernel;
pub(crate) mod token_panels;
pub(crate) mod transpose;
pub(crate) mod weight;
pub(crate) mod weight_gradient;
pub(crate) mod weight_gradient_kernel;

pub use break_even::break_even;
pub use product::{backward_input, backward_input_to_panels, forward, forward_to_panels};
pub use token_panels::{TokenPanels, TokenPanelsPart, TokenPanelsView};
pub use weight::{PreparedFor, SparseWeight};
pub use weight_gradient::{GradLayout, backward_weight, backward_weight_and_bias, bias_gradient};

#[cfg(test)]
mod tests;
