//! The dense matrix product `C = A B` that linear layers and attention are made of: of f32, or of bf16 with sums in f32.
//!
//! Large operands are packed into panels (see [`crate::pack`]), the elements that one step of the register tile needs
//! side by side, masked on the way, so that a masked matrix never exists. A job computes a block of `C` whose rows of `A`
//! fit the second-level cache for a block of the depth; one panel of `B` at a time stays in the first-level cache while
//! those rows pass by. Every element of `C` is a sum in order of the depth, broken at fixed steps of the depth only: how
//! the work was split cannot be seen in the result.

use std::ops::Range;

use rayon::prelude::*;

use crate::dispatch::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use crate::linear::InPlace;
use crate::linear::add_elements;
use crate::pack::{Operand, Order, Panels, Side};
use crate::parallel::{Buffer, Shared, is_one_of_many, with_buffer};
use crate::precision::{Precision, Values};
use crate::simd::{Portable, Simd};
#[cfg(target_arch = "x86_64")]
use crate::tiles::{self, Multiplier};

mod deep;
pub(crate) use deep::{DEEP, deep_product};

/// Words of a lane (steps of the depth, in bf16 pairs of them) in a block of panels: a panel of `B` then has 24 KB with AVX2, a part of the first-level cache, and
/// 72 KB with AVX-512, a part of the second-level cache.
pub(crate) const DEPTH_BLOCK: usize = 384;

/// Rows of a tile register of AMX, and words in a row of it. Products on them take two of a left operand and two of a right
/// one at a time; a right panel is as wide as both.
pub(crate) const TILE: usize = 16;

