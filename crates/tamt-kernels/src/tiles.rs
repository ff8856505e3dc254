//! Products of bf16 whose panels are made of tiles, sixteen lanes by sixteen words of two steps: on the tile registers of AMX where
//! there are some, by AVX-512-BF16 elsewhere.
//!
//! Panels differ from those of the other vector kernels (see [`pack`]): a left one has 16 rows, each contiguous in depth within a block
//! of 32 steps; a right one has words of two steps, 32 lanes wide. The depth is padded with zeros to whole blocks. A product is computed
//! in squares of 32 by 32 sums, and what becomes of a square ([`Finish`]) is done while it is in the nearest cache.

use std::arch::x86_64::{_mm512_add_ps, _mm512_loadu_ps, _mm512_storeu_ps};

use crate::dispatch::{Bf16, bf16};
use crate::pack::Panels;
use crate::precision::Precision;
use crate::product::{Block, Start, TILE};

pub(crate) mod amx;
pub(crate) mod pack;
pub(crate) mod pairs;

/// Rows and columns of a square: two panels of the left operand, a whole one of the right.
pub(crate) const SQUARE: usize = 2 * TILE;

/// Words of a tile.
const TILE_WORDS: usize = TILE * TILE;

/// Words of a lane in a block of the depth: tile registers keep their sums for longer than vectors, for to write them and to read
/// them again takes as long as to have the operands from the second-level cache in place of the first.
pub(crate) const BLOCK_WORDS: usize = 1024;

/// Words of the next right panel that a square of a strip fetches for each block of the depth.
const FETCHED: usize = 64;

/// What multiplies tiles, ready on this thread while it lives. Inside of another one it costs next to nothing.
pub(crate) enum Multiplier {
    Amx(amx::Configured),
    Pairs,
}

impl Multiplier {
    /// That of products in a precision, if they are [`Precision::by_tiles`].
    pub(crate) fn new(precision: Precision) -> Option<Self> {
        precision.by_tiles().then(|| match bf16() {
            // SAFETY: there are tile registers where they are chosen.
            #[allow(unsafe_code)]
            Bf16::Amx => Self::Amx(unsafe { amx::Configured::new() }),
            _ => Self::Pairs,
        })
    }
}

/// Sums of a square.
#[repr(align(64))]
pub(crate) struct Sums(pub(crate) [[f32; SQUARE]; SQUARE]);

/// A square whose product is done.
pub(crate) struct Square<'a> {
    /// Its first row and column in the block that is computed.
    pub(crate) row: usize,
    pub(crate) col: usize,
    /// Rows and columns that the block has there; the others are padding.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) sums: &'a Sums,
}

impl<'a> Square<'a> {
    fn at((row, col): (usize, usize), (rows, cols): (usize, usize), sums: &'a Sums) -> Self {
        Self { row, col, rows: SQUARE.min(rows - row), cols: SQUARE.min(cols - col), sums }
    }
}

/// What becomes of squares.
pub(crate) trait Finish {
    /// Parts of the work on a square, done in order.
    const PARTS: usize;

