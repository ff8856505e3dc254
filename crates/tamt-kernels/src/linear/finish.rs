//! What becomes of the sums of products by tiles, in the parts that [`crate::tiles`] does.
//!
//! All is inlined into [`crate::tiles::squares`], whose instructions it may use: hence loops, and no closures that an adapter
//! calls.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_castsi512_ps, _mm512_castsi512_si256,
    _mm512_cvtepu16_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_mask_storeu_epi16, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_ps, _mm512_maskz_mov_epi16, _mm512_setzero_ps, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_stream_si512,
};
use std::ops::Range;

use half::bf16;

use super::tokens::{SharedPanels, TokensPart};
use crate::activation::{Activation, Vectors};
use crate::parallel::Shared;
use crate::product::{Block, Start, TILE};
use crate::tiles::SQUARE;
use crate::tiles::pack::{interleaved, rounded, transposed};
use crate::tiles::{Finish, Square};

mod gradient;
pub(crate) use gradient::{Gradient, GradientOut, Survivors};

/// Rows of a part.
const PAIR: usize = 2;

/// A row of a square, by halves.
type Row = [__m512; 2];

/// A pair of rows, by halves.
type Pair = Vectors;
const _: () = assert!(size_of::<Pair>() == PAIR * size_of::<Row>());

/// The lowest bits, one for each of so many elements: those that are there.
#[inline(always)]
fn bits(elements: usize) -> u32 {
    u32::MAX.checked_shr((SQUARE - elements.min(SQUARE)) as u32).unwrap_or(0)
}

/// Of those, the bits of each half of a row.
#[inline(always)]
fn halves(bits: u32) -> [u16; 2] {
    [bits as u16, (bits >> TILE) as u16]
}

/// Rows of a part that the block has.
#[inline(always)]
fn rows_of(square: &Square<'_>, part: usize) -> Range<usize> {
    PAIR * part..(PAIR * (part + 1)).min(square.rows)
}

/// Rows of the output in place.
pub(crate) struct InPlace<'a> {
    pub(crate) out: Block,
    pub(crate) start: Start<'a>,
}

#[allow(unsafe_code)]
impl Finish for InPlace<'_> {
    const PARTS: usize = SQUARE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize) {
        let there = bits(square.cols);
        for row in rows_of(square, part) {
            // SAFETY: rows and columns of the block; the instructions are the caller's promise.
            unsafe {
                let out = self.out.start.add((square.row + row) * self.out.stride + square.col);
                let mut row = sums_of(square, row);
                match self.start {
                    Start::Zero => {}
                    Start::Bias(bias) => row = sum(row, load(bias[square.col..].as_ptr(), there)),
                    Start::Sum => row = sum(load(out, there), row),
                }
                store(row, out, there);
            }
        }
    }
}

/// Rows of the output, rounded.
pub(crate) struct Rounded<'a> {
    /// `[T, stride]`
    pub(crate) out: Shared<'a, bf16>,
    pub(crate) stride: usize,
    /// The block's first row and column.
    pub(crate) first: (usize, usize),
    /// One value per column of the block.
    pub(crate) bias: Option<&'a [f32]>,
}

#[allow(unsafe_code)]
impl Finish for Rounded<'_> {
    const PARTS: usize = SQUARE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize) {
        let there = bits(square.cols);
        for row in rows_of(square, part) {
            let at = (self.first.0 + square.row + row) * self.stride + self.first.1 + square.col;
            // SAFETY: rows and columns of the block; the instructions are the caller's promise.
            unsafe {
                let mut row = sums_of(square, row);
                if let Some(bias) = self.bias {
                    row = sum(row, load(bias[square.col..].as_ptr(), there));
                }
                let out = self.out.part(at..at + square.cols).as_mut_ptr().cast();
                _mm512_mask_storeu_epi16(out, there, rounded(row[0], row[1]));
            }
        }
    }
}

/// A row of a square's sums.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn sums_of(square: &Square<'_>, row: usize) -> Row {
    let sums = square.sums.0[row].as_ptr();
    // SAFETY: the caller's instructions.
    unsafe { [_mm512_loadu_ps(sums), _mm512_loadu_ps(sums.add(TILE))] }
}