/// Rows of the register tile, the width of a panel of the left operand.
#[inline]
pub(crate) fn tile_rows(precision: Precision) -> usize {
    match isa() {
        Isa::Avx512 if precision.by_tiles() => TILE,
        Isa::Avx512 => 8,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

/// Columns of the register tile, the width of a panel of the right operand.
#[inline]
pub(crate) fn tile_cols(precision: Precision) -> usize {
    match isa() {
        Isa::Avx512 if precision.by_tiles() => 2 * TILE,
        Isa::Avx512 => 48,
        Isa::Avx2 => 16,
        Isa::Portable => 8,
    }
}

/// Floats in a vector. The last panel of a right operand is some vectors wide.
#[inline]
pub(crate) fn vector_lanes() -> usize {
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

impl<'a> Start<'a> {
    /// The start for columns `cols` of the block, in a depth block that is the first one or not.
    fn of(self, cols: Range<usize>, first: bool) -> Self {
        match self {
            _ if !first => Self::Sum,
            Self::Bias(bias) => Self::Bias(&bias[cols]),
            other => other,
        }
    }
}

/// A block of `C` in memory: element (i, j) at `start + i * stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// A left operand: packed for large products, as it lies for small ones, whose rows stay in the first-level cache.
#[derive(Clone, Copy)]
pub(crate) enum Lhs<'a> {
    /// Packed, from a row that begins a panel.
    Packed(Panels<'a>, usize),
    /// From the first element of its data; without a mask.
    Plain(Operand<'a>),
}

/// Steps of the depth from which on squares of tiles are finished in parts, on tile registers beside others' products: shorter ones
/// have too few to do it between.
#[cfg(target_arch = "x86_64")]
const DEEP_SQUARES: usize = 256;

/// `C (+)= A B`, on this thread. `first_col` is the block's first column in `rhs`, where a panel begins. The depth is that of `rhs`.
///
/// # Safety
/// The block must be writable and nobody else's.
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply(c: Block, lhs: Lhs<'_>, rhs: Panels<'_>, first_col: usize, start: Start<'_>) {
    if let Lhs::Plain(a) = lhs {
        let (rows, cols) = if a.order == Order::LaneRows { (c.rows, rhs.depth()) } else { (rhs.depth(), c.rows) };
        assert!(rows * cols == 0 || a.data.len() >= (rows - 1) * a.stride + cols, "the left operand holds the block");
        assert!(a.mask.is_none(), "a left operand without a mask");
        assert_eq!(rhs.precision(), Precision::F32, "a right operand of the left one's precision");
    }
    let precision = rhs.precision();
    let width = tile_cols(precision);
    #[cfg(target_arch = "x86_64")]
    let tiles = Multiplier::new(precision);
    #[cfg(target_arch = "x86_64")]
    if let (Some(tiles), Lhs::Packed(lhs, row), DEEP_SQUARES..) = (&tiles, lhs, rhs.depth()) {
        let mut finish = InPlace { out: c, start };
        // SAFETY: the caller's.
        return unsafe { tiles::squares(tiles, (row, c.rows), (first_col, c.cols), lhs, rhs, &mut finish) };
    }
    let mut from = 0;
    // at least once, so that a product of depth 0 still writes its start
    while from < rhs.depth() || from == 0 {
        let block = from..rhs.depth().min(from + precision.depth_block());
        let steps = precision.words(block.len());
        let a = match lhs {
            Lhs::Packed(panels, row) => {
                assert_eq!(panels.precision(), precision, "operands of one precision");
                let a = panels.panels_at(row, &block);
                assert!(
                    a.len() >= c.rows.next_multiple_of(tile_rows(precision)) * steps,
                    "the left operand holds the block"
                );
                Rows { start: a.as_ptr(), row: 1, step: tile_rows(precision), packed: true }
            }
            Lhs::Plain(Operand { data, stride, order, .. }) => {
                let Values::F32(data) = data else { panic!("a left operand that is read where it lies is in f32") };
                let (row, step) = if order == Order::LaneRows { (stride, 1) } else { (1, stride) };
                Rows { start: data.as_ptr().wrapping_add(from * step), row, step, packed: false }
            }
        };
        for col in (0..c.cols).step_by(width) {
            let cols = width.min(c.cols - col);
            let panel = &rhs.panels_at(first_col + col, &block)[..cols.next_multiple_of(vector_lanes()) * steps];
            // SAFETY: columns col..col + cols of the block; the left operand was checked.
            unsafe {
                let strip = Block { start: c.start.add(col), cols, ..c };
                let start = start.of(col..col + cols, from == 0);
                #[cfg(target_arch = "x86_64")]
                if let Some(tiles) = &tiles {
                    tiles::strip(tiles, strip, steps, a.start, panel, start);
                    continue;
                }
                strip_product(strip, steps, a, panel, start);
            }
        }
        from += precision.depth_block();
    }
}

/// A left operand's rows in memory: element (i, k) at `start + i * row + k * step`, or, packed, panels of the tile's rows.
#[derive(Clone, Copy)]
struct Rows {
    start: *const f32,
    row: usize,
    step: usize,
    packed: bool,
}

/// Adds the depth block's share to a strip of at most `tile_cols` columns.
///
/// # Safety
/// As [`multiply`]; `a` holds the strip's rows and `steps` steps, whole panels if it is packed.
#[allow(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
unsafe fn strip_product(c: Block, steps: usize, a: Rows, rhs: &[f32], start: Start<'_>) {
    // SAFETY: the caller's, and only instruction sets that are there are named.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::avx512(c, steps, a, rhs, start),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2(c, steps, a, rhs, start),
            _ => strip::<Portable, 4, 2>(c, steps, a, rhs, start),
        }
    }
}

/// [`strip`] for each instruction set and precision. The register tile is 8 x 3 vectors of sixteen, 6 x 2 of eight: with 4 x
/// 3 of eight, as many sums, the compiler runs out of the sixteen registers and spills.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256, __m512};

    use super::{Block, Rows, Start, strip};

    macro_rules! strip {
        ($name:ident, $features:literal, $vector:ty, $rows:literal, $vectors:literal) => {
            #[target_feature(enable = $features)]
            #[allow(unsafe_code)]
            pub(super) unsafe fn $name(c: Block, steps: usize, a: Rows, rhs: &[f32], start: Start<'_>) {
                // SAFETY: the caller's.
                unsafe { strip::<$vector, $rows, $vectors>(c, steps, a, rhs, start) }
            }
        };
    }
    strip!(avx512, "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma", __m512, 8, 3);
    strip!(avx2, "avx2,fma", __m256, 6, 2);
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
    a: Rows,
    rhs: &[f32],
    start: Start<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        match (c.cols.div_ceil(S::LANES), a.packed) {
            (1, true) => tiles::<S, MR, 1, true>(c, steps, a, rhs, start),
            (1, false) => tiles::<S, MR, 1, false>(c, steps, a, rhs, start),
            (2, true) => tiles::<S, MR, 2, true>(c, steps, a, rhs, start),
            (2, false) => tiles::<S, MR, 2, false>(c, steps, a, rhs, start),
            (_, true) => tiles::<S, MR, NV, true>(c, steps, a, rhs, start),
            (_, false) => tiles::<S, MR, NV, false>(c, steps, a, rhs, start),
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
unsafe fn tiles<S: Simd, const MR: usize, const NV: usize, const PACKED: bool>(
    c: Block,
    steps: usize,
    a: Rows,
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
        // SAFETY: the tile's rows and columns lie in the block; a full tile is written straight into it, a ragged one
        // goes through `edge`. Rows beyond the block are read as its last one where they are not padding.
        unsafe {
            let a_rows: [*const f32; MR] = std::array::from_fn(|i| match PACKED {
                true => a.start.add(panel * steps * MR + i),
                false => a.start.add((row + i.min(rows - 1)) * a.row),
            });
            let out = c.start.add(row * c.stride);
            if rows == MR && c.cols == width {
                tile::<S, MR, NV, PACKED>(steps, &a_rows, a.step, rhs.as_ptr(), out, c.stride, start, &bias);
                continue;
            }
            let edge = edge.as_mut_ptr();
            if matches!(start, Start::Sum) {
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
/// Each of `a_rows` has `steps` floats, `step` apart; `b` has `steps` times `NV` vectors, `c` `MR` rows of `NV` vectors. With
/// `PACKED` the rows lie side by side and `step` is `MR`. The instruction set of `S`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const PACKED: bool>(
    steps: usize,
    a_rows: &[*const f32; MR],
    step: usize,
    mut b: *const f32,
    c: *mut f32,
    stride: usize,
    start: Start<'_>,
    bias: &[f32; MAX_COLS],
) {
    // SAFETY: the caller's.
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
                    Start::Zero => sum,
                    Start::Bias(_) => sum.add(S::load(bias.as_ptr().add(v * S::LANES))),
                    Start::Sum => sum.add(S::load(out)),
                };
                sum.store(out);
            }
        }
    }
}

/// A block of `C` that one job computes.
pub(crate) struct Strip<'a> {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) col: usize,
    pub(crate) cols: usize,
    c: &'a Shared<'a, f32>,
    stride: usize,
    lhs: Panels<'a>,
    rhs: Panels<'a>,
    /// The strip's first row in `lhs` and first column in `rhs`.
    packed_at: (usize, usize),
}

