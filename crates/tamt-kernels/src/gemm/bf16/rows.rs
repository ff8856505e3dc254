use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cvtepu16_epi32,
    _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_slli_epi32,
};
use std::ops::Range;

use crate::gemm::epilogue::OutputTile;
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::ops::activation::vectors::Vectors;

/// Rows of a part.
pub(crate) const PAIR: usize = 2;

/// A row of a square, by halves.
pub(crate) type Row = [__m512; 2];

/// A pair of rows, by halves.
pub(crate) type Pair = Vectors;

const _: () = assert!(size_of::<Pair>() == PAIR * size_of::<Row>());

/// The lowest bits, one for each of so many elements: those that are there.
#[inline(always)]
pub(crate) fn bits(elements: usize) -> u32 {
    u32::MAX.checked_shr((OUTPUT_TILE - elements.min(OUTPUT_TILE)) as u32).unwrap_or(0)
}

/// Of those, the bits of each half of a row.
#[inline(always)]
pub(crate) fn halves(bits: u32) -> [u16; 2] {
    [bits as u16, (bits >> TILE) as u16]
}

/// Rows of a part that the block has.
#[inline(always)]
pub(crate) fn rows_of(square: &OutputTile<'_>, part: usize) -> Range<usize> {
    PAIR * part..(PAIR * (part + 1)).min(square.rows)
}

/// A row of a square's sums.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn sums_of(square: &OutputTile<'_>, row: usize) -> Row {
    let sums = square.sums.0[row].as_ptr();
    // SAFETY: the caller's instructions.
    unsafe { [_mm512_loadu_ps(sums), _mm512_loadu_ps(sums.add(TILE))] }
}

/// 32 floats, of which some are there.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn load(from: *const f32, there: u32) -> Row {
    let [low, high] = halves(there);
    // SAFETY: the caller's.
    unsafe { [_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(TILE))] }
}

/// Writes those of 32 floats that are there.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn store(row: Row, out: *mut f32, there: u32) {
    let [low, high] = halves(there);
    // SAFETY: the caller's.
    unsafe {
        _mm512_mask_storeu_ps(out, low, row[0]);
        _mm512_mask_storeu_ps(out.wrapping_add(TILE), high, row[1]);
    }
}

#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn sum(a: Row, b: Row) -> Row {
    // SAFETY: the caller's instructions.
    unsafe { [_mm512_add_ps(a[0], b[0]), _mm512_add_ps(a[1], b[1])] }
}

/// 32 elements in bf16 as floats.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn widened(row: __m512i) -> Row {
    // SAFETY: the caller's instructions.
    unsafe {
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(row));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)), _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high))]
    }
}
