//! [`CompactWeight`]: the survivors of a masked weight matrix, without the dropped elements.

use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

use crate::base::{Values, Write, prefetch, rows_per_job, widen, with_buffer};
use crate::masks::bit_mask::BitMask;
use crate::masks::gather::{expand_row, gather};
use crate::masks::ranked::{RankedMask, RowRanges};

/// The survivors of a matrix `[rows, cols]` in mask order: row after row, by column. A dropped element is zero and
/// takes one bit of memory.
#[derive(Clone, Debug)]
pub struct CompactWeight {
    kept: RankedMask,
    values: Survivors,
}

/// The values of survivors, in mask order.
#[derive(Clone, Debug)]
pub enum Survivors {
    /// Values in f32.
    F32(Vec<f32>),
    /// Values in bf16, which take half the memory; kernels read them as f32.
    Bf16(Vec<bf16>),
}

impl Survivors {
    fn as_values(&self) -> Values<'_> {
        match self {
            Self::F32(values) => values.into(),
            Self::Bf16(values) => values.as_slice().into(),
        }
    }
}

impl CompactWeight {
    /// The survivors of `dense` `[rows, cols]` under `mask`.
    ///
    /// # Panics
    /// If `dense` is not of the mask's shape.
    pub fn new(mask: BitMask, dense: &[f32]) -> Self {
        let kept = RankedMask::new(mask);
        let mut new = Self { values: Survivors::F32(vec![0.0; kept.survivors()]), kept };
        new.set_dense(dense);
        new
    }

    /// A matrix of its mask and its survivors; `None` if there is not one value for each survivor.
    pub fn from_survivors(mask: BitMask, values: Survivors) -> Option<Self> {
        let kept = RankedMask::new(mask);
        (kept.survivors() == values.as_values().len()).then_some(Self { kept, values })
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
    pub fn values(&self) -> Values<'_> {
        self.values.as_values()
    }

    /// The survivors for an update, and the range of survivors of each row. Survivors in bf16 are stored in f32 from here
    /// on.
    pub fn rows_mut(&mut self) -> (&mut [f32], RowRanges<'_>) {
        (floats(&mut self.values), self.kept.row_ranges())
    }

    /// Replaces the survivors by the kept elements of `dense` `[rows, cols]`, in f32.
    pub fn set_dense(&mut self, dense: &[f32]) {
        gather(self.kept.mask(), dense, floats(&mut self.values), Write::Store);
    }

    /// The matrix `[rows, cols]`, dropped elements as zeros.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.mask().len()];
        self.write_to(&mut dense);
        dense
    }

    /// Writes the matrix `[rows, cols]`, dropped elements as zeros.
    ///
    /// # Panics
    /// If `dense` is not of the mask's shape.
    pub fn write_to(&self, dense: &mut [f32]) {
        assert_eq!(dense.len(), self.mask().len(), "a matrix of the mask's shape");
        let cols = self.mask().cols();
        dense
            .par_chunks_exact_mut(cols.max(1))
            .with_min_len(rows_per_job(cols))
            .enumerate()
            .for_each(|(row, dense)| self.write_part(row, 0..cols, dense));
    }

    /// Writes columns `cols` of a row, dropped elements as zeros.
    ///
    /// # Panics
    /// If `cols` does not start at a multiple of 8, or ends neither at a multiple of 8 nor at the row's end.
    pub(crate) fn write_part(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let bits = self.mask().row(row);
        let ends_byte = cols.end.is_multiple_of(8) || cols.end == self.mask().cols();
        assert!(cols.start.is_multiple_of(8) && ends_byte, "columns of whole bytes of the mask");
        let survivors = self.kept.of_row_from(row, cols.start);
        let bits = &bits[cols.start / 8..cols.end.div_ceil(8)];
        match &self.values {
            Survivors::F32(values) => expand_row(bits, &values[survivors], out),
            Survivors::Bf16(values) => {
                let values = &values[survivors];
                let values = &values[..values.len().min(cols.len())];
                with_buffer(values.len(), |wide: &mut [f32]| {
                    widen(values, wide);
                    expand_row(bits, wide, out);
                });
            }
        }
    }

    /// Prefetches a row into L1.
    pub(crate) fn prefetch_row(&self, row: usize) {
        self.values().part(self.kept.of_row(row)).prefetch();
        prefetch(self.mask().row(row));
    }
}

/// Survivors to write, in f32.
fn floats(values: &mut Survivors) -> &mut Vec<f32> {
    if let Survivors::Bf16(halves) = values {
        let mut wide = vec![0.0; halves.len()];
        widen(halves, &mut wide);
        *values = Survivors::F32(wide);
    }
    match values {
        Survivors::F32(values) => values,
        Survivors::Bf16(_) => unreachable!("the values are in f32 since the lines above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::round;
    use crate::reference::{random, random_mask, unless_miri};

    #[test]
    fn rows_and_parts_of_rows_have_the_survivors_of_the_mask() {
        let shapes = unless_miri(
            &[(1, 1), (7, 63), (65, 383), (3, 64), (1300, 9), (0, 4), (4, 0)][..],
            &[(1, 1), (2, 51), (0, 4), (4, 0)],
        );
        for &(rows, cols) in shapes {
            for mask in [random_mask(rows, cols, 0.3), BitMask::zeros(rows, cols), BitMask::ones(rows, cols)] {
                let w = random(rows * cols, 1);
                let mut masked = w.clone();
                mask.mask_in_place(&mut masked);
                let mut compact = CompactWeight::new(mask.clone(), &w);
                assert_eq!(compact.to_dense(), masked);
                for row in 0..rows {
                    let own = compact.kept().of_row(row);
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

    #[test]
    fn survivors_in_bf16_are_the_rounded_survivors() {
        let shapes =
            unless_miri(&[(1, 1), (7, 63), (65, 383), (3, 64), (0, 4), (4, 0)][..], &[(1, 1), (2, 51), (0, 4), (4, 0)]);
        for &(rows, cols) in shapes {
            let (w, mask) = (random(rows * cols, 1), random_mask(rows, cols, 0.3));
            let mut rounded = vec![bf16::ZERO; w.len()];
            round(&w, &mut rounded);
            let kept = |i: &usize| mask.get(i / cols, i % cols);
            let survivors: Vec<bf16> = (0..w.len()).filter(kept).map(|i| rounded[i]).collect();
            let mut wide = vec![0.0; w.len()];
            widen(&rounded, &mut wide);
            let expected = CompactWeight::new(mask.clone(), &wide);
            let mut compact = CompactWeight::from_survivors(mask.clone(), Survivors::Bf16(survivors.clone())).unwrap();
            assert_eq!(compact.to_dense(), expected.to_dense());
            for row in 0..rows {
                for from in (0..cols).step_by(24) {
                    let part = from..cols.min(from + 48);
                    let mut out = vec![9.0; part.len()];
                    compact.write_part(row, part.clone(), &mut out);
                    assert_eq!(out, expected.to_dense()[row * cols..][part]);
                }
            }
            let (values, _) = compact.rows_mut();
            values.iter_mut().for_each(|v| *v *= 2.0);
            assert!(compact.to_dense().iter().zip(expected.to_dense()).all(|(twice, v)| *twice == 2.0 * v));
            let one_more = [survivors, vec![bf16::ONE]].concat();
            assert!(CompactWeight::from_survivors(mask, Survivors::Bf16(one_more)).is_none());
        }
    }
}
