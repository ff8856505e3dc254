//! A masked weight matrix without its zeros.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::parallel::rows_per_job;
use crate::base::prefetch::prefetch;
use crate::base::sums::Write;
use crate::masks::bit_mask::BitMask;
use crate::masks::gather::{expand_row, gather};
use crate::masks::ranked::{RankedMask, RowRanges};

/// The elements that a mask keeps of a matrix `[rows, cols]`, in its order: row after row, by column. The others are zero and take
/// no memory but the mask's.
#[derive(Clone, Debug)]
pub struct CompactWeight {
    kept: RankedMask,
    values: Vec<f32>,
}

impl CompactWeight {
    /// What a mask keeps of a matrix of its shape.
    #[must_use]
    pub fn new(mask: BitMask, dense: &[f32]) -> Self {
        let kept = RankedMask::new(mask);
        let mut new = Self { values: vec![0.0; kept.survivors()], kept };
        new.set_dense(dense);
        new
    }

    /// Which elements there are.
    #[must_use]
    pub fn kept(&self) -> &RankedMask {
        &self.kept
    }

    /// The same, as a mask.
    #[must_use]
    pub fn mask(&self) -> &BitMask {
        self.kept.mask()
    }

    /// The elements, in the mask's order.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The elements, in the mask's order, to change, and where the rows' lie.
    #[must_use]
    pub fn rows_mut(&mut self) -> (&mut [f32], RowRanges<'_>) {
        (&mut self.values, self.kept.row_ranges())
    }

    /// Takes the elements of another matrix `[rows, cols]`.
    pub fn set_dense(&mut self, dense: &[f32]) {
        gather(self.kept.mask(), dense, &mut self.values, Write::Store);
    }

    /// The matrix with its zeros, `[rows, cols]`.
    #[must_use]
    pub fn to_dense(&self) -> Vec<f32> {
        let (cols, mut dense) = (self.mask().cols(), vec![0.0; self.mask().len()]);
        dense.par_chunks_exact_mut(cols.max(1)).with_min_len(rows_per_job(cols)).enumerate().for_each(
            |(row, dense)| {
                self.write_part(row, 0..cols, dense);
            },
        );
        dense
    }

    /// Writes some columns of a row with their zeros; they begin with a byte of the mask, and end with one or with the row.
    pub(crate) fn write_part(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let (bits, is_whole) = (self.mask().row(row), |col: usize| col.is_multiple_of(8));
        let ends_well = is_whole(cols.end) || cols.end == self.mask().cols();
        assert!(is_whole(cols.start) && ends_well, "bytes of the mask");
        let survivors = &self.values[self.kept.of_row_from(row, cols.start)];
        expand_row(&bits[cols.start / 8..cols.end.div_ceil(8)], survivors, out);
    }

    /// Has a row brought into the caches, ahead of its use.
    pub(crate) fn prefetch_row(&self, row: usize) {
        prefetch(&self.values[self.kept.of_row(row)]);
        prefetch(self.mask().row(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::random;
    use crate::reference::random_mask;

    #[test]
    fn what_a_mask_keeps_is_found_by_rows_and_parts_of_them() {
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
