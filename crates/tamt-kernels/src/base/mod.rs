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

pub(crate) use buffer::{AlignedBuffer, with_buffer, with_panels_and_floats, with_parts};
pub(crate) use cpu::{Bf16Unit, Isa, bf16, isa};
pub(crate) use dispatch::kernel;
pub(crate) use math::{LANES, exp, exp2, fma, max_of, normal_cdf, sum_by, sum_lanes, sum_of, tanh};
pub(crate) use parallel::{CHUNK, PARTIALS, Shared, is_inside_parallel_job, map_chunks, reduction_chunk, rows_per_job};
pub(crate) use precision::Precision;
pub(crate) use prefetch::{prefetch, store_fence};
pub(crate) use rng::{Stream, WIDE, philox_wide};
pub(crate) use scratch::Scratch;
pub(crate) use simd::{Portable, Simd};
pub(crate) use sums::{Write, add_bf16, add_elements, add_partials};
pub(crate) use values::{Number, Values, ValuesMut, Word, bf16_bits, round, round_in_place, widen};
