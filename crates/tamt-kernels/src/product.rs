//! The dense f32 matrix product `C = A B` that linear layers and attention are made of.
//!
//! Both operands are packed into panels: `[panels][steps][width]`, the elements that one step of the register tile needs
//! side by side, for a block of the depth at a time. The left operand `A` `[m, depth]` is packed once, so that a job
//! reads it front to back; each job packs its columns of the right operand `B` `[depth, n]` (masked on the way, so a
//! masked matrix never exists) and keeps the block in a near cache while its rows of `A` pass by. Every element
//! of `C` is a sum in order of the depth, broken at fixed steps of the depth only: how the work was split cannot be seen
//! in the result.

use std::ops::Range;

use rayon::prelude::*;

use crate::dispatch::{Isa, isa};
use crate::linear::{Write, add_elements, add_partials};
use crate::pack::Operand;
use crate::parallel::{Buffer, Shared, with_buffer};
use crate::simd::{Portable, Simd};

/// Steps of the depth that a panel block has: with 48 columns, 72 KB, a part of the second-level cache.
pub(crate) const DEPTH_BLOCK: usize = 384;

/// Rows of the register tile, the width of a panel of the left operand.
#[inline]
pub(crate) fn tile_rows() -> usize {
    match isa() {
        Isa::Avx512 => 8,
        Isa::Avx2 | Isa::Portable => 4,
    }
}

/// Columns of the register tile, the width of a panel of the right operand.
#[inline]
pub(crate) fn tile_cols() -> usize {
    match isa() {
        Isa::Avx512 => 48,
        Isa::Avx2 => 24,
        Isa::Portable => 8,
    }
}

/// Floats in a vector. Narrow panels of the right operand are this wide, or twice.
#[inline]
fn vector_lanes() -> usize {
    match isa() {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Portable => 4,
    }
}

/// Where a product's sums begin.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// `C = A B`
    Zero,
    /// `C = A B + bias`, one value per column of the block
    Bias(&'a [f32]),
    /// `C += A B`
    Sum,
}

/// A block of `C` in memory: element (i, j) at `start + i * stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// A packed left operand, `[depth blocks][row panels][steps][tile_rows]`.
#[derive(Clone, Copy)]
pub(crate) struct PackedLhs<'a> {
    data: &'a [f32],
    /// Rows in whole panels.
    padded_rows: usize,
    /// The steps of the depth that are packed.
    from: usize,
    to: usize,
}

impl<'a> PackedLhs<'a> {
    /// Floats that `rows` of `depth` steps take.
    pub(crate) fn len(rows: usize, depth: usize) -> usize {
        rows.next_multiple_of(tile_rows()) * depth
    }

    /// Packs rows and steps of an operand on this thread.
    pub(crate) fn pack(lhs: &Operand<'_>, rows: Range<usize>, depth: Range<usize>, out: &'a mut [f32]) -> Self {
        let padded_rows = rows.len().next_multiple_of(tile_rows());
        let mut from = depth.start;
        for out in out.chunks_mut((padded_rows * DEPTH_BLOCK).max(1)) {
            let to = depth.end.min(from + DEPTH_BLOCK);
            lhs.pack(rows.clone(), from..to, tile_rows(), out);
            from = to;
        }
        Self { data: out, padded_rows, from: depth.start, to: depth.end }
    }

    /// Packs all of an operand `[rows, depth]` on the current pool.
    fn pack_parallel(lhs: &Operand<'_>, rows: usize, depth: usize, out: &'a mut [f32]) -> Self {
        let padded_rows = rows.next_multiple_of(tile_rows());
        let job_rows = PACK_ROWS.next_multiple_of(tile_rows());
        out.par_chunks_mut((padded_rows * DEPTH_BLOCK).max(1)).enumerate().for_each(|(block, out)| {
            let from = block * DEPTH_BLOCK;
            let to = depth.min(from + DEPTH_BLOCK);
            out.par_chunks_mut((job_rows * (to - from)).max(1)).enumerate().for_each(|(job, out)| {
                lhs.pack(job * job_rows..rows.min((job + 1) * job_rows), from..to, tile_rows(), out);
            });
        });
        Self { data: out, padded_rows, from: 0, to: depth }
    }

