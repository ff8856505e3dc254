//! Products of very large depth: the input gradient of a layer with as many outputs as a vocabulary has words.

use rayon::prelude::*;

use crate::base::{AlignedBuffer, Write, add_partials, with_buffer};
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::layout::{DEPTH_BLOCK, Side};
use crate::gemm::multiply::{LeftOperand, multiply};
use crate::gemm::operand::Operand;
use crate::gemm::panels::Panels;

/// Depth beyond which [`deep_product`] is faster than a product that is cut by rows and columns only. Miri, where inputs
/// are small, still divides one into jobs.
pub(crate) const DEEP: usize = if cfg!(miri) { DEEP_CHUNK } else { 16 * 1024 };

/// Steps of the depth of a job.
const DEEP_CHUNK: usize = 6 * DEPTH_BLOCK;

/// Upper limit of the rows of `C` that are computed together.
const DEEP_ROWS: usize = 384;

/// `C (+)= A B` for a depth much larger than `C`. Each job computes all of `C` for one chunk of the depth; then the
/// partial results are added in the order of the chunks.
pub(crate) fn deep_product(
    (m, n, depth): (usize, usize, usize),
    lhs: &Operand<'_>,
    rhs: &Operand<'_>,
    c: &mut [f32],
    mode: Write,
    scratch: &mut AlignedBuffer,
) {
    let precision = rhs.precision;
    let step = precision.depth_block();
    let group_rows = m.div_ceil(m.div_ceil(DEEP_ROWS).max(1)).max(1);
    for (group, c) in c.chunks_mut((group_rows * n).max(1)).enumerate() {
        let rows = group * group_rows..m.min((group + 1) * group_rows);
        let partials: &mut [f32] = scratch.get(depth.div_ceil(DEEP_CHUNK) * c.len());
        partials.par_chunks_mut(c.len()).enumerate().for_each(|(chunk, partial)| {
            let block = OutputBlock { start: partial.as_mut_ptr(), stride: n, rows: rows.len(), cols: n };
            let steps = chunk * DEEP_CHUNK..depth.min((chunk + 1) * DEEP_CHUNK);
            let lhs_len = Panels::len_in(precision, Side::Left, rows.len(), step).next_multiple_of(16);
            with_buffer(lhs_len + Panels::len_in(precision, Side::Right, n, step), |packed| {
                let (left, right) = packed.split_at_mut(lhs_len);
                for from in steps.clone().step_by(step) {
                    let part = from..steps.end.min(from + step);
                    let left = &mut left[..Panels::len_in(precision, Side::Left, rows.len(), part.len())];
                    let lhs = Panels::pack(Side::Left, lhs, rows.clone(), part.clone(), left);
                    let right = &mut right[..Panels::len_in(precision, Side::Right, n, part.len())];
                    let rhs = Panels::pack(Side::Right, rhs, 0..n, part.clone(), right);
                    let start = if from == steps.start { Init::Zero } else { Init::Accumulate };
                    // SAFETY: the block is all of `partial`, which this job borrows: `rows.len() * n` floats.
                    unsafe { multiply(block, LeftOperand::Packed(lhs, 0), rhs, 0, start) };
                }
            });
        });
        add_partials(partials, c, mode);
    }
}