    /// Does a part. To be inlined, so that it is compiled for the instructions of [`squares`].
    ///
    /// # Safety
    /// The processor has the instructions of [`squares`]; the block is this thread's.
    #[allow(unsafe_code)]
    unsafe fn part(&mut self, square: &Square<'_>, part: usize);
}

/// The product of rows `first_row..` of a left operand and columns `first_col..` of a right one, each square given to `finish`.
///
/// # Safety
/// What `finish` asks for.
#[allow(unsafe_code)]
pub(crate) unsafe fn squares<F: Finish>(
    multiplier: &Multiplier,
    rows: (usize, usize),
    cols: (usize, usize),
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    finish: &mut F,
) {
    assert_eq!((lhs.depth(), lhs.precision()), (rhs.depth(), rhs.precision()), "operands of the same depth");
    // SAFETY: the caller's, and only instruction sets that are there are chosen.
    unsafe {
        match multiplier {
            Multiplier::Amx(registers) => amx::pipeline::squares(registers, rows, cols, lhs, rhs, finish),
            Multiplier::Pairs => pairs::squares(rows, cols, lhs, rhs, finish),
        }
    }
}

/// Computes a strip of at most [`SQUARE`] columns, or adds to it: the product of panels of `words`, a multiple of
/// [`TILE`].
///
/// # Safety
/// `c` must be writable and nobody else's; `lhs` holds whole panels of its rows.
#[allow(unsafe_code)]
pub(crate) unsafe fn strip(
    multiplier: &Multiplier,
    c: Block,
    words: usize,
    lhs: *const f32,
    rhs: &[f32],
    start: Start<'_>,
) {
    let width = c.cols.next_multiple_of(TILE);
    assert!(width <= SQUARE && rhs.len() == words * width, "a packed panel of the strip's width");
    assert!(words.is_multiple_of(TILE), "a depth of whole tiles");
    let right = rhs.as_ptr();
    for row in (0..c.rows).step_by(SQUARE) {
        let rows = SQUARE.min(c.rows - row);
        // SAFETY: panels row / 16 and, if there are rows for it, the next one; where there is no second panel or no second
        // tile of columns, the first ones are multiplied again, aside.
        unsafe {
            let left = lhs.add(row * words);
            let lower = if rows > TILE { TILE * words } else { 0 };
            let aside = if width > TILE { TILE } else { 0 };
            let next = right.wrapping_add(rhs.len() + row / SQUARE * words / TILE * FETCHED);
            let operands = Operands { left, lower, right, aside, width, next };
            let block = Block { start: c.start.add(row * c.stride), rows, ..c };
            if rows == SQUARE && c.cols == SQUARE {
                square(multiplier, words, &operands, block.start, c.stride, start);
            } else {
                ragged_square(multiplier, words, &operands, block, start);
            }
        }
    }
}

/// A square of which only a part is the block's: computed aside.
///
/// # Safety
/// As [`square`].
#[allow(unsafe_code)]
unsafe fn ragged_square(multiplier: &Multiplier, words: usize, operands: &Operands, c: Block, start: Start<'_>) {
    let mut aside = [0.0; SQUARE * SQUARE];
    // SAFETY: rows and columns of the block and of the square.
    unsafe {
        if matches!(start, Start::Sum) {
            for (i, row) in aside.chunks_exact_mut(SQUARE).take(c.rows).enumerate() {
                std::ptr::copy_nonoverlapping(c.start.add(i * c.stride), row.as_mut_ptr(), c.cols);
            }
        }
        let mut bias = [0.0; SQUARE];
        let start = match start {
            Start::Bias(values) => {
                bias[..c.cols].copy_from_slice(values);
                Start::Bias(&bias)
            }
            other => other,
        };
        square(multiplier, words, operands, aside.as_mut_ptr(), SQUARE, start);
        for (i, row) in aside.chunks_exact(SQUARE).take(c.rows).enumerate() {
            std::ptr::copy_nonoverlapping(row.as_ptr(), c.start.add(i * c.stride), c.cols);
        }
    }
}

/// `out = start + A B` for 32 x 32 elements, `stride` floats from row to row.
///
/// # Safety
/// All memory is there, and so are 32 values of a bias.
#[allow(unsafe_code)]
unsafe fn square(
    multiplier: &Multiplier,
    words: usize,
    operands: &Operands,
    out: *mut f32,
    stride: usize,
    start: Start<'_>,
) {
    let adds = matches!(start, Start::Sum);
    // SAFETY: the caller's, and only instruction sets that are there are chosen.
    unsafe {
        match multiplier {
            Multiplier::Amx(_) => amx::square(words, operands, out, stride, adds),
            Multiplier::Pairs => pairs::square(words, operands, out, stride, adds),
        }
        if let Start::Bias(bias) = start {
            add_bias(bias, out, stride);
        }
    }
}

/// Adds a bias to 32 rows: the sums are still in the nearest cache, and to begin from it would read a row in memory 32 times.
///
/// # Safety
/// The memory is there, and AVX-512.
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
unsafe fn add_bias(bias: &[f32], out: *mut f32, stride: usize) {
    assert_eq!(bias.len(), SQUARE, "a value per column");
    // SAFETY: the caller's.
    unsafe {
        let (left, right) = (_mm512_loadu_ps(bias.as_ptr()), _mm512_loadu_ps(bias.as_ptr().add(TILE)));
        for i in 0..SQUARE {
            let row = out.add(i * stride);
            _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), left));
            let row = row.add(TILE);
            _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), right));
        }
    }
}

/// A square's operands, as [`step`] takes them.
struct Operands {
    left: *const f32,
    lower: usize,
    right: *const f32,
    aside: usize,
    /// Words of a row of the right panel.
    width: usize,
    /// What is fetched meanwhile: [`FETCHED`] words for each block of the depth.
    next: *const f32,
}

/// Multiplies operands in registers for a while, `rounds` of some products; returns the multiplications of words.
///
/// # Safety
/// Products in bf16 are by tiles.
#[allow(unsafe_code)]
pub(crate) unsafe fn spin(rounds: usize) -> usize {
    // SAFETY: the caller's.
    unsafe {
        match bf16() {
            Bf16::Amx => amx::spin(rounds / 8),
            _ => pairs::spin(rounds),
        }
    }
}