    /// The panels from row `row` on, for the steps of `block`.
    fn panels(&self, row: usize, block: &Range<usize>) -> &'a [f32] {
        let (start, end) = (block.start - self.from, block.end - self.from);
        &self.data[start * self.padded_rows + row * block.len()..end * self.padded_rows]
    }
}

/// Rows that one job packs.
const PACK_ROWS: usize = 256;

/// One block of `C = A B`, on this thread. `first_row` is the block's first row in `lhs`, a multiple of the tile's;
/// `rhs` is packed here, a depth block of a panel at a time; `first_col` is the block's first column in it (with a mask,
/// a multiple of 8).
///
/// # Safety
/// The block must be writable and nobody else's.
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply(
    c: Block,
    lhs: PackedLhs<'_>,
    first_row: usize,
    rhs: &Operand<'_>,
    first_col: usize,
    start: Start<'_>,
) {
    let tile_cols = tile_cols();
    with_buffer(DEPTH_BLOCK * tile_cols, |packed| {
        let mut col = 0;
        while col < c.cols {
            let cols = tile_cols.min(c.cols - col);
            let width = cols.next_multiple_of(vector_lanes());
            let mut from = lhs.from;
            // at least once, so that a product of depth 0 still writes its start
            while from < lhs.to || from == lhs.from {
                let block = from..lhs.to.min(from + DEPTH_BLOCK);
                let packed = &mut packed[..block.len() * width];
                rhs.pack(first_col + col..first_col + col + cols, block.clone(), width, packed);
                let start = match start {
                    _ if from > lhs.from => Start::Sum,
                    Start::Bias(bias) => Start::Bias(&bias[col..col + cols]),
                    other => other,
                };
                // SAFETY: columns col..col+cols of the block.
                unsafe {
                    let strip = Block { start: c.start.add(col), cols, ..c };
                    strip_product(strip, block.len(), lhs.panels(first_row, &block), packed, start);
                }
                from += DEPTH_BLOCK;
            }
            col += cols;
        }
    });
}

/// Adds the depth block's share to a strip of at most `tile_cols` columns.
///
/// # Safety
/// As [`multiply`].
#[allow(unsafe_code)]
unsafe fn strip_product(c: Block, steps: usize, lhs: &[f32], rhs: &[f32], start: Start<'_>) {
    // SAFETY: the caller's, and `isa` names only instruction sets that are there.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => strip_avx512(c, steps, lhs, rhs, start),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => strip_avx2(c, steps, lhs, rhs, start),
            _ => strip::<Portable, 4, 2>(c, steps, lhs, rhs, start),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
#[allow(unsafe_code)]
unsafe fn strip_avx512(c: Block, steps: usize, lhs: &[f32], rhs: &[f32], start: Start<'_>) {
    // SAFETY: the caller's.
    unsafe { strip::<std::arch::x86_64::__m512, 8, 3>(c, steps, lhs, rhs, start) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
unsafe fn strip_avx2(c: Block, steps: usize, lhs: &[f32], rhs: &[f32], start: Start<'_>) {
    // SAFETY: the caller's.
    unsafe { strip::<std::arch::x86_64::__m256, 4, 3>(c, steps, lhs, rhs, start) }
}

/// All tiles of a strip. `MR` rows and `NV` vectors are the register tile; narrower strips use fewer vectors.
///
/// # Safety
/// As [`strip_product`], and the instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn strip<S: Simd, const MR: usize, const NV: usize>(
    c: Block,
    steps: usize,
    lhs: &[f32],
    rhs: &[f32],
    start: Start<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        match c.cols.div_ceil(S::LANES) {
            1 => tiles::<S, MR, 1>(c, steps, lhs, rhs, start),
            2 => tiles::<S, MR, 2>(c, steps, lhs, rhs, start),
            _ => tiles::<S, MR, NV>(c, steps, lhs, rhs, start),
        }
    }
}

/// The widest panel and the highest tile of any instruction set.
const MAX_COLS: usize = 48;
const MAX_ROWS: usize = 8;

/// All tiles of a strip of at most `NV` vectors.
///
/// # Safety
/// As [`strip`].
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn tiles<S: Simd, const MR: usize, const NV: usize>(
    c: Block,
    steps: usize,
    lhs: &[f32],
    rhs: &[f32],
    start: Start<'_>,
) {
    let width = NV * S::LANES;
    assert!(rhs.len() == steps * width && c.cols <= width, "a packed panel of the strip's width");
    // padded, so that the tile can load whole vectors
    let mut bias = [0.0; MAX_COLS];
    if let Start::Bias(values) = start {
        bias[..values.len()].copy_from_slice(values);
    }
    let mut edge = [0.0; MAX_ROWS * MAX_COLS];
    for (panel, row) in (0..c.rows).step_by(MR).enumerate() {
        let rows = MR.min(c.rows - row);
        let a = &lhs[panel * steps * MR..][..steps * MR];
        // SAFETY: the tile's rows and columns lie in the block; a full tile is written straight into it, a ragged one
        // goes through `edge`.
        unsafe {
            let out = c.start.add(row * c.stride);
            if rows == MR && c.cols == width {
                tile::<S, MR, NV>(steps, a.as_ptr(), rhs.as_ptr(), out, c.stride, start, &bias);
                continue;
            }
            let edge = edge.as_mut_ptr();
            if matches!(start, Start::Sum) {
                for i in 0..rows {
                    std::ptr::copy_nonoverlapping(out.add(i * c.stride), edge.add(i * MAX_COLS), c.cols);
                }
            }
            tile::<S, MR, NV>(steps, a.as_ptr(), rhs.as_ptr(), edge, MAX_COLS, start, &bias);
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(edge.add(i * MAX_COLS), out.add(i * c.stride), c.cols);
            }
        }
    }
}

