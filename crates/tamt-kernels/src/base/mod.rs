//! Foundations of every kernel: processor features, parallel loops, buffers, element types, random numbers, vector
//! arithmetic.

pub(crate) mod buffer;
pub mod cpu;
pub(crate) mod dispatch;
pub(crate) mod math;
pub(crate) mod parallel;
pub(crate) mod precision;
pub(crate) mod prefetch;
pub mod rng;
pub(crate) mod scratch;
pub(crate) mod simd;
pub(crate) mod sums;
pub(crate) mod values;
