//! Elementwise activation functions (`ACT2FN` of transformers).
//!
//! [`forward`] and [`backward`] process whole tensors. With AVX-512-BF16, epilogues of bf16 products apply the
//! functions of `vectors` to values in registers.

pub(crate) mod functions;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gelu_table;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vectors;

pub use functions::{Activation, backward, backward_with_output, forward};
pub(crate) use functions::{apply, backward_part};
