//! Products of bf16 operands from panels of tiles, by AMX or AVX-512-BF16.

pub(crate) mod amx;
pub(crate) mod amx_pipeline;
pub(crate) mod avx512;
pub(crate) mod in_place;
pub(crate) mod operands;
pub(crate) mod pack;
pub(crate) mod round;
pub(crate) mod rows;
pub(crate) mod unit;
