//! Epilogues of bf16 products on AVX-512-BF16 and AMX.
//!
//! A product of bf16 pairs computes output tiles of 32 x 32 sums in f32. An
//! [`Epilogue`](crate::gemm::epilogue::Epilogue) handles a complete tile in parts of two rows (`PAIR`); on AMX the parts
//! run between the tile products of the next output tile.
//!
//! * [`rounded`]: adds the bias and stores bf16.
//! * [`activated`]: the fused FFN, forward and backward.
//! * [`gradient`]: applies a gradient epilogue and stores or adds f32 or bf16.
//! * [`survivors`]: gathers the survivors of a mask.
//!
//! Each part is inlined into a function with the target features of the product. The code therefore has loops in place
//! of closures: a closure that an iterator adapter calls would be compiled without these features.

pub(crate) mod activated;
pub(crate) mod gradient;
pub(crate) mod rounded;
pub(crate) mod survivors;
