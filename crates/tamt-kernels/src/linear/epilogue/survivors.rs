use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_mask_storeu_ps, _mm512_maskz_compress_ps, _mm512_maskz_loadu_ps,
};
use std::marker::PhantomData;
use std::ops::Range;

use crate::base::parallel::Shared;
use crate::gemm::bf16::rows::{PAIR, rows_of, sums_of};
use crate::gemm::epilogue::{Epilogue, OutputTile};
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::linear::epilogue::gradient::kept_by;
use crate::masks::bit_mask::BitMask;
use crate::masks::ranked::RankedMask;

/// What a mask keeps of a block of `G`.
pub(crate) struct Survivors<'a, const ADD: bool> {
    mask: &'a BitMask,
    /// The block's first row and column.
    first: (usize, usize),
    /// The place of the next one of each row of the block.
    places: Vec<*mut f32>,
    out: PhantomData<Shared<'a, f32>>,
}

impl<'a, const ADD: bool> Survivors<'a, ADD> {
    /// Of the block of some rows from column `col` on, whose survivors are among those of `out`.
    ///
    /// # Panics
    /// If `out` does not have all survivors of the mask.
    pub(crate) fn new(mask: &'a RankedMask, rows: Range<usize>, col: usize, out: Shared<'a, f32>) -> Self {
        assert_eq!(out.len(), mask.survivors(), "a place for each survivor");
        let first = (rows.start, col);
        let places = rows.map(|row| out.pointer(mask.of_row_from(row, col).start)).collect();
        Self { mask: mask.mask(), first, places, out: PhantomData }
    }

    /// What a mask keeps of a vector, one after the other; returns the place after the last.
    ///
    /// # Safety
    /// As for [`Epilogue::part`], and they are to be there.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn put(place: *mut f32, kept: u16, g: __m512) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe {
            let count = kept.count_ones();
            let some = ((1u32 << count) - 1) as u16;
            let mut values = _mm512_maskz_compress_ps(kept, g);
            if ADD {
                values = _mm512_add_ps(_mm512_maskz_loadu_ps(some, place), values);
            }
            _mm512_mask_storeu_ps(place, some, values);
            place.add(count as usize)
        }
    }
}

#[allow(unsafe_code)]
impl<const ADD: bool> Epilogue for Survivors<'_, ADD> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize) {
        let (first, col, stride) = (self.first.0 + square.row, self.first.1 + square.col, self.mask.row_bytes());
        let bits = self.mask.as_bytes();
        for i in rows_of(square, part) {
            // SAFETY: rows and columns of the block, of whose survivors each has the place that was measured; the instructions are
            // the caller's promise.
            unsafe {
                let kept = match square.cols {
                    OUTPUT_TILE => bits.as_ptr().add((first + i) * stride + col / 8).cast::<u32>().read_unaligned(),
                    _ => kept_by(self.mask, first + i, col),
                };
                let [low, high] = sums_of(square, i);
                let place = self.places.get_unchecked_mut(square.row + i);
                *place = Self::put(Self::put(*place, kept as u16, low), (kept >> TILE) as u16, high);
            }
        }
    }
}
