//! The unit that multiplies bf16 tiles: AMX where the CPU has it, else AVX-512-BF16. Both read the same panels
//! ([`crate::gemm::layout`]) and compute output tiles of 32 x 32.

use std::arch::x86_64::{_mm512_add_ps, _mm512_loadu_ps, _mm512_storeu_ps};

use crate::base::{Bf16Unit, Precision, Word, bf16};
use crate::gemm::bf16::operands::{FETCHED, Operands};
use crate::gemm::bf16::{amx, amx_pipeline, avx512};
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::epilogue::Epilogue;
use crate::gemm::layout::{OUTPUT_TILE, TILE};
use crate::gemm::panels::Panels;

/// The unit, ready for use on this thread while the value lives. Nested values cost a counter.
pub(crate) enum TileUnit {
    Amx(amx::AmxConfigured),
    Avx512,
}

impl TileUnit {
    /// The unit for products in a precision, if [`Precision::packs_bf16`].
    pub(crate) fn new(precision: Precision) -> Option<Self> {
        precision.packs_bf16().then(|| match bf16() {
            // SAFETY: `bf16` returns `Amx` only if `has_amx` was true.
            Bf16Unit::Amx => Self::Amx(unsafe { amx::AmxConfigured::new() }),
            _ => Self::Avx512,
        })
    }
}

/// The product of `rows` (first row in `lhs`, number) and `cols` (first column in `rhs`, number), an output tile at a
/// time; `epilogue` takes each.
///
/// # Safety
/// The destination that `epilogue` writes for the block is writable, and no other thread accesses it.
///
/// # Panics
/// If the operands differ in depth or precision, or do not hold the rows or columns.
pub(crate) unsafe fn tile_product<F: Epilogue>(
    unit: &TileUnit,
    rows: (usize, usize),
    cols: (usize, usize),
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    epilogue: &mut F,
) {
    assert_eq!((lhs.depth, lhs.precision), (rhs.depth, rhs.precision), "operands of the same depth");
    // SAFETY: a `TileUnit` exists only if `bf16` found its instructions; the operands agree: asserted above. The
    // destination is exclusive by the `# Safety` contract.
    unsafe {
        match unit {
            TileUnit::Amx(registers) => amx_pipeline::tile_product(registers, rows, cols, lhs, rhs, epilogue),
            TileUnit::Avx512 => avx512::tile_product(rows, cols, lhs, rhs, epilogue),
        }
    }
}

/// The product of a strip of at most [`OUTPUT_TILE`] columns and one depth block of `words`, without an epilogue.
///
/// # Safety
/// * `c` is valid for reads and writes, and no other thread accesses it.
/// * `lhs` is valid for reads of the strip's rows, padded to whole panels, of `words`.
///
/// # Panics
/// If `rhs` is not a panel of `words` and of the strip's columns, padded to whole tiles.
pub(crate) unsafe fn strip(
    unit: &TileUnit,
    c: OutputBlock,
    words: usize,
    lhs: *const Word,
    rhs: &[Word],
    start: Init<'_>,
) {
    let width = c.cols.next_multiple_of(TILE);
    assert!(width <= OUTPUT_TILE && rhs.len() == words * width, "a packed panel of the strip's width");
    assert!(words.is_multiple_of(TILE), "a depth of whole tiles");
    let right = rhs.as_ptr();
    for row in (0..c.rows).step_by(OUTPUT_TILE) {
        let rows = OUTPUT_TILE.min(c.rows - row);
        // SAFETY: `lhs` holds panel `row / 16` and, if `rows > 16`, the next one: `# Safety`. `rhs` holds its panel:
        // asserted above. The block is the rows `row..row + rows` of `c`.
        unsafe {
            let left = lhs.add(row * words);
            let lower = if rows > TILE { TILE * words } else { 0 };
            let second = if width > TILE { TILE } else { 0 };
            let next = right.wrapping_add(rhs.len() + row / OUTPUT_TILE * words / TILE * FETCHED);
            let operands = Operands { left, lower, right, second, width, next };
            let block = OutputBlock { start: c.start.add(row * c.stride), rows, ..c };
            if rows == OUTPUT_TILE && c.cols == OUTPUT_TILE {
                output_tile(unit, words, &operands, block.start, c.stride, start);
            } else {
                edge_tile(unit, words, &operands, block, start);
            }
        }
    }
}

/// An output tile that exceeds the block: computed in a buffer, of which the block's rows and columns are copied.
///
/// # Safety
/// As [`output_tile`] for the operands; `c` is valid for reads and writes of its rows and columns, at most 32 each.
unsafe fn edge_tile(unit: &TileUnit, words: usize, operands: &Operands, c: OutputBlock, start: Init<'_>) {
    let mut edge = [0.0; OUTPUT_TILE * OUTPUT_TILE];
    // SAFETY: each copy moves `c.cols` floats of one of `c.rows` rows, at most 32, between `c` and `edge`, which holds
    // 32 x 32.
    unsafe {
        if matches!(start, Init::Accumulate) {
            for (i, row) in edge.chunks_exact_mut(OUTPUT_TILE).take(c.rows).enumerate() {
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
        output_tile(unit, words, operands, edge.as_mut_ptr(), OUTPUT_TILE, start);
        for (i, row) in edge.chunks_exact(OUTPUT_TILE).take(c.rows).enumerate() {
            std::ptr::copy_nonoverlapping(row.as_ptr(), c.start.add(i * c.stride), c.cols);
        }
    }
}

/// `out = start + A B` for 32 x 32 elements, `stride` floats from row to row.
///
/// # Safety
/// * The panels of `operands` hold `words`, a multiple of 16.
/// * `out` is valid for reads and writes of 32 rows of 32 floats.
///
/// # Panics
/// If a bias does not have 32 values.
unsafe fn output_tile(
    unit: &TileUnit,
    words: usize,
    operands: &Operands,
    out: *mut f32,
    stride: usize,
    start: Init<'_>,
) {
    let adds = matches!(start, Init::Accumulate);
    // SAFETY: a `TileUnit` exists only if `bf16` found its instructions; the memory is valid by the `# Safety`
    // contract.
    unsafe {
        match unit {
            TileUnit::Amx(_) => amx::output_tile(words, operands, out, stride, adds),
            TileUnit::Avx512 => avx512::output_tile(words, operands, out, stride, adds),
        }
        if let Init::Bias(bias) = start {
            add_bias(bias, out, stride);
        }
    }
}

/// Adds a bias to 32 rows of 32 sums, which are still in L1. To start the sums from the bias, AMX would need 32 rows of
/// it in memory.
///
/// # Safety
/// The CPU has AVX-512 F, and `out` is valid for reads and writes of 32 rows of 32 floats, `stride` apart.
#[target_feature(enable = "avx512f")]
unsafe fn add_bias(bias: &[f32], out: *mut f32, stride: usize) {
    assert_eq!(bias.len(), OUTPUT_TILE, "a value per column");
    // SAFETY: `bias` holds 32 floats: asserted above. The rows of `out` are valid by the `# Safety` contract.
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

/// Multiplies operands in registers, `rounds` times some products; returns the number of multiplications of words.
///
/// # Safety
/// [`Precision::packs_bf16`] is true of [`Precision::Bf16`].
pub(crate) unsafe fn spin(rounds: usize) -> usize {
    // SAFETY: `packs_bf16` is true only if `bf16` found AVX-512-BF16, or AMX too if it returns `Amx`.
    unsafe {
        match bf16() {
            Bf16Unit::Amx => amx::spin(rounds / 8),
            _ => avx512::spin(rounds),
        }
    }
}
