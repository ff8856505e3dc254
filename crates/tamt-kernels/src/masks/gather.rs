//! Survivors of a masked matrix as a list, in the mask's order: row after row, by column.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::cpu::{Isa, isa};
use crate::base::parallel::{PARTIALS, Shared, map_chunks, reduction_chunk};
use crate::base::sums::Write;
use crate::masks::bit_mask::BitMask;

/// Rows that a job takes, at least.
const JOB_ROWS: usize = 16;

/// `survivors (+)= ` the kept elements of `dense` `[rows, cols]`.
///
/// # Panics
/// If there are not as many survivors as set bits, or `dense` is of another shape.
pub fn gather(mask: &BitMask, dense: &[f32], survivors: &mut [f32], mode: Write) {
    assert_eq!(dense.len(), mask.len(), "a matrix of the mask's shape");
    Jobs::new(mask, survivors.len()).zip(survivors).for_each(|(rows, mut survivors)| {
        for row in rows {
            let done = gather_row(mask.row(row), &dense[row * mask.cols()..][..mask.cols()], survivors, mode);
            survivors = &mut survivors[done..];
        }
    });
}

/// `survivors (+)= ` the elements that bits keep, of which the first is bit 0; bits beyond the elements are zero. Returns how many
/// there are: `survivors` has at least so many.
pub(crate) fn gather_row(bits: &[u8], dense: &[f32], survivors: &mut [f32], mode: Write) -> usize {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: the instructions are there.
        #[allow(unsafe_code)]
        return unsafe { x86::gather(bits, dense, survivors, mode) };
    }
    let mut done = 0;
    for_each_bit(bits, |at| {
        survivors[done] = if mode == Write::Add { survivors[done] + dense[at] } else { dense[at] };
        done += 1;
    });
    done
}

/// Writes all elements of a part of a row: survivors to the places that bits keep, as [`gather_row`] has them, and zeros.
pub(crate) fn expand_row(bits: &[u8], survivors: &[f32], dense: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: the instructions are there.
        #[allow(unsafe_code)]
        return unsafe { x86::expand(bits, survivors, dense) };
    }
    dense.fill(0.0);
    let mut survivors = survivors.iter();
    for_each_bit(bits, |at| dense[at] = *survivors.next().expect("as many survivors as bits"));
}

/// Sixteen columns at a time: survivors are a few in each, and a branch for each would cost more than they do.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_mask_storeu_ps, _mm512_maskz_compress_ps,
        _mm512_maskz_expandloadu_ps, _mm512_maskz_loadu_ps,
    };

    use crate::base::sums::Write;

    /// Elements that are fetched ahead: memory is far away, and a page's first lines are not fetched by themselves.
    const AHEAD: usize = 1024;

    /// [`super::gather_row`].
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn gather(bits: &[u8], dense: &[f32], survivors: &mut [f32], mode: Write) -> usize {
        let mut done = 0;
        for (bits, at) in sixteens(bits) {
            let (kept, first) = places(bits);
            assert!(at + 16 - bits.leading_zeros() as usize <= dense.len(), "bits of the row's elements");
            let survivors = &mut survivors[done..done + kept];
            // SAFETY: set bits are elements of `dense`; so many survivors were taken.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(dense.as_ptr().wrapping_add(at + AHEAD).cast());
                let values = _mm512_maskz_loadu_ps(bits, dense.as_ptr().add(at));
                let mut values = _mm512_maskz_compress_ps(bits, values);
                if mode == Write::Add {
                    values = _mm512_add_ps(_mm512_maskz_loadu_ps(first, survivors.as_ptr()), values);
                }
                _mm512_mask_storeu_ps(survivors.as_mut_ptr(), first, values);
            }
            done += kept;
        }
        done
    }

    /// [`super::expand_row`].
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn expand(bits: &[u8], survivors: &[f32], dense: &mut [f32]) {
        assert_eq!(bits.len(), dense.len().div_ceil(8), "bits of the row's elements");
        let mut done = 0;
        for (bits, dense) in bits.chunks(2).zip(dense.chunks_mut(16)) {
            let bits = u16::from_le_bytes([bits[0], bits.get(1).copied().unwrap_or(0)]);
            let kept = bits.count_ones() as usize;
            let survivors = &survivors[done..done + kept];
            let there = u16::MAX >> (16 - dense.len());
            // SAFETY: so many survivors are read, and so many elements written.
            unsafe {
                let values = _mm512_maskz_expandloadu_ps(bits, survivors.as_ptr());
                _mm512_mask_storeu_ps(dense.as_mut_ptr(), there, values);
            }
            done += kept;
        }
    }

    /// Bits, sixteen at a time, with the place of the first; those without survivors are left out.
    #[inline(always)]
    fn sixteens(bits: &[u8]) -> impl Iterator<Item = (u16, usize)> {
        let pairs = bits.chunks(2).enumerate();
        pairs
            .map(|(i, two)| (u16::from_le_bytes([two[0], two.get(1).copied().unwrap_or(0)]), 16 * i))
            .filter(|(bits, _)| *bits != 0)
    }

    /// How many survivors bits stand for, and as many bits from the first on.
    #[inline(always)]
    fn places(bits: u16) -> (usize, u16) {
        let kept = bits.count_ones();
        (kept as usize, u16::MAX >> (16 - kept))
    }
}

/// Rows cut into jobs, with the survivors that lie before each.
struct Jobs {
    rows: usize,
    job_rows: usize,
    /// Survivors of each job.
    counts: [usize; PARTIALS],
}

impl Jobs {
    /// Jobs of a mask with this many survivors.
    fn new(mask: &BitMask, survivors: usize) -> Self {
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
    fn zip(self, survivors: &mut [f32]) -> impl ParallelIterator<Item = (Range<usize>, &mut [f32])> {
        let survivors = Shared::new(survivors);
        (0..PARTIALS).into_par_iter().map(move |job| {
            // SAFETY: each job has survivors of its own.
            (self.rows(job), unsafe { survivors.part(self.survivors(job)) })
        })
    }
}

/// Calls `f` with the place of each set bit.
#[inline(always)]
fn for_each_bit(bits: &[u8], mut f: impl FnMut(usize)) {
    for (byte, &bits) in bits.iter().enumerate() {
        let mut bits = bits;
        while bits != 0 {
            f(byte * 8 + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::random;
    use crate::reference::random_mask;

    #[test]
    fn survivors_are_gathered_in_the_masks_order() {
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
            }
        }
    }
}
