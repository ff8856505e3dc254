//! The micro-kernel in f32: a register tile of `C`, `MR` rows by `NV` vectors, summed over one depth block.

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};
use crate::base::{Portable, Simd};
use crate::gemm::block::{Init, OutputBlock};

/// Rows of `A` in memory: element (i, k) at `start + i * row + k * step` or, packed, in panels of the register tile's
/// rows.
#[derive(Clone, Copy)]
pub(crate) struct LeftRows {
    pub(crate) start: *const f32,
    pub(crate) row: usize,
    pub(crate) step: usize,
    pub(crate) packed: bool,
}

/// Adds the product of one depth block to a strip of `C`, at most `tile_cols` columns wide.
///
/// # Safety
/// * `c` is writable, and no other thread accesses it.
/// * `a` is valid for reads of `c.rows` rows of `steps` steps; if packed, of whole panels.
///
/// # Panics
/// If `rhs` is not a panel of `steps` and of the strip's columns, padded to whole vectors.
pub(crate) unsafe fn strip_product(c: OutputBlock, steps: usize, a: LeftRows, rhs: &[f32], start: Init<'_>) {
    // SAFETY: `c` and `a` are valid by the `# Safety` contract; the CPU has the instruction set that `isa` returns.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        match isa() {
            Isa::Avx512 => return x86::avx512(c, steps, a, rhs, start),
            Isa::Avx2 => return x86::avx2(c, steps, a, rhs, start),
            Isa::Portable => {}
        }
        strip::<Portable, 4, 2>(c, steps, a, rhs, start);
    }
}

/// [`strip()`] for each instruction set. The register tile is 8 x 3 vectors of 16 floats with AVX-512 and 6 x 2 vectors
/// of 8 with AVX2, whose 16 registers do not suffice for 4 x 3: with as many sums but more columns, the compiler
/// spills.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::{Init, LeftRows, OutputBlock, strip};

    macro_rules! strip {
        ($name:ident, $features:literal, $vector:ty, $rows:literal, $vectors:literal) => {
            /// # Safety
            /// As [`strip()`].
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(c: OutputBlock, steps: usize, a: LeftRows, rhs: &[f32], start: Init<'_>) {
                // SAFETY: the target features are those of the vector type; the rest is the `# Safety` contract.
                unsafe { strip::<$vector, $rows, $vectors>(c, steps, a, rhs, start) }
            }
        };
    }
    strip!(avx512, "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma", __m512, 8, 3);
    strip!(avx2, "avx2,fma", __m256, 6, 2);
}

/// All register tiles of a strip, `MR` rows by at most `NV` vectors.
///
/// # Safety
/// As [`strip_product`], and the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn strip<S: Simd, const MR: usize, const NV: usize>(
    c: OutputBlock,
    steps: usize,
    a: LeftRows,
    rhs: &[f32],
    start: Init<'_>,
) {
    // SAFETY: the `# Safety` contract is that of `row_tiles`; the match selects as many vectors as the strip has.
    unsafe {
        match (c.cols.div_ceil(S::LANES), a.packed) {
            (1, true) => row_tiles::<S, MR, 1, true>(c, steps, a, rhs, start),
            (1, false) => row_tiles::<S, MR, 1, false>(c, steps, a, rhs, start),
            (2, true) => row_tiles::<S, MR, 2, true>(c, steps, a, rhs, start),
            (2, false) => row_tiles::<S, MR, 2, false>(c, steps, a, rhs, start),
            (_, true) => row_tiles::<S, MR, NV, true>(c, steps, a, rhs, start),
            (_, false) => row_tiles::<S, MR, NV, false>(c, steps, a, rhs, start),
        }
    }
}

/// The widest register tile of any instruction set.
const MAX_COLS: usize = 48;

/// The highest register tile of any instruction set.
const MAX_ROWS: usize = 8;

