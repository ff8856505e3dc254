//! What becomes of the sums of products by tiles, in the parts that [`crate::tiles`] does.
//!
//! All is inlined into [`crate::tiles::squares`], whose instructions it may use: hence loops, and no closures that an adapter
//! calls.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_loadu_ps, _mm512_mask_storeu_epi16,
    _mm512_maskz_loadu_epi16, _mm512_maskz_mov_epi16, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_stream_si512,
};

use crate::base::parallel::Shared;
use crate::gemm::bf16::round::{interleaved, round_pair};
use crate::gemm::bf16::rows::{PAIR, Pair, Row, bits, load, rows_of, sum, sums_of, widened};
use crate::gemm::epilogue::{Epilogue, OutputTile};
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::gemm::panels::SharedPanels;
use crate::gemm::transpose_avx512::transposed;
use crate::linear::packed_factor::PackedFactorPart;
use crate::linear::saved_input::SavedLayout;
use crate::ops::activation::functions::Activation;

/// `u = x Wᵀ + b` round_pair, kept if that is wanted, and `f(u)` in panels.
pub(crate) struct Activated<'a> {
    pub(crate) activation: Activation,
    /// One value per column of the block.
    pub(crate) bias: &'a [f32],
    pub(crate) kept: Option<(Shared<'a, f32>, SavedLayout)>,
    /// Left panels of `f(u)`.
    pub(crate) panels: SharedPanels<'a>,
    /// The block's first row and column.
    pub(crate) first: (usize, usize),
}

#[allow(unsafe_code)]
impl Epilogue for Activated<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize) {
        let (first_row, col) = (self.first.0 + square.row + PAIR * part, self.first.1 + square.col);
        let rows = rows_of(square, part).len();
        let there = bits(square.cols);
        // SAFETY: rows and columns of the block; the instructions are the caller's promise.
        unsafe {
            let mut u: Pair = [_mm512_setzero_ps(); _];
            let bias = load(self.bias[square.col..].as_ptr(), there);
            for i in 0..rows {
                let [low, high] = sum(sums_of(square, PAIR * part + i), bias);
                let row = round_pair(low, high);
                if let Some((kept, layout)) = &self.kept {
                    let place = kept.part(layout.place(first_row + i, col));
                    _mm512_mask_storeu_epi16(place.as_mut_ptr().cast(), there, row);
                }
                [u[2 * i], u[2 * i + 1]] = widened(row);
            }
            let y = self.activation.of_vectors(u);
            for i in 0..rows {
                store_line(&self.panels, first_row + i, col, [y[2 * i], y[2 * i + 1]], there);
            }
        }
    }
}

/// `du = dy W ∘ f'(u)` in panels, and `du` and `y = f(u)` as factors of weight gradients where they are wanted.
pub(crate) struct ActivatedBack<'a> {
    pub(crate) activation: Activation,
    /// `u`
    pub(crate) kept: (&'a [f32], SavedLayout),
    /// Left panels of `du`.
    pub(crate) panels: SharedPanels<'a>,
    pub(crate) output_gradient: Option<&'a PackedFactorPart<'a>>,
    pub(crate) input: Option<&'a PackedFactorPart<'a>>,
    /// The block's first row and column.
    pub(crate) first: (usize, usize),
    /// What is made of two tokens of `du` at a time.
    pub(crate) pairs: Pairs,
}

/// What is made of a square's tokens, for each half of its columns.
pub(crate) struct Pairs {
    /// Words of sixteen pairs of tokens and of sixteen features.
    words: [[__m512i; TILE]; 2],
    sums: Row,
}

impl Default for Pairs {
    fn default() -> Self {
        // SAFETY: vectors may be all zeros.
        #[allow(unsafe_code)]
        unsafe {
            std::mem::zeroed()
        }
    }
}

#[allow(unsafe_code)]
impl<'a> ActivatedBack<'a> {
    /// Sixteen features of all tokens of a square as rows of left panels, and their sums.
    #[inline(always)]
    unsafe fn transpose(&self, square: &OutputTile<'_>, half: usize) {
        let (Some(part), true) = (self.output_gradient, half * TILE < square.cols) else { return };
        let lane = self.first.1 + square.col + half * TILE;
        // SAFETY: as for `part`.
        unsafe {
            let row = self.first.0 + square.row;
            let sums = part.sums_of(row, lane..lane + TILE).as_mut_ptr();
            _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), self.pairs.sums[half]));
            let out = part.line(lane, row);
            for (i, words) in transposed(self.pairs.words[half]).into_iter().enumerate() {
                _mm512_stream_si512(out.add(i * TILE).cast(), words);
            }
        }
    }
}

#[allow(unsafe_code)]
impl Epilogue for ActivatedBack<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR + 2;

    #[inline(always)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize) {
        if part >= OUTPUT_TILE / PAIR {
            // SAFETY: the caller's.
            return unsafe { self.transpose(square, part - OUTPUT_TILE / PAIR) };
        }
        let (first_row, col) = (self.first.0 + square.row + PAIR * part, self.first.1 + square.col);
        let rows = rows_of(square, part).len();
        let there = bits(square.cols);
        // SAFETY: rows and columns of the block; the instructions are the caller's promise.
        unsafe {
            let (mut u, mut d): (Pair, Pair) = ([_mm512_setzero_ps(); _], [_mm512_setzero_ps(); _]);
            if part == 0 {
                self.pairs.sums = [_mm512_setzero_ps(); _];
            }
            for i in 0..rows {
                let row = self.kept.0[self.kept.1.place(first_row + i, col)].as_ptr();
                // of the next square
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(OUTPUT_TILE * TILE).cast());
                [u[2 * i], u[2 * i + 1]] = widened(_mm512_maskz_loadu_epi16(there, row.cast()));
                [d[2 * i], d[2 * i + 1]] = sums_of(square, PAIR * part + i);
            }
            let (d, mut y) = self.activation.back_of_vectors(u, d);
            for i in 0..rows {
                let row = [d[2 * i], d[2 * i + 1]];
                self.pairs.sums = sum(self.pairs.sums, row);
                store_line(&self.panels, first_row + i, col, row, there);
            }
            // a row that is not there is zeros
            y[2 * rows..].fill(_mm512_setzero_ps());
            for half in 0..2 {
                if half * TILE >= square.cols {
                    break;
                }
                self.pairs.words[half][part] = token_words(&d, half);
                if let Some(input) = self.input {
                    let out = input.line(col + half * TILE, first_row);
                    _mm512_stream_si512(out.cast(), token_words(&y, half));
                }
            }
        }
    }
}

/// Half of the columns of a pair of rows as words of both.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn token_words(pair: &Pair, half: usize) -> __m512i {
    // SAFETY: the caller's instructions.
    unsafe { interleaved(round_pair(pair[half], pair[2 + half])) }
}

/// 32 columns of a row, round_pair, into their place in left panels.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn store_line(panels: &SharedPanels<'_>, row: usize, col: usize, values: Row, there: u32) {
    // SAFETY: the caller's.
    unsafe {
        let words = round_pair(values[0], values[1]);
        _mm512_storeu_si512(panels.line(row, col).cast(), _mm512_maskz_mov_epi16(there, words));
    }
}
