//! The epilogues of the fused FFN: [`ActivationForward`] and [`ActivationBackward`].

use std::arch::x86_64::*;
use std::ops::Range;

use crate::base::{Precision, Shared};
use crate::gemm::bf16::round::{interleaved, round_pair};
use crate::gemm::bf16::rows::{PAIR, Pair, Row, bits, load, rows_of, sum, sums_of, widened};
use crate::gemm::{Epilogue, OUTPUT_TILE, OutputTile, SharedPanels, TILE, transposed};
use crate::linear::packed_factor::PackedFactorPart;
use crate::linear::saved_input::saved_width;
use crate::ops::activation::functions::Activation;

/// The layout of a saved `u` `[T, width]` in bf16: `[blocks of 32 columns][T][columns of the block]`, the order in
/// which the output tiles of a job read and write `u`. The last block is narrower if `width` is not a multiple of 32.
#[derive(Clone, Copy)]
pub(crate) struct SavedLayout {
    tokens: usize,
    /// Words of a row: pairs of columns.
    words: usize,
}

impl SavedLayout {
    pub(crate) fn new(tokens: usize, width: usize) -> Self {
        Self { tokens, words: saved_width(width, Precision::Bf16) }
    }

    /// The words of a row of the block that starts with column `col`.
    #[inline(always)]
    fn range(&self, row: usize, col: usize) -> Range<usize> {
        let before = col / 2;
        let width = TILE.min(self.words - before);
        let first = before * self.tokens + row * width;
        first..first + width
    }
}

/// Computes `u = x (W ∘ B)ᵀ + b`, rounds and saves `u`, and packs `f(u)`.
pub(crate) struct ActivationForward<'a> {
    pub(crate) activation: Activation,
    /// One value per column of the strip.
    pub(crate) bias: &'a [f32],
    /// `u`, if a backward pass follows.
    pub(crate) saved: Option<(Shared<'a, f32>, SavedLayout)>,
    /// Left panels of `f(u)`.
    pub(crate) panels: SharedPanels<'a>,
    /// The strip's first row and column in `u`.
    pub(crate) first: (usize, usize),
}

impl Epilogue for ActivationForward<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize) {
        let (first_row, col) = (self.first.0 + tile.row + PAIR * part, self.first.1 + tile.col);
        let rows = rows_of(tile, part).len();
        let lanes = bits(tile.cols);
        // SAFETY: AVX-512F, BW, DQ and BF16 are present: a precondition of `part`. `bias` has the strip's columns:
        // `FusedForward`. Only this thread accesses the strip's words of `saved` and `panels`: the contract of
        // `Strip::multiply_tiles`. `lanes` masks the columns beyond the strip.
        unsafe {
            let mut u: Pair = [_mm512_setzero_ps(); _];
            let bias = load(self.bias[tile.col..].as_ptr(), lanes);
            for i in 0..rows {
                let [low, high] = sum(sums_of(tile, PAIR * part + i), bias);
                let row = round_pair(low, high);
                if let Some((saved, layout)) = &self.saved {
                    let words = saved.part(layout.range(first_row + i, col));
                    _mm512_mask_storeu_epi16(words.as_mut_ptr().cast(), lanes, row);
                }
                [u[2 * i], u[2 * i + 1]] = widened(row);
            }
            let y = self.activation.of_vectors(u);
            for i in 0..rows {
                store_packed_row(&self.panels, first_row + i, col, [y[2 * i], y[2 * i + 1]], lanes);
            }
        }
    }
}

/// Computes `du = dy W ∘ f'(u)` and `y = f(u)`; packs `du`, and `du` and `y` as factors of weight gradients.
pub(crate) struct ActivationBackward<'a> {
    pub(crate) activation: Activation,
    /// `u`
    pub(crate) saved: (&'a [f32], SavedLayout),
    /// Left panels of `du`.
    pub(crate) panels: SharedPanels<'a>,
    /// `du` as a factor.
    pub(crate) output_gradient: Option<&'a PackedFactorPart<'a>>,
    /// `y` as a factor.
    pub(crate) input: Option<&'a PackedFactorPart<'a>>,
    /// The strip's first row and column in `u`.
    pub(crate) first: (usize, usize),
    /// Scratch of the current output tile.
    pub(crate) pairs: TokenPairs,
}

/// `du` of an output tile, collected by the parts of row pairs for the transposing parts. Index 0 of each array is the
/// left half of the columns.
pub(crate) struct TokenPairs {
    /// `[halves][pairs of tokens][features]`: each word has a feature of both tokens of a pair.
    words: [[__m512i; TILE]; 2],
    /// Sums of the features over the tile's tokens.
    sums: Row,
}

