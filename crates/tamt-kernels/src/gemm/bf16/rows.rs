//! Rows of output tiles in vectors, for epilogues.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::gemm::epilogue::OutputTile;
use crate::gemm::layout::{OUTPUT_TILE, TILE};

/// Rows that a part of an epilogue takes.
pub(crate) const PAIR: usize = 2;

/// A row of an output tile: columns 0 to 15 and 16 to 31.
pub(crate) type Row = [__m512; 2];

/// Two rows, each in two halves.
pub(crate) type Pair = [__m512; 2 * PAIR];

/// A lane mask of the first `elements` of a row; all 32 if there are more.
#[inline(always)]
pub(crate) fn bits(elements: usize) -> u32 {
    u32::MAX.checked_shr((OUTPUT_TILE - elements.min(OUTPUT_TILE)) as u32).unwrap_or(0)
}

/// The lane masks of both halves of a row.
#[inline(always)]
pub(crate) fn halves(bits: u32) -> [u16; 2] {
    [bits as u16, (bits >> TILE) as u16]
}

/// Rows of a part, without padding.
#[inline(always)]
pub(crate) fn rows_of(tile: &OutputTile<'_>, part: usize) -> Range<usize> {
    PAIR * part..(PAIR * (part + 1)).min(tile.rows)
}

/// The sums of a row.
///
/// # Safety
/// The CPU has AVX-512 F, and the caller is compiled for it.
#[inline(always)]
pub(crate) unsafe fn sums_of(tile: &OutputTile<'_>, row: usize) -> Row {
    let sums = tile.sums.0[row].as_ptr();
    // SAFETY: AVX-512 F by the `# Safety` contract; a row has 32 floats.
    unsafe { [_mm512_loadu_ps(sums), _mm512_loadu_ps(sums.add(TILE))] }
}

/// Loads the lanes `there` of 32 floats; the others are 0.
///
/// # Safety
/// The CPU has AVX-512 F, the caller is compiled for it, and `from` is valid for reads of the lanes `there`.
#[inline(always)]
pub(crate) unsafe fn load(from: *const f32, there: u32) -> Row {
    let [low, high] = halves(there);
    // SAFETY: AVX-512 F and the lanes of the masks by the `# Safety` contract; masked lanes are not read.
    unsafe { [_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(TILE))] }
}

/// Writes the lanes `there` of 32 floats.
///
/// # Safety
/// The CPU has AVX-512 F, the caller is compiled for it, and `out` is valid for writes of the lanes `there`.
#[inline(always)]
pub(crate) unsafe fn store(row: Row, out: *mut f32, there: u32) {
    let [low, high] = halves(there);
    // SAFETY: AVX-512 F and the lanes of the masks by the `# Safety` contract; masked lanes are not written.
    unsafe {
        _mm512_mask_storeu_ps(out, low, row[0]);
        _mm512_mask_storeu_ps(out.wrapping_add(TILE), high, row[1]);
    }
}

/// `a + b`
///
/// # Safety
/// The CPU has AVX-512 F, and the caller is compiled for it.
#[inline(always)]
pub(crate) unsafe fn sum(a: Row, b: Row) -> Row {
    // SAFETY: AVX-512 F by the `# Safety` contract.
    unsafe { [_mm512_add_ps(a[0], b[0]), _mm512_add_ps(a[1], b[1])] }
}

/// Converts 32 elements from bf16 to f32.
///
/// # Safety
/// The CPU has AVX-512 F, and the caller is compiled for it.
#[inline(always)]
pub(crate) unsafe fn widened(row: __m512i) -> Row {
    // SAFETY: AVX-512 F by the `# Safety` contract.
    unsafe {
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(row));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)), _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high))]
    }
}
