//! The dense product `C = A B` on the current pool, cut into jobs.
//!
//! Large operands are packed into panels ([`crate::gemm::pack`]). A job computes a block of `C`, a *strip*: its rows of
//! `A` fit L2 for one depth block, and one panel of `B` at a time stays in L1 while those rows stream past. Every
//! element of `C` is a sum in order of the depth, broken at fixed steps only, so the cut into jobs does not change the
//! bits of the result.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::{AlignedBuffer, Precision, Shared, add_elements, is_inside_parallel_job, with_buffer};
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::in_place::InPlace;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::{self, TileUnit};
use crate::gemm::block::{Init, OutputBlock};
#[cfg(target_arch = "x86_64")]
use crate::gemm::epilogue::Epilogue;
use crate::gemm::layout::Side;
use crate::gemm::multiply::{LeftOperand, multiply};
use crate::gemm::operand::Operand;
use crate::gemm::panels::Panels;

/// Rows of `C` that [`Strip::multiply_to_buffer`] computes at a time, a multiple of every panel width.
const BUFFER_ROWS: usize = 96;

/// Lower and upper limit of the columns of a job, multiples of every panel width.
pub(crate) const JOB_COLS: Range<usize> = 96..384;

/// Least number of jobs of a product whose shape allows that many: enough to balance many cores.
const JOBS: usize = 48;

/// Elements of an operand that are packed at a time: 8 MB in f32, a part of the last-level cache.
const PORTION: usize = 2 << 20;

/// Rows of a job, a multiple of every panel width. In f32, 96 rows of `A` take 147 KB for a depth block, a part of L2.
/// In bf16 a panel of `B` takes as long to load from L2 as the products with 96 rows take, hence 256 rows.
pub(crate) fn job_rows(precision: Precision) -> usize {
    if precision.packs_bf16() { 256 } else { 96 }
}

/// The block of `C` that one job computes. The strips of a product are disjoint.
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
    /// Computes the strip in `C`.
    pub(crate) fn multiply(&self, start: Init<'_>) {
        let c = self.c.pointer(self.row * self.stride + self.col);
        // panics if the end of the last row exceeds the output
        let _ = self.c.pointer((self.row + self.rows - 1) * self.stride + self.col + self.cols);
        let block = OutputBlock { start: c, stride: self.stride, rows: self.rows, cols: self.cols };
        #[cfg(target_arch = "x86_64")]
        if self.lhs.precision.packs_bf16() {
            // SAFETY: `packs_bf16` is true here; the block lies in `C`, and `packed_product` made the strips disjoint.
            return unsafe { self.multiply_tiles(&mut InPlace { out: block, start }) };
        }
        // SAFETY: the block lies in `C`: `pointer` checked its first and last element. `packed_product` made the strips
        // disjoint.
        unsafe { multiply(block, LeftOperand::Packed(self.lhs, self.packed_at.0), self.rhs, self.packed_at.1, start) }
    }

    /// Computes the strip in bf16, an output tile at a time; `epilogue` takes each tile from L1.
    ///
    /// # Safety
    /// * [`Precision::packs_bf16`] is true of the operands' precision.
    /// * The destination that `epilogue` writes for the strip is writable, and no other thread accesses it.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn multiply_tiles<F: Epilogue>(&self, epilogue: &mut F) {
        let (row, col) = self.packed_at;
        let tiles = TileUnit::new(self.rhs.precision).expect("a product in bf16");
        // SAFETY: `TileUnit::new` found AVX-512-BF16; the epilogue's destination is exclusive by the `# Safety`
        // contract.
        unsafe { unit::tile_product(&tiles, (row, self.rows), (col, self.cols), self.lhs, self.rhs, epilogue) };
    }

    /// Computes the strip in a buffer instead of `C`, [`BUFFER_ROWS`] rows at a time: at [`JOB_COLS`] columns the
    /// buffer stays in L2. `take` gets the number of the first row, counted within the strip, and the rows `[rows,
    /// cols]`.
    pub(crate) fn multiply_to_buffer(&mut self, start: Init<'_>, mut take: impl FnMut(&mut Self, usize, &mut [f32])) {
        let cols = self.cols;
        with_buffer(BUFFER_ROWS.min(self.rows) * cols, |buffer: &mut [f32]| {
            for first in (0..self.rows).step_by(BUFFER_ROWS) {
                let rows = BUFFER_ROWS.min(self.rows - first);
                let block = OutputBlock { start: buffer.as_mut_ptr(), stride: cols, rows, cols };
                let lhs = LeftOperand::Packed(self.lhs, self.packed_at.0 + first);
                // SAFETY: the block is the first `rows * cols` floats of the buffer, which this thread borrows.
                unsafe { multiply(block, lhs, self.rhs, self.packed_at.1, start) };
                take(self, first, &mut buffer[..rows * cols]);
            }
        });
    }

    /// Adds the product to `C`, after `change` has modified each row. `change` gets the row's number within the strip.
    pub(crate) fn add_product(&mut self, change: impl Fn(usize, &mut [f32])) {
        let cols = self.cols;
        self.multiply_to_buffer(Init::Zero, |strip, first, rows| {
            for (i, row) in rows.chunks_exact_mut(cols).enumerate() {
                change(first + i, row);
                add_elements(strip.row_mut(first + i), row);
            }
        });
    }

    /// Row `i` of the strip in `C`.
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let first = (self.row + i) * self.stride + self.col;
        // SAFETY: `packed_product` made the strips disjoint, and the result borrows this strip mutably.
        unsafe { self.c.part(first..first + self.cols) }
    }
}

