//! Sparse matrices in blocks of columns.

use std::ops::Range;

use rayon::prelude::*;

use super::panels::panel_tokens;
use crate::dispatch::{Isa, isa};
use crate::parallel::Shared;
use crate::precision::{Number, Values};
use crate::product::DEPTH_BLOCK;

/// Columns of a block: with a panel's tokens, 24 KB of activations, which leaves the nearest cache room for the rest.
/// Divides [`DEPTH_BLOCK`], where sums are broken, and is a multiple of 8, so that a block begins at a byte of a mask.
#[inline]
pub(super) fn block_columns() -> usize {
    match isa() {
        Isa::Avx512 | Isa::Avx2 => 96,
        Isa::Portable => 192,
    }
}

/// Blocks between two breaks of a sum.
#[inline]
pub(super) fn blocks_per_sum() -> usize {
    DEPTH_BLOCK / block_columns()
}

/// The non-zeros of a matrix `[rows, cols]`, ordered by block of columns, then by row, then by column.
///
/// An entry's offset is its column within the block times the tokens of a panel: where its activations lie.
#[derive(Clone, Debug, Default)]
pub(super) struct Csr {
    rows: usize,
    cols: usize,
    /// Where each row of each block begins, and the end of all.
    starts: Vec<u32>,
    offsets: Vec<u16>,
    values: Vec<f32>,
}

/// The bits of a mask `[rows, cols]`, each row in whole bytes.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bytes: &'a [u8],
}

impl Bits<'_> {
    /// The bits of a row that lie in a block, as words with the first column in the lowest bit.
    #[inline(always)]
    fn words(&self, row: usize, block: usize) -> impl Iterator<Item = u64> {
        let stride = self.cols.div_ceil(8);
        let size = block_columns() / 8;
        let bytes = &self.bytes[row * stride..(row + 1) * stride];
        let (whole, rest) = bytes[block * size..bytes.len().min((block + 1) * size)].as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        whole.iter().copied().chain((!rest.is_empty()).then_some(last)).map(u64::from_le_bytes)
    }
}

/// Where element (`row`, `col`) of a matrix lies among the weights: `row * rows + col * cols`.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub(super) row: usize,
    pub(super) col: usize,
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
        self.cols.div_ceil(block_columns()).max(1)
    }

    /// Where the entries of each of some rows of a block begin, and where those of the last end.
    pub(super) fn starts(&self, block: usize, rows: Range<usize>) -> &[u32] {
        let first = block * self.rows;
        &self.starts[first + rows.start..=first + rows.end]
    }

    pub(super) fn offsets(&self) -> &[u16] {
        &self.offsets
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Takes the structure from a mask; the values are unspecified until [`Csr::set_values`].
    pub(super) fn set_structure(&mut self, mask: Bits<'_>) {
        (self.rows, self.cols) = (mask.rows, mask.cols);
        self.starts.clear();
        self.starts.resize(self.blocks() * self.rows + 1, 0);
        self.starts[1..].par_chunks_mut(self.rows.max(1)).enumerate().for_each(|(block, counts)| {
            for (row, count) in counts.iter_mut().enumerate() {
                *count = mask.words(row, block).map(u64::count_ones).sum();
            }
        });
        let mut end = 0;
        for start in &mut self.starts[1..] {
            end += *start;
            *start = end;
        }
        self.offsets.resize(end as usize, 0);
        self.values.resize(end as usize, 0.0);

        let width = panel_tokens();
        let mut offsets = std::mem::take(&mut self.offsets);
        self.for_each_job(&mut offsets, |block, rows, offsets| {
            let mut offsets = offsets.iter_mut();
            for row in rows {
                for (at, mut word) in mask.words(row, block).enumerate() {
                    // the entries of a word are as many as its bits
                    for offset in offsets.by_ref().take(word.count_ones() as usize) {
                        *offset = ((at * 64 + word.trailing_zeros() as usize) * width) as u16;
                        word &= word - 1;
                    }
                }
            }
        });
        self.offsets = offsets;
    }

    /// Takes the values of all entries from the weights.
    pub(super) fn set_values(&mut self, weights: Values<'_>, strides: Strides) {
        match weights {
            Values::F32(weights) => self.take_values(weights, strides),
            Values::Bf16(weights) => self.take_values(weights, strides),
        }
    }

    fn take_values(&mut self, weights: &[impl Number], strides: Strides) {
        let (shift, block_cols) = (panel_tokens().trailing_zeros(), block_columns());
        let mut values = std::mem::take(&mut self.values);
        self.for_each_job(&mut values, |block, rows, mut values| {
            for row in rows {
                let offsets = &self.offsets[self.entries(block, row..row + 1)];
                let into;
                (into, values) = values.split_at_mut(offsets.len());
                let first = row * strides.row + block * block_cols * strides.col;
                for (value, offset) in into.iter_mut().zip(offsets) {
                    *value = weights[first + usize::from(offset >> shift) * strides.col].get();
                }
            }
        });
        self.values = values;
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
        assert!(DEPTH_BLOCK.is_multiple_of(block_columns()));
        assert!(block_columns().is_multiple_of(8));
        assert!(u16::try_from((block_columns() - 1) * panel_tokens()).is_ok());
    }
}
