//! Arithmetic of BERT-family encoders on flat `f32` buffers.
//!
//! This crate knows no model, no file and no text. It has one module per operation, with `forward` and `backward` side by
//! side, shapes in the documentation, and below the code a comparison with a naive f64 version and with finite
//! differences. There is no tensor type and no tape: a buffer is a slice, row-major, and a shape is what the call says.
//!
//! # Masks
//!
//! Weights stay dense and frozen; a [`bits::BitMask`] says which of them take part. [`linear`] and [`embedding`] apply the
//! mask while they pack or look up the weights, so a masked copy never exists, and on the way back [`linear::GradEpilogue`]
//! turns the weight gradient into what is trained: the weights themselves, only the surviving ones, or the *scores*
//! that decide the mask (straight-through: every score gets `dW ∘ W`, dropped or not). [`select`] finds the cut that drops
//! exactly the k smallest.
//!
//! Where a mask drops much, [`sparse`] has the same products over the survivors alone.
//!
//! # Precision
//!
//! A [`linear::Scratch`] says what the operands of dense products are rounded to ([`Precision`]). TileSums are in f32.
//!
//! # Packed batches
//!
//! The tokens of all sequences lie end to end, `[T, hidden]`, with bounds where a sequence begins. Padding does not
//! exist; only [`attention`] and [`relation`] look at the bounds.
//!
//! # Determinism
//!
//! Everything runs on rayon's current pool and gives the same bits for any number of threads: work is cut by shapes
//! only, partial sums are added in order, and random numbers ([`rng`]) are functions of (seed, purpose, step, position).
//! Between CPUs with different instruction sets ([`dispatch`]) the last bits may differ.
//!
//! # Memory
//!
//! Buffers that survive a call grow once and are reused: those of a [`linear::Scratch`], which the caller keeps, and a few
//! that each thread keeps for its jobs. Mismatched shapes are programming errors and panic with a message.
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

pub use base::cpu::{Bf16Unit, Isa};
pub use base::parallel::inside_parallel_job;
pub use base::precision::{Precision, processor};
pub use base::rng;
pub use base::scratch::Scratch;
pub use base::sums::Write;
pub use base::values::{Values, ValuesMut, round, widen};
pub use gemm::peak::measure_peak_flops;
