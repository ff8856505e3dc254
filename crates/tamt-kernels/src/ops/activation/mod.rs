//! Elementwise activations.

pub(crate) mod functions;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gelu_table;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vectors;

pub use functions::{Activation, backward, backward_with_output, forward};
pub(crate) use functions::{apply, backward_part};
