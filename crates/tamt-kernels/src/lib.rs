//! Arithmetic of BERT-family encoders on flat buffers: masked linear layers, attention, losses, optimisers.

// The workspace forbids `unsafe` elsewhere. Here every block and function states its reason: `clippy::undocumented_unsafe_blocks`.
#![allow(unsafe_code)]
//!
//! The crate knows no model, no file and no text. It has no tensor type and no tape: a buffer is a row-major slice, the
//! call gives its shape, and every operation has its forward and its backward pass in one module.
//!
//! # Floors
//!
//! A module imports only from the floors below it:
//!
//! | floor | content |
//! |---|---|
//! | [`sparse`] | products over the surviving weights only: CSR in column blocks, panels of tokens, the density up to which they are taken |
//! | [`linear`] | products of a masked dense layer: forward, input, weight and bias gradient, fused feed-forward network |
//! | [`ops`] | attention, layer norm, embedding, activation, losses, dropout, optimisers, reductions |
//! | `gemm` | the dense product: layout of panels, packing, micro-kernels, epilogues (private; `docs/gemm.md` explains it) |
//! | [`masks`] | bit masks, selection of the k smallest, survivors, gather |
//! | [`base`] | CPU features, parallel loops, buffers, element types, random numbers, vector arithmetic |
//!
//! # Operands
//!
//! A kernel may assume, and checks with assertions where it costs nothing:
//!
//! * Buffers are row-major and contiguous, with the shapes that the documentation of the function gives. A mismatch is
//!   a programming error and panics.
//! * The tokens of all sequences of a batch lie end to end, `[T, hidden]`, without padding. Only [`ops::attention`] and
//!   [`ops::relation`] see where sequences begin, by their bounds.
//! * Weights are dense matrices; a [`masks::BitMask`] of the same rows and columns selects the weights that take part.
//!   Packing and look-ups apply the mask, so a masked matrix never exists in memory.
//! * Weights are f32 or bf16 ([`Values`]). A [`masks::GradEpilogue`] turns the gradient `dW` of all weights into the
//!   gradient of the trained quantity: all weights, the surviving weights, or the *scores* that decide the mask
//!   (straight-through: every score gets `dW ∘ W`, also the score of a dropped weight).
//! * The [`Scratch`] of a call fixes the [`Precision`] that operands of products are rounded to. Sums are in f32.
//!
//! # Determinism
//!
//! Everything runs on rayon's current pool and gives the same bits for any number of threads: the cut of the work
//! depends on shapes only, partial sums are added in a fixed order, and random numbers ([`rng`]) are functions of
//! (seed, purpose, step, position). The last bits may differ between CPUs with different instruction sets
//! ([`base::cpu`]).
//!
//! # Memory
//!
//! Large buffers are reused from call to call: the caller owns a [`Scratch`], and each thread has a pool of buffers for
//! its jobs. Both grow when needed and never shrink.
//!
//! # Example
//!
//! A masked layer, and the gradient of the scores of its mask:
//!
//! ```
//! use tamt_kernels::masks::{BitMask, GradEpilogue, Key, Weight, smallest_k};
//! use tamt_kernels::{Scratch, Write, linear};
//!
//! let weights = [0.5, -2.0, 0.1, 3.0, -0.2, 1.0]; // 2 outputs x 3 inputs
//! let mut mask = BitMask::ones(2, 3);
//! mask.keep_above(&weights, smallest_k(&[&weights], 3, Key::Magnitude), Key::Magnitude);
//! assert_eq!(mask.as_bytes(), [0b010, 0b101]);
//!
//! let mut scratch = Scratch::default();
//! let x = [1.0, 10.0, 100.0]; // one token
//! let mut y = [0.0; 2];
//! let w = Weight { values: (&weights).into(), rows: 2, cols: 3, mask: Some(&mask) };
//! linear::forward(&x, w, Some(&[0.5, 0.0]), &mut y, &mut scratch);
//! assert_eq!(y, [-19.5, 103.0]);
//!
//! let dy = [1.0, -1.0];
//! let mut score_gradient = [0.0; 6];
//! linear::backward_weight(&dy, &x, 2, 3, GradEpilogue::Score((&weights).into()), &mut score_gradient, Write::Store, &mut scratch);
//! assert_eq!(score_gradient, [0.5, -20.0, 10.0, -3.0, 2.0, -100.0]);
//! ```

mod gemm;

pub mod base;
pub mod linear;
pub mod masks;
pub mod ops;
pub mod sparse;

#[cfg(test)]
mod reference;

pub use base::cpu::{Bf16Unit, Isa, check_cap};
pub use base::parallel::inside_parallel_job;
pub use base::precision::{Precision, processor};
pub use base::rng;
pub use base::scratch::Scratch;
pub use base::sums::Write;
pub use base::values::{Values, ValuesMut, round, widen};
pub use gemm::peak::measure_peak_flops;
