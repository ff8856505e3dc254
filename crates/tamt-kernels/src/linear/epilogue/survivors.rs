//! The epilogue of the survivors of a weight gradient: `G[B]`, a list in mask order.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use crate::base::Shared;
use crate::gemm::bf16::rows::{PAIR, rows_of, sums_of};
use crate::gemm::{Epilogue, OUTPUT_TILE, OutputTile, TILE};
use crate::linear::epilogue::gradient::mask_bits;
use crate::masks::{BitMask, RankedMask};

/// Stores the survivors of a strip of `G`, or adds them to `out` if `ADD`.
pub(crate) struct GatherSurvivors<'a, const ADD: bool> {
    mask: &'a BitMask,
    /// The strip's first row and column in `G`.
    first: (usize, usize),
    /// The next survivor of each row of the strip.
    next: Vec<*mut f32>,
    out: PhantomData<Shared<'a, f32>>,
}

impl<'a, const ADD: bool> GatherSurvivors<'a, ADD> {
    /// The epilogue of the strip of rows `rows` from column `col` on; `out` has the survivors of the whole mask.
    ///
    /// # Panics
    /// If `out` does not have one element per survivor of the mask.
    pub(crate) fn new(mask: &'a RankedMask, rows: Range<usize>, col: usize, out: Shared<'a, f32>) -> Self {
        assert_eq!(out.len(), mask.survivors(), "an element per survivor");
        let first = (rows.start, col);
        let next = rows.map(|row| out.pointer(mask.of_row_from(row, col).start)).collect();
        Self { mask: mask.mask(), first, next, out: PhantomData }
    }

    /// Writes the elements of `g` whose bits are set in `kept` to `out`, or adds them; returns the pointer behind the
    /// last.
    ///
    /// # Safety
    /// * The processor has AVX-512F.
    /// * `out` points to as many floats as `kept` has set bits, and no other thread accesses these floats.
    #[inline(always)]
    unsafe fn compress(out: *mut f32, kept: u16, g: __m512) -> *mut f32 {
        // SAFETY: the masked load and store touch `count` floats: preconditions of this function.
        unsafe {
            let count = kept.count_ones();
            let some = ((1u32 << count) - 1) as u16;
            let mut values = _mm512_maskz_compress_ps(kept, g);
            if ADD {
                values = _mm512_add_ps(_mm512_maskz_loadu_ps(some, out), values);
            }
            _mm512_mask_storeu_ps(out, some, values);
            out.add(count as usize)
        }
    }
}

impl<const ADD: bool> Epilogue for GatherSurvivors<'_, ADD> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize) {
        let (first, col, stride) = (self.first.0 + tile.row, self.first.1 + tile.col, self.mask.row_bytes());
        let bits = self.mask.as_bytes();
        for i in rows_of(tile, part) {
            // SAFETY: AVX-512F is present: a precondition of `part`. `next` has an element per row of the
            // strip: `new`. A tile of 32 columns has the four mask bytes that are read at once. The tiles of a row come
            // in order of their columns, so that `next` stays within the row's survivors, whose number `new` checked
            // for all rows; only this thread writes them: the contract of `Strip::multiply_tiles`.
            unsafe {
                let kept = match tile.cols {
                    OUTPUT_TILE => bits.as_ptr().add((first + i) * stride + col / 8).cast::<u32>().read_unaligned(),
                    _ => mask_bits(self.mask, first + i, col),
                };
                let [low, high] = sums_of(tile, i);
                let next = self.next.get_unchecked_mut(tile.row + i);
                *next = Self::compress(Self::compress(*next, kept as u16, low), (kept >> TILE) as u16, high);
            }
        }
    }
}