impl Strip<'_> {
    /// Computes the strip in place.
    #[allow(unsafe_code)]
    pub(crate) fn multiply(&self, start: Start<'_>) {
        let c = self.c.pointer(self.row * self.stride + self.col);
        // the last row's end lies in the output too
        let _ = self.c.pointer((self.row + self.rows - 1) * self.stride + self.col + self.cols);
        let block = Block { start: c, stride: self.stride, rows: self.rows, cols: self.cols };
        #[cfg(target_arch = "x86_64")]
        if self.lhs.precision().by_tiles() {
            // SAFETY: the strips of a product are disjoint.
            return unsafe { self.finish(&mut InPlace { out: block, start }) };
        }
        // SAFETY: the strips of a product are disjoint.
        unsafe { multiply(block, Lhs::Packed(self.lhs, self.packed_at.0), self.rhs, self.packed_at.1, start) }
    }

    /// Computes the strip by tiles, and has each square finished while it is near.
    ///
    /// # Safety
    /// The product is one [`Precision::by_tiles`]; what `finish` asks for.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn finish<F: tiles::Finish>(&self, finish: &mut F) {
        let (row, col) = self.packed_at;
        // SAFETY: the caller's.
        unsafe {
            let tiles = Multiplier::new(self.rhs.precision()).expect("a product by tiles");
            tiles::squares(&tiles, (row, self.rows), (col, self.cols), self.lhs, self.rhs, finish);
        }
    }

    /// Computes the strip beside its place, [`ASIDE_ROWS`] at a time, and gives them to `take` with the number of the first,
    /// from 0.
    #[allow(unsafe_code)]
    pub(crate) fn multiply_aside(&mut self, start: Start<'_>, mut take: impl FnMut(&mut Self, usize, &mut [f32])) {
        let cols = self.cols;
        with_buffer(ASIDE_ROWS.min(self.rows) * cols, |aside| {
            for first in (0..self.rows).step_by(ASIDE_ROWS) {
                let rows = ASIDE_ROWS.min(self.rows - first);
                let block = Block { start: aside.as_mut_ptr(), stride: cols, rows, cols };
                let lhs = Lhs::Packed(self.lhs, self.packed_at.0 + first);
                // SAFETY: the buffer is this thread's.
                unsafe { multiply(block, lhs, self.rhs, self.packed_at.1, start) };
                take(self, first, &mut aside[..rows * cols]);
            }
        });
    }

    /// Computes the strip beside its place, and adds each row after `change` had it, with the row's number from 0.
    pub(crate) fn add_product(&mut self, change: impl Fn(usize, &mut [f32])) {
        let cols = self.cols;
        self.multiply_aside(Start::Zero, |strip, first, rows| {
            for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                change(first + i, row);
                add_elements(strip.row_mut(first + i), row);
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

/// Rows that [`Strip::multiply_aside`] computes at a time, a multiple of every tile's: for [`JOB_COLS`] at least they fit the
/// nearest cache.
const ASIDE_ROWS: usize = 96;

/// Rows of a job, a multiple of every tile's: 147 KB of `A` for a depth block. By tiles a panel of `B` takes as long to come
/// from the second-level cache as to be multiplied by that many rows: there are more.
pub(crate) fn job_rows(precision: Precision) -> usize {
    if precision.by_tiles() { 256 } else { 96 }
}

/// Columns of a job at most and at least, multiples of every panel's.
pub(crate) const JOB_COLS: Range<usize> = 96..384;

/// Jobs that a product is cut into where its shape allows: enough for many cores and an even end.
const JOBS: usize = 48;

/// `C = A B` on the current pool for rows `rows`, which `lhs` has, and columns `cols`, which `rhs` has, of `c` `[m, n]`. `job`
/// computes a strip of them.
fn packed_product(
    n: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    c: &Shared<'_, f32>,
    job: impl Fn(Strip<'_>) + Sync,
) {
    if rows.is_empty() || cols.is_empty() {
        return;
    }
    assert_eq!(lhs.depth(), rhs.depth(), "operands of the same depth");
    let job_rows = job_rows(lhs.precision());
    let row_jobs = rows.len().div_ceil(job_rows);
    let wanted = JOBS.div_ceil(row_jobs);
    let for_many = cols.len().div_ceil(wanted).next_multiple_of(JOB_COLS.start).min(JOB_COLS.end);
    let job_cols = if is_one_of_many() { JOB_COLS.end } else { for_many };
    let col_jobs = cols.len().div_ceil(job_cols);
    (0..row_jobs * col_jobs).into_par_iter().for_each(|index| {
        // neighbours share rows, so that the packed rows are still in a cache
        let packed_at = (index / col_jobs * job_rows, index % col_jobs * job_cols);
        job(Strip {
            row: rows.start + packed_at.0,
            rows: job_rows.min(rows.len() - packed_at.0),
            col: cols.start + packed_at.1,
            cols: job_cols.min(cols.len() - packed_at.1),
            c,
            stride: n,
            lhs,
            rhs,
            packed_at,
        });
    });
}

/// Floats of an operand that are packed at a time: 8 MB, a part of the last-level cache.
const PORTION: usize = 2 << 20;

/// Cuts `lanes` of an operand into portions of about [`PORTION`] floats, multiples of `unit` lanes.
fn portions(lanes: usize, depth: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (lanes * depth).div_ceil(PORTION).max(1);
    let size = lanes.div_ceil(count).next_multiple_of(unit).max(1);
    (0..lanes).step_by(size).map(move |first| first..lanes.min(first + size))
}

/// Whether an operand is packed in one portion.
pub(crate) fn is_one_portion(lanes: usize, depth: usize) -> bool {
    lanes * depth <= PORTION
}

/// Cuts the rows of a left operand into portions.
pub(crate) fn row_portions(m: usize, depth: usize, precision: Precision) -> impl Iterator<Item = Range<usize>> {
    portions(m, depth, job_rows(precision))
}

/// A right operand: to be packed a portion at a time in the buffer, or packed as a whole.
pub(crate) enum Rhs<'a> {
    Plain(Operand<'a>, &'a mut Buffer),
    Packed(Panels<'a>),
}

impl Rhs<'_> {
    pub(crate) fn precision(&self) -> Precision {
        match self {
            Self::Plain(operand, _) => operand.precision,
            Self::Packed(panels) => panels.precision(),
        }
    }
}

/// `C = A B` on the current pool for rows `rows`, which `lhs` has, of `c` `[m, n]`.
pub(crate) fn row_product(
    n: usize,
    rows: Range<usize>,
    lhs: Panels<'_>,
    rhs: &mut Rhs<'_>,
    c: &mut [f32],
    job: impl Fn(Strip<'_>) + Sync,
) {
    assert!(c.len() >= rows.end * n, "an output of the declared shape");
    each_strip(n, rows, lhs, rhs, &Shared::new(c), job);
}

/// [`row_product`] whose jobs do not all write to `c`.
pub(crate) fn each_strip(
    n: usize,
    rows: Range<usize>,
    lhs: Panels<'_>,
    rhs: &mut Rhs<'_>,
    c: &Shared<'_, f32>,
    job: impl Fn(Strip<'_>) + Sync,
) {
    let depth = lhs.depth();
    match rhs {
        Rhs::Packed(rhs) => packed_product(n, rows, 0..n, lhs, *rhs, c, job),
        Rhs::Plain(rhs, buffer) => {
            for cols in portions(n, depth, JOB_COLS.end) {
                let packed = buffer.get(Panels::len_in(rhs.precision, Side::Right, cols.len(), depth));
                let rhs = Panels::pack_parallel(Side::Right, rhs, cols.clone(), depth, packed);
                packed_product(n, rows.clone(), cols, lhs, rhs, c, &job);
            }
        }
    }
}