/// All register tiles of a strip of at most `NV` vectors.
///
/// # Safety
/// As [`strip()`], and `a.packed` equals `PACKED`.
#[inline(always)]
unsafe fn row_tiles<S: Simd, const MR: usize, const NV: usize, const PACKED: bool>(
    c: OutputBlock,
    steps: usize,
    a: LeftRows,
    rhs: &[f32],
    start: Init<'_>,
) {
    let width = NV * S::LANES;
    assert!(rhs.len() == steps * width && c.cols <= width, "a packed panel of the strip's width");
    // padded, so that the tile can load whole vectors
    let mut bias = [0.0; MAX_COLS];
    if let Init::Bias(values) = start {
        bias[..values.len()].copy_from_slice(values);
    }
    let mut edge = [0.0; MAX_ROWS * MAX_COLS];
    for (panel, row) in (0..c.rows).step_by(MR).enumerate() {
        let rows = MR.min(c.rows - row);
        // SAFETY: `a` holds the rows `row..row + rows` by the `# Safety` contract; an unpacked row beyond the block is
        // replaced by the last row. `rhs` holds `steps` rows of `width`: asserted above. A full tile lies in `c`; an
        // edge tile is computed in `edge`, which holds `MR` rows of `width` floats, and `rows` x `c.cols` of them are
        // copied from and to `c`.
        unsafe {
            // An operand of depth 0 has no elements: its rows, which no tile reads, lie outside.
            let a_rows: [*const f32; MR] = std::array::from_fn(|i| match PACKED {
                true => a.start.wrapping_add(panel * steps * MR + i),
                false => a.start.wrapping_add((row + i.min(rows - 1)) * a.row),
            });
            let out = c.start.add(row * c.stride);
            if rows == MR && c.cols == width {
                tile::<S, MR, NV, PACKED>(steps, &a_rows, a.step, rhs.as_ptr(), out, c.stride, start, &bias);
                continue;
            }
            let edge = edge.as_mut_ptr();
            if matches!(start, Init::Accumulate) {
                for i in 0..rows {
                    std::ptr::copy_nonoverlapping(out.add(i * c.stride), edge.add(i * MAX_COLS), c.cols);
                }
            }
            tile::<S, MR, NV, PACKED>(steps, &a_rows, a.step, rhs.as_ptr(), edge, MAX_COLS, start, &bias);
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(edge.add(i * MAX_COLS), out.add(i * c.stride), c.cols);
            }
        }
    }
}

/// `MR` rows of `NV` vectors of `C`, held in registers over `steps` of the depth.
///
/// # Safety
/// * The CPU has the instruction set of `S`.
/// * Each of `a_rows` is valid for reads of `steps` floats, `step` apart. With `PACKED` instead, `a_rows[0]` is valid
///   for reads of `steps * MR` floats.
/// * `b` is valid for reads of `steps * NV` vectors.
/// * `c` is valid for reads and writes of `MR` rows of `NV` vectors, `stride` floats apart.
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const PACKED: bool>(
    steps: usize,
    a_rows: &[*const f32; MR],
    step: usize,
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    start: Init<'_>,
    bias: &[f32; MAX_COLS],
) {
    // SAFETY: the loops read `steps` factors of each row of `a_rows` and `steps * NV` vectors of `b`, and access `MR`
    // rows of `NV` vectors of `c`, all valid by the `# Safety` contract; `bias` holds `NV` vectors, at most `MAX_COLS`
    // floats.
    unsafe {
        let mut sums = [[S::zero(); NV]; MR];
        let mut at = 0;
        let packed = a_rows[0];
        for _ in 0..steps {
            let mut columns = [S::zero(); NV];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = S::load(b.add(v * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let factor = S::splat(if PACKED { packed.add(at + i) } else { a_rows[i].add(at) });
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = factor.mul_add(column, *sum);
                }
            }
            at += if PACKED { MR } else { step };
            b = b.add(NV * S::LANES);
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let out = c.add(i * stride + v * S::LANES);
                let sum = match start {
                    Init::Zero => sum,
                    Init::Bias(_) => sum.add(S::load(bias.as_ptr().add(v * S::LANES))),
                    Init::Accumulate => sum.add(S::load(out)),
                };
                sum.store(out);
            }
        }
    }
}
