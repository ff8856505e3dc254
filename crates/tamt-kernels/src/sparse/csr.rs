//! Compressed sparse rows (CSR) in blocks of columns.

use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

use crate::base::{Isa, Precision, Shared, Write, isa, round, round_in_place, with_buffer, with_parts};
use crate::gemm::DEPTH_BLOCK;
use crate::masks::{WeightRef, count_bits, gather_row};
use crate::sparse::token_panels::panel_tokens;
use crate::sparse::transpose::{StridedPtr, StridedPtrMut, transpose};

/// Columns of a block. Times a panel's tokens, the activations take 24 KB and leave room in the L1 cache for weights
/// and sums. In f32 the number divides [`DEPTH_BLOCK`], after which the dense product starts a new sum. A multiple of 8
/// lets each block begin at a byte of the mask.
#[inline]
fn block_columns(is_bf16: bool) -> usize {
    match isa() {
        Isa::Avx512 if is_bf16 => BF16_BLOCK_COLUMNS,
        Isa::Avx512 | Isa::Avx2 => 96,
        Isa::Portable if cfg!(miri) => DEPTH_BLOCK / 2,
        Isa::Portable => 192,
    }
}

/// Columns of a block in bf16.
pub(crate) const BF16_BLOCK_COLUMNS: usize = 192;

/// The surviving entries of a matrix `[rows, cols]`, ordered by block of columns, then by row, then by column.
///
/// An entry's offset is its column within the block times the tokens of a panel: the position of the column's
/// activations in the block of a token panel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Csr {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Whether products are computed in bf16.
    pub(super) is_bf16: bool,
    /// Whether values in f32 are rounded to bf16.
    rounds: bool,
    /// First entry of each row of each block, and the number of entries.
    row_starts: Vec<u32>,
    pub(super) offsets: Vec<u16>,
    pub(super) values: EntryValues,
}

/// The values of entries, in the precision of the products.
#[derive(Clone, Debug)]
pub(crate) enum EntryValues {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Default for EntryValues {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

/// The bits of a mask `[rows, cols]`; each row begins at a byte.
#[derive(Clone, Copy)]
pub(crate) struct MaskBits<'a> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> MaskBits<'a> {
    /// The bits of a row within a block of columns.
    #[inline(always)]
    fn of_block(&self, row: usize, block: usize, columns: usize) -> &'a [u8] {
        let (stride, size) = (self.cols.div_ceil(8), columns / 8);
        &self.bytes[row * stride..(row + 1) * stride][block * size..stride.min((block + 1) * size)]
    }
}

/// The positions of the set bits of each byte, ascending, then zeros.
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

/// Relation of a sparse matrix to the weight matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// The weight matrix.
    Plain,
    /// The transpose of the weight matrix.
    Transposed,
}

/// Rows of a job that fills entries.
const ROWS_PER_JOB: usize = 256;

impl Csr {
    /// Number of blocks, at least one, so that a product of depth 0 writes its bias.
    pub(super) fn blocks(&self) -> usize {
        self.cols.div_ceil(self.block_columns()).max(1)
    }

    /// Columns of a block.
    #[inline]
    pub(super) fn block_columns(&self) -> usize {
        block_columns(self.is_bf16)
    }

    /// Blocks per partial sum. In f32 a partial sum covers the same columns as in the dense product.
    pub(super) fn blocks_per_sum(&self) -> usize {
        if self.is_bf16 { usize::MAX } else { DEPTH_BLOCK / self.block_columns() }
    }

    /// The first entry of each of some rows of a block, and the end of the last row's entries.
    pub(super) fn row_starts(&self, block: usize, rows: Range<usize>) -> &[u32] {
        let first = block * self.rows;
        &self.row_starts[first + rows.start..=first + rows.end]
    }