/// Calls `job` on the current pool for each strip of the rows `rows` and columns `cols` of `c` `[m, n]`. The lanes of
/// `lhs` are those rows, the lanes of `rhs` those columns.
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
    assert_eq!(lhs.depth, rhs.depth, "operands of the same depth");
    let job_rows = job_rows(lhs.precision);
    let row_jobs = rows.len().div_ceil(job_rows);
    let least_col_jobs = JOBS.div_ceil(row_jobs);
    let balanced = cols.len().div_ceil(least_col_jobs).next_multiple_of(JOB_COLS.start).min(JOB_COLS.end);
    let job_cols = if is_inside_parallel_job() { JOB_COLS.end } else { balanced };
    let col_jobs = cols.len().div_ceil(job_cols);
    (0..row_jobs * col_jobs).into_par_iter().for_each(|index| {
        // consecutive jobs share their rows of `A`, which are still in a cache
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

/// Cuts `lanes` of an operand into portions of about [`PORTION`] elements, multiples of `unit` lanes.
fn portions(lanes: usize, depth: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (lanes * depth).div_ceil(PORTION).max(1);
    let size = lanes.div_ceil(count).next_multiple_of(unit).max(1);
    (0..lanes).step_by(size).map(move |first| first..lanes.min(first + size))
}

/// Whether an operand is one portion.
pub(crate) fn is_one_portion(lanes: usize, depth: usize) -> bool {
    lanes * depth <= PORTION
}

/// Cuts the rows of a left operand `[m, depth]` into portions.
pub(crate) fn row_portions(m: usize, depth: usize, precision: Precision) -> impl Iterator<Item = Range<usize>> {
    portions(m, depth, job_rows(precision))
}

/// The right operand of [`row_product`].
pub(crate) enum RightOperand<'a> {
    /// An operand that the product packs into the buffer, a portion of the columns at a time.
    Plain(Operand<'a>, &'a mut AlignedBuffer),
    /// A packed operand.
    Packed(Panels<'a>),
}

/// Calls `job` on the current pool for each strip of the rows `rows` of `c` `[m, n]`. The lanes of `lhs` are those
/// rows; `rhs` has `n` columns. The jobs may write elsewhere than to `c`, which is empty then.
pub(crate) fn row_product(
    n: usize,
    rows: Range<usize>,
    lhs: Panels<'_>,
    rhs: &mut RightOperand<'_>,
    c: &mut [f32],
    job: impl Fn(Strip<'_>) + Sync,
) {
    assert!(c.is_empty() || c.len() >= rows.end * n, "an output of the declared shape");
    let (c, depth) = (&Shared::new(c), lhs.depth);
    match rhs {
        RightOperand::Packed(rhs) => packed_product(n, rows, 0..n, lhs, *rhs, c, job),
        RightOperand::Plain(rhs, buffer) => {
            for cols in portions(n, depth, JOB_COLS.end) {
                let packed = buffer.get(Panels::len_in(rhs.precision, Side::Right, cols.len(), depth));
                let rhs = Panels::pack_parallel(Side::Right, rhs, cols.clone(), depth, packed);
                packed_product(n, rows.clone(), cols, lhs, rhs, c, &job);
            }
        }
    }
}
