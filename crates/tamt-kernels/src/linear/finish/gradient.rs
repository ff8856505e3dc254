//! What becomes of the squares of a weight gradient.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_mask_storeu_epi16, _mm512_mask_storeu_ps, _mm512_maskz_compress_ps, _mm512_maskz_loadu_epi16,
    _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_mul_ps,
};

use half::bf16;

use super::{PAIR, Row, bits, halves, load, rows_of, store, sum, sums_of, widened};
use crate::amx::SQUARE;
use crate::amx::pack::rounded;
use crate::amx::pipeline::{Finish, Square};
use crate::bits::{BitMask, first_bits};
use crate::linear::WeightGrad;
use crate::parallel::Shared;
use crate::precision::Values;

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
    /// What the epilogue's mask keeps, with the place of the next one of each row of the block.
    Survivors(Shared<'a, f32>, Vec<usize>),
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
                WeightGrad::Dense | WeightGrad::Survivors(_) => g,
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
                match &mut self.out {
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
                    GradientOut::Survivors(out, places) => {
                        let WeightGrad::Survivors(mask) = self.epilogue else { return };
                        for (kept, g) in halves(kept_by(mask, row, col)).into_iter().zip(g) {
                            let (count, place) = (kept.count_ones() as usize, &mut places[square.row + i]);
                            let some = halves(bits(count))[0];
                            let out = out.part(*place..*place + count).as_mut_ptr();
                            let mut values = _mm512_maskz_compress_ps(kept, g);
                            if self.add {
                                values = _mm512_add_ps(_mm512_maskz_loadu_ps(some, out), values);
                            }
                            _mm512_mask_storeu_ps(out, some, values);
                            *place += count;
                        }
                    }
                }
            }
        }
    }
}
