//! The dense matrix product `C = A B` that linear layers and attention are made of: of f32, or of bf16 with sums in f32.
//!
//! Large operands are packed into panels (see [`crate::pack`]), the elements that one step of the register tile needs
//! side by side, masked on the way, so that a masked matrix never exists. A job computes a block of `C` whose rows of `A`
//! fit the second-level cache for a block of the depth; one panel of `B` at a time stays in the first-level cache while
//! those rows pass by. Every element of `C` is a sum in order of the depth, broken at fixed steps of the depth only: how
//! the work was split cannot be seen in the result.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::buffer::{AlignedBuffer, with_buffer};
use crate::base::parallel::{Shared, is_inside_parallel_job};
use crate::base::precision::Precision;
use crate::base::sums::add_elements;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::in_place::InPlace;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::TileUnit;
use crate::gemm::block::{Init, OutputBlock};
#[cfg(target_arch = "x86_64")]
use crate::gemm::epilogue::Epilogue;
use crate::gemm::layout::Side;
use crate::gemm::multiply::{LeftOperand, multiply};
use crate::gemm::operand::Operand;
use crate::gemm::panels::Panels;

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
    pub(crate) fn multiply(&self, start: Init<'_>) {
        let c = self.c.pointer(self.row * self.stride + self.col);
        // the last row's end lies in the output too
        let _ = self.c.pointer((self.row + self.rows - 1) * self.stride + self.col + self.cols);
        let block = OutputBlock { start: c, stride: self.stride, rows: self.rows, cols: self.cols };
        #[cfg(target_arch = "x86_64")]
        if self.lhs.precision().packs_bf16() {
            // SAFETY: the strips of a product are disjoint.
            return unsafe { self.finish(&mut InPlace { out: block, start }) };
        }
        // SAFETY: the strips of a product are disjoint.
        unsafe { multiply(block, LeftOperand::Packed(self.lhs, self.packed_at.0), self.rhs, self.packed_at.1, start) }
    }

    /// Computes the strip by tiles, and has each square finished while it is near.
    ///
    /// # Safety
    /// The product is one [`Precision::packs_bf16`]; what `finish` asks for.
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn finish<F: Epilogue>(&self, finish: &mut F) {
        let (row, col) = self.packed_at;
        // SAFETY: the caller's.
        unsafe {
            let tiles = TileUnit::new(self.rhs.precision()).expect("a product by tiles");
            unit::squares(&tiles, (row, self.rows), (col, self.cols), self.lhs, self.rhs, finish);
        }
    }

    /// Computes the strip beside its place, [`BUFFER_ROWS`] at a time, and gives them to `take` with the number of the first,
    /// from 0.
    #[allow(unsafe_code)]
    pub(crate) fn multiply_to_buffer(&mut self, start: Init<'_>, mut take: impl FnMut(&mut Self, usize, &mut [f32])) {
        let cols = self.cols;
        with_buffer(BUFFER_ROWS.min(self.rows) * cols, |aside| {
            for first in (0..self.rows).step_by(BUFFER_ROWS) {
                let rows = BUFFER_ROWS.min(self.rows - first);
                let block = OutputBlock { start: aside.as_mut_ptr(), stride: cols, rows, cols };
                let lhs = LeftOperand::Packed(self.lhs, self.packed_at.0 + first);
                // SAFETY: the buffer is this thread's.
                unsafe { multiply(block, lhs, self.rhs, self.packed_at.1, start) };
                take(self, first, &mut aside[..rows * cols]);
            }
        });
    }

    /// Computes the strip beside its place, and adds each row after `change` had it, with the row's number from 0.
    pub(crate) fn add_product(&mut self, change: impl Fn(usize, &mut [f32])) {
        let cols = self.cols;
        self.multiply_to_buffer(Init::Zero, |strip, first, rows| {
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

/// LeftRows that [`Strip::multiply_to_buffer`] computes at a time, a multiple of every tile's: for [`JOB_COLS`] at least they fit the
/// nearest cache.
const BUFFER_ROWS: usize = 96;

/// LeftRows of a job, a multiple of every tile's: 147 KB of `A` for a depth block. By tiles a panel of `B` takes as long to come
/// from the second-level cache as to be multiplied by that many rows: there are more.
pub(crate) fn job_rows(precision: Precision) -> usize {
    if precision.packs_bf16() { 256 } else { 96 }
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
    let job_cols = if is_inside_parallel_job() { JOB_COLS.end } else { for_many };
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
pub(crate) enum RightOperand<'a> {
    Plain(Operand<'a>, &'a mut AlignedBuffer),
    Packed(Panels<'a>),
}

/// `C = A B` on the current pool for rows `rows`, which `lhs` has, of `c` `[m, n]`.
pub(crate) fn row_product(
    n: usize,
    rows: Range<usize>,
    lhs: Panels<'_>,
    rhs: &mut RightOperand<'_>,
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
    rhs: &mut RightOperand<'_>,
    c: &Shared<'_, f32>,
    job: impl Fn(Strip<'_>) + Sync,
) {
    let depth = lhs.depth();
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