/// 32 floats, of which some are there.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn load(from: *const f32, there: u32) -> Row {
    let [low, high] = halves(there);
    // SAFETY: the caller's.
    unsafe { [_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(TILE))] }
}

/// Writes those of 32 floats that are there.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn store(row: Row, out: *mut f32, there: u32) {
    let [low, high] = halves(there);
    // SAFETY: the caller's.
    unsafe {
        _mm512_mask_storeu_ps(out, low, row[0]);
        _mm512_mask_storeu_ps(out.wrapping_add(TILE), high, row[1]);
    }
}

#[inline(always)]
#[allow(unsafe_code)]
unsafe fn sum(a: Row, b: Row) -> Row {
    // SAFETY: the caller's instructions.
    unsafe { [_mm512_add_ps(a[0], b[0]), _mm512_add_ps(a[1], b[1])] }
}

/// `u = x Wᵀ + b` rounded, kept if that is wanted, and `f(u)` in panels.
pub(crate) struct Activated<'a> {
    pub(crate) activation: Activation,
    /// One value per column of the block.
    pub(crate) bias: &'a [f32],
    pub(crate) kept: Option<(Shared<'a, f32>, KeptLayout)>,
    /// Left panels of `f(u)`.
    pub(crate) panels: SharedPanels<'a>,
    /// The block's first row and column.
    pub(crate) first: (usize, usize),
}

/// How an activation's input is kept: in bf16, blocks of 32 columns one after the other, in the order in which a job goes through
/// them.
#[derive(Clone, Copy)]
pub(crate) struct KeptLayout {
    pub(crate) rows: usize,
    /// Words of a row.
    pub(crate) words: usize,
}

impl KeptLayout {
    /// The words of columns `col..` of a row, where a block begins with `col`.
    #[inline(always)]
    fn place(&self, row: usize, col: usize) -> Range<usize> {
        let before = col / 2;
        let width = TILE.min(self.words - before);
        let first = before * self.rows + row * width;
        first..first + width
    }
}

#[allow(unsafe_code)]
impl Finish for Activated<'_> {
    const PARTS: usize = SQUARE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize) {
        let (first_row, col) = (self.first.0 + square.row + PAIR * part, self.first.1 + square.col);
        let rows = rows_of(square, part).len();
        let there = bits(square.cols);
        // SAFETY: rows and columns of the block; the instructions are the caller's promise.
        unsafe {
            let mut u: Pair = [_mm512_setzero_ps(); _];
            let bias = load(self.bias[square.col..].as_ptr(), there);
            for i in 0..rows {
                let [low, high] = sum(sums_of(square, PAIR * part + i), bias);
                let row = rounded(low, high);
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
    pub(crate) kept: (&'a [f32], KeptLayout),
    /// Left panels of `du`.
    pub(crate) panels: SharedPanels<'a>,
    pub(crate) output_gradient: Option<&'a TokensPart<'a>>,
    pub(crate) input: Option<&'a TokensPart<'a>>,
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
    unsafe fn transpose(&self, square: &Square<'_>, half: usize) {
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
impl Finish for ActivatedBack<'_> {
    const PARTS: usize = SQUARE / PAIR + 2;

    #[inline(always)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize) {
        if part >= SQUARE / PAIR {
            // SAFETY: the caller's.
            return unsafe { self.transpose(square, part - SQUARE / PAIR) };
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
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(SQUARE * TILE).cast());
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
    unsafe { interleaved(rounded(pair[half], pair[2 + half])) }
}

/// 32 elements in bf16 as floats.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn widened(row: __m512i) -> Row {
    // SAFETY: the caller's instructions.
    unsafe {
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(row));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(row));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)), _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high))]
    }
}

/// 32 columns of a row, rounded, into their place in left panels.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn store_line(panels: &SharedPanels<'_>, row: usize, col: usize, values: Row, there: u32) {
    // SAFETY: the caller's.
    unsafe {
        let words = rounded(values[0], values[1]);
        _mm512_storeu_si512(panels.line(row, col).cast(), _mm512_maskz_mov_epi16(there, words));
    }
}
