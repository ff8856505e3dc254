//! What becomes of the squares of a weight gradient.

use half::bf16;
use std::arch::x86_64::{_mm512_mask_storeu_epi16, _mm512_maskz_loadu_epi16, _mm512_maskz_mov_ps, _mm512_mul_ps};

use crate::base::parallel::Shared;
use crate::base::values::Values;
use crate::gemm::bf16::round::round_pair;
use crate::gemm::bf16::rows::{PAIR, Row, bits, halves, load, rows_of, store, sum, sums_of, widened};
use crate::gemm::epilogue::{Epilogue, OutputTile};
use crate::gemm::layout::OUTPUT_TILE;
use crate::masks::bit_mask::BitMask;
use crate::masks::bits::first_bits;
use crate::masks::grad_epilogue::GradEpilogue;

/// A block of `G = dyᵀ x`, and what it becomes.
pub(crate) struct Gradient<'a> {
    pub(crate) epilogue: GradEpilogue<'a>,
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
pub(crate) fn kept_by(mask: &BitMask, row: usize, col: usize) -> u32 {
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
                GradEpilogue::Dense => g,
                GradEpilogue::Survivors(_) => unreachable!("survivors are gathered"),
                GradEpilogue::Masked(mask) => {
                    let [low, high] = halves(kept_by(mask, row, col));
                    [_mm512_maskz_mov_ps(low, g[0]), _mm512_maskz_mov_ps(high, g[1])]
                }
                GradEpilogue::Score(w) => {
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
impl Epilogue for Gradient<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize) {
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
                        _mm512_mask_storeu_epi16(out, there, round_pair(g[0], g[1]));
                    }
                }
            }
        }
    }
}
