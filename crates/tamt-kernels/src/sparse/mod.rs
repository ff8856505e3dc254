//! Linear layers whose weights are sparse: the three products of [`crate::linear`] at the cost of the surviving weights.
//!
//! The weights are held as a [`SparseWeight`]: a compressed matrix for the forward product, and one of the transpose for the
//! input gradient. It is built from a masked matrix once; [`SparseWeight::set_values`] follows weights that learn under a
//! fixed mask, and [`SparseWeight::set_mask`] a mask that learns over fixed weights. Activations are packed into [`TokenPanels`]
//! first, so that several products share one packing (Q, K and V, or an input gradient and a weight gradient).
//!
//! A [`CompactWeight`] is a masked matrix as the list of its survivors, as weights under a mask that stays are kept. [`gather`]
//! takes survivors out of a whole matrix. [`break_even`] measures from which density on all of this pays.
//!
//! In what shape a product reads its operands follows the machine: panels of tokens wide enough to keep the units
//! for fused multiply-adds busy, and blocks of columns narrow enough for the nearest cache.
//!
//! # The same numbers as the dense product
//!
//! In f32 [`forward`] and [`backward_input`] add the same terms in the same order as their dense namesakes, less those that
//! are zero: the results are equal, however the kernel was chosen, as long as activations are finite. [`backward_weight`]
//! adds in another order and differs in the last bits.
//!
//! In bf16 operands are rounded where that is faster, which is where AVX-512-BF16 multiplies twice as many as AVX-512 and there
//! are no tile registers; sums are those of the dense product but for their last bits. Elsewhere the products are those of f32.
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
//! let mut dw = [0.0; 3]; // of the survivors -2.0, 3.0 and 1.0
//! sparse::backward_weight(&dy, &x, &w, GradLayout::Survivors, &mut dw, Write::Store);
//! assert_eq!(dw, [10.0, -1.0, -100.0]);
//! ```

#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub(crate) mod block_rows;
pub(crate) mod break_even;
pub(crate) mod csr;
pub(crate) mod panel_rows;
pub(crate) mod product;
pub(crate) mod products;
pub(crate) mod token_panels;
pub(crate) mod transpose;
pub(crate) mod weight;
pub(crate) mod weight_gradient;

pub use break_even::break_even;
pub use products::{backward_input, backward_input_to_panels, forward, forward_to_panels};
pub use token_panels::{TokenPanels, TokenPanelsPart, TokenPanelsView};
pub use weight::{PreparedFor, SparseWeight};
pub use weight_gradient::{GradLayout, backward_weight, backward_weight_and_bias, bias_gradient};

#[cfg(test)]
mod tests;