    /// Sets rows, columns and entries to those of a mask, for products in a precision. The values are unspecified until
    /// [`Csr::set_values`].
    pub(super) fn set_structure(&mut self, mask: MaskBits<'_>, precision: Precision) {
        (self.rows, self.cols, self.is_bf16) = (mask.rows, mask.cols, precision.sparse_in_bf16());
        self.rounds = precision == Precision::Bf16 && !self.is_bf16;
        let columns = self.block_columns();
        self.row_starts.clear();
        self.row_starts.resize(self.blocks() * self.rows + 1, 0);
        self.row_starts[1..].par_chunks_mut(self.rows.max(1)).enumerate().for_each(|(block, counts)| {
            for (row, count) in counts.iter_mut().enumerate() {
                *count = count_bits(mask.of_block(row, block, columns)) as u32;
            }
        });
        let mut end = 0;
        for start in &mut self.row_starts[1..] {
            end += *start;
            *start = end;
        }
        self.offsets.resize(end as usize, 0);
        match (&mut self.values, self.is_bf16) {
            (EntryValues::F32(values), false) => values.resize(end as usize, 0.0),
            (EntryValues::Bf16(values), true) => values.resize(end as usize, bf16::ZERO),
            (values, false) => *values = EntryValues::F32(vec![0.0; end as usize]),
            (values, true) => *values = EntryValues::Bf16(vec![bf16::ZERO; end as usize]),
        }

        let width = panel_tokens() as u16;
        let mut offsets = std::mem::take(&mut self.offsets);
        self.for_each_job(&mut offsets, |block, rows, offsets| {
            let mut done = 0;
            for row in rows {
                for (&byte, first) in mask.of_block(row, block, columns).iter().zip((0..).step_by(8)) {
                    let (bits, count) = (SET_BITS[usize::from(byte)], byte.count_ones() as usize);
                    let columns = bits.map(|bit| (first + bit) * width);
                    // Writes all eight positions if `offsets` has room. The next byte overwrites the surplus.
                    match offsets[done..].first_chunk_mut() {
                        Some(eight) => *eight = columns,
                        None => offsets[done..done + count].copy_from_slice(&columns[..count]),
                    }
                    done += count;
                }
            }
        });
        self.offsets = offsets;
    }

    /// Sets the values of all entries to those of the weights. `mask` is the mask of [`Csr::set_structure`].
    pub(super) fn set_values(&mut self, mask: MaskBits<'_>, weights: WeightRef<'_>, orientation: Orientation) {
        let mut values = std::mem::take(&mut self.values);
        match &mut values {
            EntryValues::F32(values) => self.for_each_job(values, |block, rows, values| {
                self.gather(mask, weights, orientation, block, rows, values);
                if self.rounds {
                    round_in_place(values);
                }
            }),
            EntryValues::Bf16(halves) => self.for_each_job(halves, |block, rows, halves| {
                with_buffer(halves.len(), |values| {
                    self.gather(mask, weights, orientation, block, rows, values);
                    round(values, halves);
                });
            }),
        }
        self.values = values;
    }

    /// The values of the entries of some rows of a block.
    fn gather(
        &self,
        mask: MaskBits<'_>,
        weights: WeightRef<'_>,
        orientation: Orientation,
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
        with_parts([height * width; 2], |[dense, transposed]| {
            match orientation {
                Orientation::Plain => {
                    for (row, dense) in rows.clone().zip(dense.chunks_exact_mut(width)) {
                        weights.write_part(row, cols.clone(), dense);
                    }
                }
                Orientation::Transposed => {
                    for (col, values) in cols.clone().zip(transposed.chunks_exact_mut(height)) {
                        weights.write_part(col, rows.clone(), values);
                    }
                    let from = StridedPtr { start: transposed.as_ptr(), stride: height };
                    let to = StridedPtrMut { start: dense.as_mut_ptr(), stride: width };
                    // SAFETY: `transposed` and `dense` have `height * width` floats each.
                    unsafe { transpose(from, width, height, to) };
                }
            }
            for (row, dense) in rows.clone().zip(dense.chunks_exact(width)) {
                let done = gather_row(mask.of_block(row, block, columns), dense, values, Write::Store);
                values = &mut std::mem::take(&mut values)[done..];
            }
        });
    }

    /// Number of entries before row `index % rows` of block `index / rows`.
    pub(super) fn entries_before(&self, index: usize) -> usize {
        self.row_starts[index] as usize
    }

    /// The entries of some rows of a block.
    pub(super) fn entries(&self, block: usize, rows: Range<usize>) -> Range<usize> {
        let starts = self.row_starts(block, rows);
        starts[0] as usize..starts[starts.len() - 1] as usize
    }

    /// Calls `job(block, rows, part)` in parallel for all rows of all blocks. `buffer` has one element per entry, and
    /// `part` holds the elements of the rows.
    fn for_each_job<T: Send>(&self, buffer: &mut [T], job: impl Fn(usize, Range<usize>, &mut [T]) + Sync) {
        let groups = self.rows.div_ceil(ROWS_PER_JOB);
        let buffer = Shared::new(buffer);
        (0..self.blocks() * groups).into_par_iter().for_each(|index| {
            let (block, first) = (index / groups, index % groups * ROWS_PER_JOB);
            let rows = first..self.rows.min(first + ROWS_PER_JOB);
            // SAFETY: rows of blocks have disjoint entries, and each row of each block belongs to one job.
            let part = unsafe { buffer.part(self.entries(block, rows.clone())) };
            job(block, rows, part);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of the sums relies on the first property, the type of the offsets on the last.
    #[test]
    fn blocks_divide_the_depth_blocks_of_the_dense_product_and_fit_the_offsets() {
        assert!(DEPTH_BLOCK.is_multiple_of(block_columns(false)));
        for columns in [false, true].map(block_columns) {
            assert!(columns.is_multiple_of(8));
            assert!(u16::try_from((columns - 1) * panel_tokens()).is_ok());
        }
    }
}
