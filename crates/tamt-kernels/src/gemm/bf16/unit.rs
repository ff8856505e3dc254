//! Products of bf16 whose panels are made of tiles, sixteen lanes by sixteen words of two steps: on the tile registers of AMX where
//! there are some, by AVX-512-BF16 elsewhere.
//!
//! Panels differ from those of the other vector kernels (see [`pack`]): a left one has 16 rows, each contiguous in depth within a block
//! of 32 steps; a right one has words of two steps, 32 lanes wide. The depth is padded with zeros to whole blocks. A product is computed
//! in squares of 32 by 32 sums, and what becomes of a square ([`Epilogue`]) is done while it is in the nearest cache.

use std::arch::x86_64::{_mm512_add_ps, _mm512_loadu_ps, _mm512_storeu_ps};

use crate::base::cpu::{Bf16Unit, bf16};
use crate::base::precision::Precision;
use crate::gemm::bf16::operands::{FETCHED, Operands};
use crate::gemm::bf16::{amx, amx_pipeline, avx512};
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::epilogue::Epilogue;
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::gemm::panels::Panels;

/// What multiplies tiles, ready on this thread while it lives. Inside of another one it costs next to nothing.
pub(crate) enum TileUnit {
    Amx(amx::AmxConfigured),
    Avx512,
}

impl TileUnit {
    /// That of products in a precision, if they are [`Precision::packs_bf16`].
    pub(crate) fn new(precision: Precision) -> Option<Self> {
        precision.packs_bf16().then(|| match bf16() {
            // SAFETY: there are tile registers where they are chosen.
            #[allow(unsafe_code)]
            Bf16Unit::Amx => Self::Amx(unsafe { amx::AmxConfigured::new() }),
            _ => Self::Avx512,
        })
    }
}

/// The product of rows `first_row..` of a left operand and columns `first_col..` of a right one, each square given to `finish`.
///
/// # Safety
/// What `finish` asks for.
#[allow(unsafe_code)]
pub(crate) unsafe fn squares<F: Epilogue>(
    multiplier: &TileUnit,
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
            TileUnit::Amx(registers) => amx_pipeline::squares(registers, rows, cols, lhs, rhs, finish),
            TileUnit::Avx512 => avx512::squares(rows, cols, lhs, rhs, finish),
        }
    }
}

/// Computes a strip of at most [`OUTPUT_TILE`] columns, or adds to it: the product of panels of `words`, a multiple of
/// [`TILE`].
///
/// # Safety
/// `c` must be writable and nobody else's; `lhs` holds whole panels of its rows.
#[allow(unsafe_code)]
pub(crate) unsafe fn strip(
    multiplier: &TileUnit,
    c: OutputBlock,
    words: usize,
    lhs: *const f32,
    rhs: &[f32],
    start: Init<'_>,
) {
    let width = c.cols.next_multiple_of(TILE);
    assert!(width <= OUTPUT_TILE && rhs.len() == words * width, "a packed panel of the strip's width");
    assert!(words.is_multiple_of(TILE), "a depth of whole tiles");
    let right = rhs.as_ptr();
    for row in (0..c.rows).step_by(OUTPUT_TILE) {
        let rows = OUTPUT_TILE.min(c.rows - row);
        // SAFETY: panels row / 16 and, if there are rows for it, the next one; where there is no second panel or no second
        // tile of columns, the first ones are multiplied again, aside.
        unsafe {
            let left = lhs.add(row * words);
            let lower = if rows > TILE { TILE * words } else { 0 };
            let aside = if width > TILE { TILE } else { 0 };
            let next = right.wrapping_add(rhs.len() + row / OUTPUT_TILE * words / TILE * FETCHED);
            let operands = Operands { left, lower, right, aside, width, next };
            let block = OutputBlock { start: c.start.add(row * c.stride), rows, ..c };
            if rows == OUTPUT_TILE && c.cols == OUTPUT_TILE {
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
unsafe fn ragged_square(multiplier: &TileUnit, words: usize, operands: &Operands, c: OutputBlock, start: Init<'_>) {
    let mut aside = [0.0; OUTPUT_TILE * OUTPUT_TILE];
    // SAFETY: rows and columns of the block and of the square.
    unsafe {
        if matches!(start, Init::Accumulate) {
            for (i, row) in aside.chunks_exact_mut(OUTPUT_TILE).take(c.rows).enumerate() {
                std::ptr::copy_nonoverlapping(c.start.add(i * c.stride), row.as_mut_ptr(), c.cols);
            }
        }
        let mut bias = [0.0; OUTPUT_TILE];
        let start = match start {
            Init::Bias(values) => {
                bias[..c.cols].copy_from_slice(values);
                Init::Bias(&bias)
            }
            other => other,
        };
        square(multiplier, words, operands, aside.as_mut_ptr(), OUTPUT_TILE, start);
        for (i, row) in aside.chunks_exact(OUTPUT_TILE).take(c.rows).enumerate() {
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
    multiplier: &TileUnit,
    words: usize,
    operands: &Operands,
    out: *mut f32,
    stride: usize,
    start: Init<'_>,
) {
    let adds = matches!(start, Init::Accumulate);
    // SAFETY: the caller's, and only instruction sets that are there are chosen.
    unsafe {
        match multiplier {
            TileUnit::Amx(_) => amx::square(words, operands, out, stride, adds),
            TileUnit::Avx512 => avx512::square(words, operands, out, stride, adds),
        }
        if let Init::Bias(bias) = start {
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
    assert_eq!(bias.len(), OUTPUT_TILE, "a value per column");
    // SAFETY: the caller's.
    unsafe {
        let (left, right) = (_mm512_loadu_ps(bias.as_ptr()), _mm512_loadu_ps(bias.as_ptr().add(TILE)));
        for i in 0..OUTPUT_TILE {
            let row = out.add(i * stride);
            _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), left));
            let row = row.add(TILE);
            _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), right));
        }
    }
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
            Bf16Unit::Amx => amx::spin(rounds / 8),
            _ => avx512::spin(rounds),
        }
    }
}