/// `MR` rows of `NV` vectors of `C`, held in registers over `steps` of the depth.
///
/// # Safety
/// `a` has `steps` times `MR` floats, `b` `steps` times `NV` vectors, `c` `MR` rows of `NV` vectors; the instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
    steps: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    start: Start<'_>,
    bias: &[f32; MAX_COLS],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::zero(); NV]; MR];
        for _ in 0..steps {
            let mut columns = [S::zero(); NV];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = S::load(b.add(v * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let factor = S::splat(a.add(i));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = factor.mul_add(column, *sum);
                }
            }
            a = a.add(MR);
            b = b.add(NV * S::LANES);
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                let out = c.add(i * stride + v * S::LANES);
                let sum = match start {
                    Start::Zero => sum,
                    Start::Bias(_) => sum.add(S::load(bias.as_ptr().add(v * S::LANES))),
                    Start::Sum => sum.add(S::load(out)),
                };
                sum.store(out);
            }
        }
    }
}

/// A part of `C` that one job computes: some rows of one panel's columns.
pub(crate) struct Strip<'a> {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) col: usize,
    pub(crate) cols: usize,
    c: &'a Shared<'a, f32>,
    stride: usize,
    lhs: PackedLhs<'a>,
    rhs: &'a Operand<'a>,
}

impl Strip<'_> {
    /// Computes the strip in place.
    #[allow(unsafe_code)]
    pub(crate) fn multiply(&self, start: Start<'_>) {
        let c = self.c.pointer(self.row * self.stride + self.col);
        let block = Block { start: c, stride: self.stride, rows: self.rows, cols: self.cols };
        // SAFETY: the strips of a product are disjoint.
        unsafe { multiply(block, self.lhs, self.row, self.rhs, self.col, start) }
    }

    /// Computes the strip beside its place, and adds each row after `change` had it, with the row's number from 0.
    #[allow(unsafe_code)]
    pub(crate) fn add_product(&mut self, change: impl Fn(usize, &mut [f32])) {
        with_buffer(self.rows * self.cols, |aside| {
            let block = Block { start: aside.as_mut_ptr(), stride: self.cols, rows: self.rows, cols: self.cols };
            // SAFETY: the buffer is this thread's.
            unsafe { multiply(block, self.lhs, self.row, self.rhs, self.col, Start::Zero) };
            for (i, row) in aside.chunks_exact_mut(self.cols).enumerate() {
                change(i, row);
                add_elements(self.row_mut(i), row);
            }
        });
    }

    /// Row `i` of the strip in place, from 0.
    #[allow(unsafe_code)]
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let first = (self.row + i) * self.stride + self.col;
        // SAFETY: the strips of a product are disjoint, and this one is borrowed as a whole.
        unsafe { self.c.part(first..first + self.cols) }
    }
}

