//! Sparse matrices in blocks of columns.

use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

use crate::base::buffer::{with_buffer, with_parts};
use crate::base::cpu::{Isa, isa};
use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::base::sums::Write;
use crate::base::values::round;
use crate::gemm::layout::DEPTH_BLOCK;
use crate::masks::bits::count_bits;
use crate::masks::gather::gather_row;
use crate::masks::weight::WeightRef;
use crate::sparse::token_panels::panel_tokens;
use crate::sparse::transpose::{Source, Target, transpose};

/// Columns of a block: with a panel's tokens, 24 KB of activations, which leaves the nearest cache room for the rest. In f32 it
/// divides [`DEPTH_BLOCK`], where sums are broken; a multiple of 8, so that a block begins at a byte of a mask.
#[inline]
fn block_columns(in_pairs: bool) -> usize {
    match isa() {
        Isa::Avx512 if in_pairs => PAIRS_COLUMNS,
        Isa::Avx512 | Isa::Avx2 => 96,
        Isa::Portable => 192,
    }
}

/// Columns of a block in bf16.
pub(crate) const PAIRS_COLUMNS: usize = 192;

/// The non-zeros of a matrix `[rows, cols]`, ordered by block of columns, then by row, then by column.
///
/// An entry's offset is its column within the block times the tokens of a panel: where its activations lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Csr {
    rows: usize,
    cols: usize,
    /// Whether its products are of pairs in bf16.
    in_pairs: bool,
    /// Where each row of each block begins, and the end of all.
    starts: Vec<u32>,
    offsets: Vec<u16>,
    values: Elements,
}

/// The values of entries.
#[derive(Clone, Debug)]
pub(crate) enum Elements {
    F32(Vec<f32>),
    /// Rounded, for products of pairs.
    Bf16(Vec<bf16>),
}

impl Default for Elements {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

/// The bits of a mask `[rows, cols]`, each row in whole bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bits<'a> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Bits<'a> {
    /// The bits of a row that lie in a block.
    #[inline(always)]
    fn of_block(&self, row: usize, block: usize, columns: usize) -> &'a [u8] {
        let (stride, size) = (self.cols.div_ceil(8), columns / 8);
        &self.bytes[row * stride..(row + 1) * stride][block * size..stride.min((block + 1) * size)]
    }
}

/// The set bits of each byte, the lowest first, and zeros.
static SET_BITS: [[u16; 8]; 256] = {
    let mut all = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut bit, mut done) = (0, 0);
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                all[byte][done] = bit as u16;
                done += 1;
            }
            bit += 1;
        }
        byte += 1;
    }
    all
};

/// How a sparse matrix lies among the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// It is their matrix.
    Plain,
    /// It is the transpose.
    Transposed,
}

/// Rows that one job fills.
const ROWS_PER_JOB: usize = 256;

impl Csr {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Number of blocks, at least one, so that a product of depth 0 still writes where its sums begin.
    pub(super) fn blocks(&self) -> usize {
        self.cols.div_ceil(self.block_columns()).max(1)
    }

    /// Columns of a block.
    #[inline]
    pub(super) fn block_columns(&self) -> usize {
        block_columns(self.in_pairs)
    }

    /// Whether its products are of pairs in bf16.
    pub(super) fn in_pairs(&self) -> bool {
        self.in_pairs
    }

    /// Blocks between two breaks of a sum: in f32 it is broken where the dense product's is.
    pub(super) fn blocks_per_sum(&self) -> usize {
        if self.in_pairs { usize::MAX } else { DEPTH_BLOCK / self.block_columns() }
    }

    /// Where the entries of each of some rows of a block begin, and where those of the last end.
    pub(super) fn starts(&self, block: usize, rows: Range<usize>) -> &[u32] {
        let first = block * self.rows;
        &self.starts[first + rows.start..=first + rows.end]
    }

    pub(super) fn offsets(&self) -> &[u16] {
        &self.offsets
    }

    pub(super) fn values(&self) -> &Elements {
        &self.values
    }

