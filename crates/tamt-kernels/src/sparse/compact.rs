//! A masked weight matrix without its zeros.

use std::ops::Range;

use rayon::prelude::*;

use super::survivors::{expand_row, gather};
use crate::bits::{BitMask, count_bits};
use crate::dispatch::fetch;
use crate::linear::Write;
use crate::parallel::rows_per_job;

/// Where the elements of a matrix's rows lie that are kept in one slice.
#[derive(Clone, Copy, Debug)]
pub enum RowPlaces<'a> {
    /// So many of each row.
    Each(usize),
    /// Those of a row from here on, to where the next row's begin.
    From(&'a [usize]),
}

impl RowPlaces<'_> {
    /// Those of a row.
    #[must_use]
    #[inline]
    pub fn of(self, row: usize) -> Range<usize> {
        match self {
            Self::Each(cols) => row * cols..(row + 1) * cols,
            Self::From(starts) => starts[row]..starts[row + 1],
        }
    }
}

/// The elements that a mask keeps of a matrix `[rows, cols]`, in its order: row after row, by column. The others are zero and take
/// no memory but the mask's.
#[derive(Clone, Debug)]
pub struct CompactWeight {
    mask: BitMask,
    values: Vec<f32>,
    /// Survivors before each row, and all of them.
    row_starts: Vec<usize>,
}

impl CompactWeight {
    /// What a mask keeps of a matrix of its shape.
    #[must_use]
    pub fn new(mask: BitMask, dense: &[f32]) -> Self {
        let ends = (0..mask.rows()).scan(0, |end, row| {
            *end += mask.count_ones_in(row..row + 1);
            Some(*end)
        });
        let row_starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let values = vec![0.0; row_starts[mask.rows()]];
        let mut new = Self { mask, values, row_starts };
        new.set_dense(dense);
        new
    }

    /// Which elements there are.
    #[must_use]
    pub fn mask(&self) -> &BitMask {
        &self.mask
    }

    /// The elements, in the mask's order.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Where the rows' elements lie.
    #[must_use]
    pub fn row_places(&self) -> RowPlaces<'_> {
        RowPlaces::From(&self.row_starts)
    }

    /// The elements, in the mask's order, to change, and where the rows' lie.
    #[must_use]
    pub fn rows_mut(&mut self) -> (&mut [f32], RowPlaces<'_>) {
        (&mut self.values, RowPlaces::From(&self.row_starts))
    }

    /// Takes the elements of another matrix `[rows, cols]`.
    pub fn set_dense(&mut self, dense: &[f32]) {
        gather(&self.mask, dense, &mut self.values, Write::Store);
    }

    /// The matrix with its zeros, `[rows, cols]`.
    #[must_use]
    pub fn to_dense(&self) -> Vec<f32> {
        let (cols, mut dense) = (self.mask.cols(), vec![0.0; self.mask.len()]);
        dense.par_chunks_exact_mut(cols.max(1)).with_min_len(rows_per_job(cols)).enumerate().for_each(
            |(row, dense)| {
                self.write_part(row, 0..cols, dense);
            },
        );
        dense
    }

    /// Writes some columns of a row with their zeros; they begin with a byte of the mask, and end with one or with the row.
    pub(crate) fn write_part(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let (first, end) = (cols.start / 8, cols.end.div_ceil(8));
        let is_whole = |col: usize| col.is_multiple_of(8);
        assert!(is_whole(cols.start) && (is_whole(cols.end) || cols.end == self.mask.cols()), "bytes of the mask");
        let bits = self.mask.row(row);
        let survivors = &self.values[self.row_starts[row] + count_bits(&bits[..first])..self.row_starts[row + 1]];
        expand_row(&bits[first..end], survivors, out);
    }

    /// Has a row brought into the caches, ahead of its use.
    pub(crate) fn fetch_row(&self, row: usize) {
        fetch(&self.values[self.row_places().of(row)]);
        fetch(self.mask.row(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{random, random_mask};

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
                    let own = &compact.values()[compact.row_places().of(row)];
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