/// Strips that a product is cut into, where its shape allows: enough for many cores and an even end.
const STRIPS: usize = 24;

/// `C = A B` in strips on the current pool: `c` is `[m, n]`, `packed` has [`PackedLhs::len`] floats, `job` computes a strip.
pub(crate) fn product(
    (m, n, depth): (usize, usize, usize),
    lhs: &Operand<'_>,
    rhs: &Operand<'_>,
    c: &mut [f32],
    packed: &mut [f32],
    job: impl Fn(Strip<'_>) + Sync,
) {
    if m == 0 || n == 0 {
        return;
    }
    let (tile_rows, tile_cols) = (tile_rows(), tile_cols());
    let lhs = PackedLhs::pack_parallel(lhs, m, depth, packed);
    let panels = n.div_ceil(tile_cols);
    // few panels: cut the rows too, but keep enough of them to pay for packing the panel once more
    let groups = STRIPS.div_ceil(panels).min(m / (24 * tile_rows)).max(1);
    let group_rows = m.div_ceil(groups).next_multiple_of(tile_rows);
    let groups = m.div_ceil(group_rows);
    let c = Shared::new(c);
    (0..panels * groups).into_par_iter().for_each(|index| {
        // neighbours share rows, so that the packed rows are still in a cache
        let (group, panel) = (index / panels, index % panels);
        let (row, col) = (group * group_rows, panel * tile_cols);
        let rows = group_rows.min(m - row);
        let cols = tile_cols.min(n - col);
        job(Strip { row, rows, col, cols, c: &c, stride: n, lhs, rhs });
    });
}

/// A depth beyond this (a vocabulary) is cut as well: [`deep_product`].
pub(crate) const DEEP: usize = 16 * 1024;

/// Steps of the depth that a job of a deep product sums.
const DEEP_CHUNK: usize = 6 * DEPTH_BLOCK;

/// Rows of a deep product that are worked on together.
const DEEP_ROWS: usize = 256;

/// `C (+)= A B` where the depth is much larger than `C`: each job goes through a chunk of the depth once, front to back,
/// for all of `C`, and the chunks' results are added in order.
pub(crate) fn deep_product(
    (m, n, depth): (usize, usize, usize),
    lhs: &Operand<'_>,
    rhs: &Operand<'_>,
    c: &mut [f32],
    mode: Write,
    scratch: &mut Buffer,
) {
    for (group, c) in c.chunks_mut((DEEP_ROWS * n).max(1)).enumerate() {
        let rows = group * DEEP_ROWS..m.min((group + 1) * DEEP_ROWS);
        let partials = scratch.get(depth.div_ceil(DEEP_CHUNK) * c.len());
        partials.par_chunks_mut(c.len()).enumerate().for_each(|(chunk, partial)| {
            let block = Block { start: partial.as_mut_ptr(), stride: n, rows: rows.len(), cols: n };
            let steps = chunk * DEEP_CHUNK..depth.min((chunk + 1) * DEEP_CHUNK);
            with_buffer(PackedLhs::len(rows.len(), DEPTH_BLOCK), |packed| {
                for from in steps.clone().step_by(DEPTH_BLOCK) {
                    let steps = from..steps.end.min(from + DEPTH_BLOCK);
                    let packed = &mut packed[..PackedLhs::len(rows.len(), steps.len())];
                    let lhs = PackedLhs::pack(lhs, rows.clone(), steps.clone(), packed);
                    let start = if from % DEEP_CHUNK == 0 { Start::Zero } else { Start::Sum };
                    // SAFETY: the block is all of this job's partial result.
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply(block, lhs, 0, rhs, 0, start);
                    }
                }
            });
        });
        add_partials(partials, c, mode);
    }
}
