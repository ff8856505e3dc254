//! What becomes of the squares of a weight gradient.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_mask_storeu_epi16, _mm512_mask_storeu_ps, _mm512_maskz_compress_ps,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_mul_ps,
};
use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use super::{PAIR, Row, bits, halves, load, rows_of, store, sum, sums_of, widened};
use crate::bits::{BitMask, first_bits};
use crate::linear::WeightGrad;
use crate::parallel::Shared;
use crate::precision::Values;
use crate::product::TILE;
use crate::sparse::RankedMask;
use crate::tiles::SQUARE;
use crate::tiles::pack::rounded;
use crate::tiles::{Finish, Square};

/// A block of `G = dyᵀ x`, and what it becomes.
pub(crate) struct Gradient<'a> {
    pub(crate) epilogue: WeightGrad<'a>,
    /// Columns of `G`.
    pub(crate) cols: usize,
    /// The block's first row and column.
    pub(crate) first: (usize, usize),
    pub(crate) out: GradientOut<'a>,
    /// Whether it is added to what is there.
    pub(crate) add: bool,
}

/// Where it goes.
pub(crate) enum GradientOut<'a> {
    /// `[rows, cols]`
    F32(Shared<'a, f32>),
    /// The same.
    Bf16(Shared<'a, bf16>),
}

/// Which of 32 columns of a row a mask keeps, the first in the lowest bit; `col` is a multiple of 32.
#[inline(always)]
fn kept_by(mask: &BitMask, row: usize, col: usize) -> u32 {
    first_bits(&mask.row(row)[col / 8..])
}

#[allow(unsafe_code)]
impl Gradient<'_> {
    /// The halves of a row of 32 columns, as the epilogue has them.
    #[inline(always)]
    unsafe fn changed(&self, g: Row, row: usize, col: usize, there: u32) -> Row {
        // SAFETY: the caller's instructions; what is there of the row is read.
        unsafe {
            match self.epilogue {
                WeightGrad::Dense => g,
                WeightGrad::Survivors(_) => unreachable!("survivors are gathered"),
                WeightGrad::Masked(mask) => {
                    let [low, high] = halves(kept_by(mask, row, col));
                    [_mm512_maskz_mov_ps(low, g[0]), _mm512_maskz_mov_ps(high, g[1])]
                }
                WeightGrad::Score(w) => {
                    let at = row * self.cols + col;
                    let w = match w {
                        Values::F32(w) => load(w.as_ptr().add(at), there),
                        Values::Bf16(w) => widened(_mm512_maskz_loadu_epi16(there, w.as_ptr().add(at).cast())),
                    };
                    [_mm512_mul_ps(g[0], w[0]), _mm512_mul_ps(g[1], w[1])]
                }
            }
        }
    }
}

#[allow(unsafe_code)]
impl Finish for Gradient<'_> {
    const PARTS: usize = SQUARE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize) {
        let there = bits(square.cols);
        for i in rows_of(square, part) {
            let (row, col) = (self.first.0 + square.row + i, self.first.1 + square.col);
            let at = row * self.cols + col;
            // SAFETY: rows and columns of the block; the instructions are the caller's promise.
            unsafe {
                let mut g = self.changed(sums_of(square, i), row, col, there);
                match &self.out {
                    GradientOut::F32(out) => {
                        let out = out.part(at..at + square.cols).as_mut_ptr();
                        if self.add {
                            g = sum(g, load(out, there));
                        }
                        store(g, out, there);
                    }
                    GradientOut::Bf16(out) => {
                        let out = out.part(at..at + square.cols).as_mut_ptr().cast();
                        if self.add {
                            g = sum(g, widened(_mm512_maskz_loadu_epi16(there, out)));
                        }
                        _mm512_mask_storeu_epi16(out, there, rounded(g[0], g[1]));
                    }
                }
            }
        }
    }
}

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
    /// As for [`Finish::part`], and they are to be there.
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
impl<const ADD: bool> Finish for Survivors<'_, ADD> {
    const PARTS: usize = SQUARE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize) {
        let (first, col, stride) = (self.first.0 + square.row, self.first.1 + square.col, self.mask.row_bytes());
        let bits = self.mask.as_bytes();
        for i in rows_of(square, part) {
            // SAFETY: rows and columns of the block, of whose survivors each has the place that was measured; the instructions are
            // the caller's promise.
            unsafe {
                let kept = match square.cols {
                    SQUARE => bits.as_ptr().add((first + i) * stride + col / 8).cast::<u32>().read_unaligned(),
                    _ => kept_by(self.mask, first + i, col),
                };
                let [low, high] = sums_of(square, i);
                let place = self.places.get_unchecked_mut(square.row + i);
                *place = Self::put(Self::put(*place, kept as u16, low), (kept >> TILE) as u16, high);
            }
        }
    }
}