    /// Takes the structure from a mask, for products in a precision; the values are unspecified until [`Csr::set_values`].
    pub(super) fn set_structure(&mut self, mask: Bits<'_>, precision: Precision) {
        (self.rows, self.cols, self.in_pairs) = (mask.rows, mask.cols, precision.sparse_in_bf16());
        let columns = self.block_columns();
        self.starts.clear();
        self.starts.resize(self.blocks() * self.rows + 1, 0);
        self.starts[1..].par_chunks_mut(self.rows.max(1)).enumerate().for_each(|(block, counts)| {
            for (row, count) in counts.iter_mut().enumerate() {
                *count = count_bits(mask.of_block(row, block, columns)) as u32;
            }
        });
        let mut end = 0;
        for start in &mut self.starts[1..] {
            end += *start;
            *start = end;
        }
        self.offsets.resize(end as usize, 0);
        match (&mut self.values, self.in_pairs) {
            (Elements::F32(values), false) => values.resize(end as usize, 0.0),
            (Elements::Bf16(values), true) => values.resize(end as usize, bf16::ZERO),
            (values, false) => *values = Elements::F32(vec![0.0; end as usize]),
            (values, true) => *values = Elements::Bf16(vec![bf16::ZERO; end as usize]),
        }

        let width = panel_tokens() as u16;
        let mut offsets = std::mem::take(&mut self.offsets);
        self.for_each_job(&mut offsets, |block, rows, offsets| {
            let mut done = 0;
            for row in rows {
                for (&byte, first) in mask.of_block(row, block, columns).iter().zip((0..).step_by(8)) {
                    let (some, count) = (SET_BITS[usize::from(byte)], byte.count_ones() as usize);
                    let some = some.map(|bit| (first + bit) * width);
                    // all eight at once where there is room: the next byte's overwrite those that are none
                    match offsets[done..].first_chunk_mut() {
                        Some(eight) => *eight = some,
                        None => offsets[done..done + count].copy_from_slice(&some[..count]),
                    }
                    done += count;
                }
            }
        });
        self.offsets = offsets;
    }

    /// Takes the values of all entries from the weights; `mask` is that of the structure.
    pub(super) fn set_values(&mut self, mask: Bits<'_>, weights: WeightRef<'_>, layout: Layout) {
        let mut values = std::mem::take(&mut self.values);
        match &mut values {
            Elements::F32(values) => self.for_each_job(values, |block, rows, values| {
                self.gather(mask, weights, layout, block, rows, values);
            }),
            Elements::Bf16(halves) => self.for_each_job(halves, |block, rows, halves| {
                with_buffer(halves.len(), |values| {
                    self.gather(mask, weights, layout, block, rows, values);
                    round(values, halves);
                });
            }),
        }
        self.values = values;
    }

    /// The values of the entries of some rows of a block.
    #[allow(unsafe_code)]
    fn gather(
        &self,
        mask: Bits<'_>,
        weights: WeightRef<'_>,
        layout: Layout,
        block: usize,
        rows: Range<usize>,
        mut values: &mut [f32],
    ) {
        let columns = self.block_columns();
        let cols = block * columns..self.cols.min((block + 1) * columns);
        let (height, width) = (rows.len(), cols.len());
        if width == 0 {
            return;
        }
        with_parts([height * width; 2], |[dense, lying]| {
            match layout {
                Layout::Plain => {
                    for (row, dense) in rows.clone().zip(dense.chunks_exact_mut(width)) {
                        weights.write_part(row, cols.clone(), dense);
                    }
                }
                Layout::Transposed => {
                    for (col, lying) in cols.clone().zip(lying.chunks_exact_mut(height)) {
                        weights.write_part(col, rows.clone(), lying);
                    }
                    let from = Source { start: lying.as_ptr(), stride: height };
                    let to = Target { start: dense.as_mut_ptr(), stride: width };
                    // SAFETY: both buffers have so many elements.
                    unsafe { transpose(from, width, height, to) };
                }
            }
            for (row, dense) in rows.clone().zip(dense.chunks_exact(width)) {
                let done = gather_row(mask.of_block(row, block, columns), dense, values, Write::Store);
                values = &mut std::mem::take(&mut values)[done..];
            }
        });
    }

    /// Entries before those of row `index % rows` of block `index / rows`.
    pub(super) fn entries_before(&self, index: usize) -> usize {
        self.starts[index] as usize
    }

    /// The entries of some rows of a block.
    pub(super) fn entries(&self, block: usize, rows: Range<usize>) -> Range<usize> {
        let starts = self.starts(block, rows);
        starts[0] as usize..starts[starts.len() - 1] as usize
    }

    /// Calls `job` with a block, some of its rows and their part of `buffer`, which has an element for each entry.
    #[allow(unsafe_code)]
    fn for_each_job<T: Send>(&self, buffer: &mut [T], job: impl Fn(usize, Range<usize>, &mut [T]) + Sync) {
        let groups = self.rows.div_ceil(ROWS_PER_JOB);
        let buffer = Shared::new(buffer);
        (0..self.blocks() * groups).into_par_iter().for_each(|index| {
            let (block, first) = (index / groups, index % groups * ROWS_PER_JOB);
            let rows = first..self.rows.min(first + ROWS_PER_JOB);
            // SAFETY: each row of each block has entries of its own, and belongs to one job.
            let part = unsafe { buffer.part(self.entries(block, rows.clone())) };
            job(block, rows, part);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the sparse products would add in another order than the dense ones, or offsets overflow.
    #[test]
    fn blocks_fit_the_sums_of_the_dense_product_and_the_offsets() {
        assert!(DEPTH_BLOCK.is_multiple_of(block_columns(false)));
        for columns in [false, true].map(block_columns) {
            assert!(columns.is_multiple_of(8));
            assert!(u16::try_from((columns - 1) * panel_tokens()).is_ok());
        }
    }
}
