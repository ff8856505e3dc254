//! [`CompactWeight`]: the survivors of a masked weight matrix, without the dropped elements.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::{Write, prefetch, rows_per_job};
use crate::masks::bit_mask::BitMask;
use crate::masks::gather::{expand_row, gather};
use crate::masks::ranked::{RankedMask, RowRanges};

/// The survivors of a matrix `[rows, cols]` in mask order: row after row, by column. A dropped element is zero and
/// takes one bit of memory.
#[derive(Clone, Debug)]
pub struct CompactWeight {
    kept: RankedMask,
    values: Vec<f32>,
}

impl CompactWeight {
    /// The survivors of `dense` `[rows, cols]` under `mask`.
    ///
    /// # Panics
    /// If `dense` is not of the mask's shape.
    pub fn new(mask: BitMask, dense: &[f32]) -> Self {
        let kept = RankedMask::new(mask);
        let mut new = Self { values: vec![0.0; kept.survivors()], kept };
        new.set_dense(dense);
        new
    }

    /// The mask, with the range of survivors of each row.
    pub fn kept(&self) -> &RankedMask {
        &self.kept
    }

    /// The mask.
    pub fn mask(&self) -> &BitMask {
        self.kept.mask()
    }

    /// The survivors, in mask order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The survivors for an update, and the range of survivors of each row.
    pub fn rows_mut(&mut self) -> (&mut [f32], RowRanges<'_>) {
        (&mut self.values, self.kept.row_ranges())
    }

    /// Replaces the survivors by the kept elements of `dense` `[rows, cols]`.
    pub fn set_dense(&mut self, dense: &[f32]) {
        gather(self.kept.mask(), dense, &mut self.values, Write::Store);
    }

    /// The matrix `[rows, cols]`, dropped elements as zeros.
    pub fn to_dense(&self) -> Vec<f32> {
        let (cols, mut dense) = (self.mask().cols(), vec![0.0; self.mask().len()]);
        dense
            .par_chunks_exact_mut(cols.max(1))
            .with_min_len(rows_per_job(cols))
            .enumerate()
            .for_each(|(row, dense)| self.write_part(row, 0..cols, dense));
        dense
    }

    /// Writes columns `cols` of a row, dropped elements as zeros.
    ///
    /// # Panics
    /// If `cols` does not start at a multiple of 8, or ends neither at a multiple of 8 nor at the row's end.
    pub(crate) fn write_part(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let bits = self.mask().row(row);
        let ends_byte = cols.end.is_multiple_of(8) || cols.end == self.mask().cols();
        assert!(cols.start.is_multiple_of(8) && ends_byte, "columns of whole bytes of the mask");
        let survivors = &self.values[self.kept.of_row_from(row, cols.start)];
        expand_row(&bits[cols.start / 8..cols.end.div_ceil(8)], survivors, out);
    }

    /// Prefetches a row into L1.
    pub(crate) fn prefetch_row(&self, row: usize) {
        prefetch(&self.values[self.kept.of_row(row)]);
        prefetch(self.mask().row(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{random, random_mask};

    #[test]
    fn rows_and_parts_of_rows_have_the_survivors_of_the_mask() {
        for (rows, cols) in [(1, 1), (7, 63), (65, 383), (3, 64), (1300, 9), (0, 4), (4, 0)] {
            for mask in [random_mask(rows, cols, 0.3), BitMask::zeros(rows, cols), BitMask::ones(rows, cols)] {
                let w = random(rows * cols, 1);
                let mut masked = w.clone();
                mask.mask_in_place(&mut masked);
                let mut compact = CompactWeight::new(mask.clone(), &w);
                assert_eq!(compact.to_dense(), masked);
                for row in 0..rows {
                    let own = &compact.values()[compact.kept().of_row(row)];
                    assert_eq!(own.len(), mask.count_ones_in(row..row + 1));
                    for from in (0..cols).step_by(24) {
                        let part = from..cols.min(from + 48);
                        let mut out = vec![9.0; part.len()];
                        compact.write_part(row, part.clone(), &mut out);
                        assert_eq!(out, masked[row * cols..][part]);
                    }
                }
                let (values, _) = compact.rows_mut();
                values.iter_mut().for_each(|v| *v *= 2.0);
                assert!(compact.to_dense().iter().zip(&masked).all(|(twice, v)| *twice == 2.0 * v));
                compact.set_dense(&w);
                assert_eq!(compact.to_dense(), masked);
            }
        }
    }
}
