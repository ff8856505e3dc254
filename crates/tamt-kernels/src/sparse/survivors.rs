//! Survivors of a masked matrix as a list, in the mask's order: row after row, by column.

use std::ops::Range;

use crate::bits::BitMask;
use crate::linear::Write;
use crate::parallel::{PARTIALS, Shared, map_chunks, reduction_chunk};

use rayon::prelude::*;

/// Rows that a job takes, at least.
const JOB_ROWS: usize = 16;

/// `survivors (+)= ` the kept elements of `dense` `[rows, cols]`.
///
/// # Panics
/// If there are not as many survivors as set bits, or `dense` is of another shape.
pub fn gather(mask: &BitMask, dense: &[f32], survivors: &mut [f32], mode: Write) {
    assert_eq!(dense.len(), mask.len(), "a matrix of the mask's shape");
    let survivors = Jobs::new(mask, survivors.len()).zip(survivors);
    survivors.for_each(|(rows, survivors)| {
        let mut survivors = survivors.iter_mut();
        for_each_kept(mask, rows, |at| {
            let survivor = survivors.next().expect("as many survivors as bits");
            *survivor = if mode == Write::Add { *survivor + dense[at] } else { dense[at] };
        });
    });
}

/// Writes survivors to their places in `dense` `[rows, cols]`; dropped elements stay as they are.
///
/// # Panics
/// As [`gather`].
#[allow(unsafe_code)]
pub fn scatter(mask: &BitMask, survivors: &[f32], dense: &mut [f32]) {
    assert_eq!(dense.len(), mask.len(), "a matrix of the mask's shape");
    let jobs = Jobs::new(mask, survivors.len());
    let (cols, dense) = (mask.cols(), Shared::new(dense));
    (0..PARTIALS).into_par_iter().for_each(|job| {
        let rows = jobs.rows(job);
        let first = rows.start * cols;
        // SAFETY: each job has rows of its own.
        let dense = unsafe { dense.part(first..rows.end * cols) };
        let mut survivors = survivors[jobs.survivors(job)].iter();
        for_each_kept(mask, rows, |at| dense[at - first] = *survivors.next().expect("as many survivors as bits"));
    });
}

/// Rows cut into jobs, with the survivors that lie before each.
pub(crate) struct Jobs {
    rows: usize,
    job_rows: usize,
    /// Survivors of each job.
    counts: [usize; PARTIALS],
}

impl Jobs {
    /// Jobs of a mask with this many survivors.
    pub(crate) fn new(mask: &BitMask, survivors: usize) -> Self {
        let counts = map_chunks(mask.rows(), JOB_ROWS, |rows| mask.count_ones_in(rows));
        assert_eq!(counts.iter().sum::<usize>(), survivors, "a value for each survivor");
        Self { rows: mask.rows(), job_rows: reduction_chunk(mask.rows(), JOB_ROWS), counts }
    }

    fn rows(&self, job: usize) -> Range<usize> {
        self.rows.min(job * self.job_rows)..self.rows.min((job + 1) * self.job_rows)
    }

    fn survivors(&self, job: usize) -> Range<usize> {
        let first = self.counts[..job].iter().sum();
        first..first + self.counts[job]
    }

    /// Each job's rows with its part of the survivors.
    #[allow(unsafe_code)]
    pub(crate) fn zip(self, survivors: &mut [f32]) -> impl ParallelIterator<Item = (Range<usize>, &mut [f32])> {
        let survivors = Shared::new(survivors);
        (0..PARTIALS).into_par_iter().map(move |job| {
            // SAFETY: each job has survivors of its own.
            (self.rows(job), unsafe { survivors.part(self.survivors(job)) })
        })
    }
}

/// Calls `f` with the place of each kept element of some rows.
#[inline(always)]
pub(crate) fn for_each_kept(mask: &BitMask, rows: Range<usize>, mut f: impl FnMut(usize)) {
    for row in rows {
        for (byte, &bits) in mask.row(row).iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                f(row * mask.cols() + byte * 8 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{random, random_mask};

    #[test]
    fn survivors_are_gathered_and_scattered_in_the_masks_order() {
        for (rows, cols) in [(1, 1), (7, 63), (65, 383), (3, 64), (1300, 9), (0, 4), (4, 0)] {
            for mask in [random_mask(rows, cols, 0.3), BitMask::zeros(rows, cols), BitMask::ones(rows, cols)] {
                let w = random(rows * cols, 1);
                let kept = |i: usize| mask.get(i / cols, i % cols);
                let expected: Vec<f32> = (0..w.len()).filter(|&i| kept(i)).map(|i| w[i]).collect();
                let mut survivors = vec![9.0; mask.count_ones()];
                gather(&mask, &w, &mut survivors, Write::Store);
                assert_eq!(survivors, expected);
                gather(&mask, &w, &mut survivors, Write::Add);
                assert!(survivors.iter().zip(&expected).all(|(sum, value)| *sum == 2.0 * value));

                let mut dense = vec![7.0; rows * cols];
                scatter(&mask, &expected, &mut dense);
                for (i, value) in dense.iter().enumerate() {
                    assert_eq!(*value, if kept(i) { w[i] } else { 7.0 });
                }
            }
        }
    }
}