impl Default for TokenPairs {
    fn default() -> Self {
        // SAFETY: a vector of all zero bits is a valid value.
        unsafe { std::mem::zeroed() }
    }
}

impl<'a> ActivationBackward<'a> {
    /// Transposes sixteen features of an output tile into rows of the left panels of `output_gradient`, and adds the
    /// sums.
    ///
    /// # Safety
    /// As for [`Epilogue::part`], after all parts of row pairs.
    #[inline(always)]
    unsafe fn transpose(&self, tile: &OutputTile<'_>, half: usize) {
        let (Some(part), true) = (self.output_gradient, half * TILE < tile.cols) else { return };
        let lane = self.first.1 + tile.col + half * TILE;
        // SAFETY: AVX-512F is present: a precondition of `part`. The strip's columns are padded to whole tiles in both
        // the sums (`sums_width`) and the panels, so that `TILE` sums and rows exist from `lane` on; only this thread
        // accesses the strip's words of the factor: the contract of `Strip::multiply_tiles`.
        unsafe {
            let row = self.first.0 + tile.row;
            let sums = part.row_sums(row, lane..lane + TILE).as_mut_ptr();
            _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), self.pairs.sums[half]));
            let out = part.line(lane, row);
            for (i, words) in transposed(self.pairs.words[half]).into_iter().enumerate() {
                _mm512_stream_si512(out.add(i * TILE).cast(), words);
            }
        }
    }
}

impl Epilogue for ActivationBackward<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR + 2;

    #[inline(always)]
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize) {
        if part >= OUTPUT_TILE / PAIR {
            // SAFETY: the preconditions of this function; the parts of row pairs have smaller numbers, and parts run in
            // order.
            return unsafe { self.transpose(tile, part - OUTPUT_TILE / PAIR) };
        }
        let (first_row, col) = (self.first.0 + tile.row + PAIR * part, self.first.1 + tile.col);
        let rows = rows_of(tile, part).len();
        let lanes = bits(tile.cols);
        // SAFETY: AVX-512F, BW, DQ and BF16 are present: a precondition of `part`. Only this thread accesses the
        // strip's words of `panels` and of the factors: the contract of `Strip::multiply_tiles`. The bounds of `saved` are
        // checked, `lanes` masks the columns beyond the strip, and a prefetch reads nothing.
        unsafe {
            let (mut u, mut d): (Pair, Pair) = ([_mm512_setzero_ps(); _], [_mm512_setzero_ps(); _]);
            if part == 0 {
                self.pairs.sums = [_mm512_setzero_ps(); _];
            }
            for i in 0..rows {
                let row = self.saved.0[self.saved.1.range(first_row + i, col)].as_ptr();
                // the row's words for the next output tile
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(OUTPUT_TILE * TILE).cast());
                [u[2 * i], u[2 * i + 1]] = widened(_mm512_maskz_loadu_epi16(lanes, row.cast()));
                [d[2 * i], d[2 * i + 1]] = sums_of(tile, PAIR * part + i);
            }
            let (d, mut y) = self.activation.back_of_vectors(u, d);
            for i in 0..rows {
                let row = [d[2 * i], d[2 * i + 1]];
                self.pairs.sums = sum(self.pairs.sums, row);
                store_packed_row(&self.panels, first_row + i, col, row, lanes);
            }
            // a row beyond the strip is zeros
            y[2 * rows..].fill(_mm512_setzero_ps());
            for half in 0..2 {
                if half * TILE >= tile.cols {
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

/// Half of the columns of two rows as words: the first row in the low bits, the second row in the high bits.
///
/// # Safety
/// The processor has AVX-512F, BW and BF16.
#[inline(always)]
unsafe fn token_words(pair: &Pair, half: usize) -> __m512i {
    // SAFETY: the target features are present: a precondition of this function.
    unsafe { interleaved(round_pair(pair[half], pair[2 + half])) }
}

/// Rounds 32 columns of a row to bf16 and stores them in left panels; columns outside `lanes` are zeros.
///
/// # Safety
/// * The processor has AVX-512F, BW and BF16.
/// * No other thread accesses the 16 words of the panels for row `row` and columns `col..col + 32`.
#[inline(always)]
unsafe fn store_packed_row(panels: &SharedPanels<'_>, row: usize, col: usize, values: Row, lanes: u32) {
    // SAFETY: panels of bf16 pairs hold a line of 16 words for each row: `SharedPanels::line`. No other thread accesses
    // the line: a precondition of this function.
    unsafe {
        let words = round_pair(values[0], values[1]);
        _mm512_storeu_si512(panels.line(row, col).cast(), _mm512_maskz_mov_epi16(lanes, words));
    }
}
