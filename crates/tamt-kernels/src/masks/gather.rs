//! Gather and scatter of the survivors of a masked matrix, a list in mask order: row after row, by column.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};
use crate::base::{PARTIALS, Shared, Write, map_chunks, reduction_chunk};
use crate::masks::bit_mask::BitMask;

/// Smallest number of rows per job.
const JOB_ROWS: usize = 16;

/// Gathers the kept elements of `dense` `[rows, cols]`: `survivors = dense[B]`, or `+=` with [`Write::Add`].
///
/// # Panics
/// If `survivors` does not have one element per set bit, or `dense` is not of the mask's shape.
pub fn gather(mask: &BitMask, dense: &[f32], survivors: &mut [f32], mode: Write) {
    assert_eq!(dense.len(), mask.len(), "a matrix of the mask's shape");
    let (rows, job_rows) = (mask.rows(), reduction_chunk(mask.rows(), JOB_ROWS));
    let counts: [usize; PARTIALS] = map_chunks(rows, JOB_ROWS, |rows| mask.count_ones_in(rows));
    assert_eq!(counts.iter().sum::<usize>(), survivors.len(), "a value for each survivor");
    let survivors = Shared::new(survivors);
    (0..PARTIALS).into_par_iter().for_each(|job| {
        let first = counts[..job].iter().sum();
        // SAFETY: the parts of two jobs are disjoint: they cut the list at the running sum of `counts`.
        let mut survivors = unsafe { survivors.part(first..first + counts[job]) };
        for row in job * job_rows..rows.min((job + 1) * job_rows) {
            let gathered = gather_row(mask.row(row), &dense[row * mask.cols()..][..mask.cols()], survivors, mode);
            survivors = &mut survivors[gathered..];
        }
    });
}

/// Gathers the elements of `dense` whose bits are set, starting with bit 0, and returns their number. `survivors` may
/// be longer.
///
/// # Panics
/// If `survivors` is shorter than the number of set bits, or a bit beyond `dense` is set.
pub(crate) fn gather_row(bits: &[u8], dense: &[f32], survivors: &mut [f32], mode: Write) -> usize {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: AVX-512F and POPCNT are present: `isa()` returned `Avx512`.
        return unsafe { x86::gather(bits, dense, survivors, mode) };
    }
    let mut gathered = 0;
    for_each_bit(bits, |at| {
        survivors[gathered] = if mode == Write::Add { survivors[gathered] + dense[at] } else { dense[at] };
        gathered += 1;
    });
    gathered
}

/// The inverse of [`gather_row`]: writes the survivors to the elements of `dense` whose bits are set, and zeros
/// elsewhere.
///
/// # Panics
/// If `survivors` is shorter than the number of set bits.
pub(crate) fn expand_row(bits: &[u8], survivors: &[f32], dense: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: AVX-512F and POPCNT are present: `isa()` returned `Avx512`.
        return unsafe { x86::expand(bits, survivors, dense) };
    }
    dense.fill(0.0);
    let mut survivors = survivors.iter();
    for_each_bit(bits, |at| dense[at] = *survivors.next().expect("as many survivors as bits"));
}

/// AVX-512 variants on 16 columns at a time: a compress or expand instruction replaces a branch per survivor.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use crate::base::sums::Write;

    /// Prefetch distance in elements, across page ends, where the hardware prefetcher stops.
    const AHEAD: usize = 1024;

    /// [`super::gather_row`].
    ///
    /// # Safety
    /// The CPU has AVX-512F and POPCNT.
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn gather(bits: &[u8], dense: &[f32], survivors: &mut [f32], mode: Write) -> usize {
        let mut gathered = 0;
        for (i, bits) in bits.chunks(2).map(word).enumerate().filter(|(_, bits)| *bits != 0) {
            let (at, kept) = (16 * i, bits.count_ones() as usize);
            let first = u16::MAX >> (16 - kept);
            assert!(at + 16 - bits.leading_zeros() as usize <= dense.len(), "bits of the row's elements");
            let survivors = &mut survivors[gathered..gathered + kept];
            // SAFETY: the masked load reads elements of `dense` whose bits are set: the assertion above bounds the last
            // one. The masked load and store of survivors touch `kept` elements: the slice above has that length. A
            // prefetch reads nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(dense.as_ptr().wrapping_add(at + AHEAD).cast());
                let values = _mm512_maskz_loadu_ps(bits, dense.as_ptr().add(at));
                let mut values = _mm512_maskz_compress_ps(bits, values);
                if mode == Write::Add {
                    values = _mm512_add_ps(_mm512_maskz_loadu_ps(first, survivors.as_ptr()), values);
                }
                _mm512_mask_storeu_ps(survivors.as_mut_ptr(), first, values);
            }
            gathered += kept;
        }
        gathered
    }

    /// [`super::expand_row`].
    ///
    /// # Safety
    /// The CPU has AVX-512F and POPCNT.
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn expand(bits: &[u8], survivors: &[f32], dense: &mut [f32]) {
        assert_eq!(bits.len(), dense.len().div_ceil(8), "bits of the row's elements");
        let mut used = 0;
        for (bits, dense) in bits.chunks(2).map(word).zip(dense.chunks_mut(16)) {
            let kept = bits.count_ones() as usize;
            let survivors = &survivors[used..used + kept];
            let lanes = u16::MAX >> (16 - dense.len());
            // SAFETY: the expanding load reads `kept` survivors: the slice above has that length. The masked store
            // writes `dense.len()` elements: `lanes` has that many bits.
            unsafe {
                let values = _mm512_maskz_expandloadu_ps(bits, survivors.as_ptr());
                _mm512_mask_storeu_ps(dense.as_mut_ptr(), lanes, values);
            }
            used += kept;
        }
    }

    /// One or two bytes as a word, padded with zeros.
    #[inline(always)]
    fn word(bytes: &[u8]) -> u16 {
        u16::from_le_bytes([bytes[0], bytes.get(1).copied().unwrap_or(0)])
    }
}

/// Calls `f` with the index of each set bit.
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
    use crate::reference::{random, random_mask, unless_miri};

    #[test]
    fn survivors_are_gathered_in_the_masks_order() {
        let shapes = unless_miri(
            &[(1, 1), (7, 63), (65, 383), (3, 64), (1300, 9), (0, 4), (4, 0)][..],
            &[(1, 1), (2, 19), (17, 3), (0, 4), (4, 0)],
        );
        for &(rows, cols) in shapes {
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
