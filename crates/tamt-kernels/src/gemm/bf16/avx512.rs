//! Tile products of bf16 by AVX-512-BF16. One instruction adds two products to each of 16 sums; the register tile is 8
//! rows by two vectors.

use std::arch::x86_64::*;
use std::mem::transmute;

use crate::base::Word;
use crate::gemm::bf16::operands::Operands;
use crate::gemm::epilogue::{Epilogue, OutputTile, TileSums};
use crate::gemm::layout::{OUTPUT_TILE, TILE, TILE_WORDS};
use crate::gemm::panels::Panels;

/// Rows of the register tile: with two vectors each, 16 sums hide the latency of the products, and 16 products need 10
/// loads.
const ROWS: usize = 8;

/// The product of rows `first_row..` of `lhs` and columns `first_col..` of `rhs`, an output tile at a time; `epilogue`
/// takes each.
///
/// # Safety
/// * The CPU has AVX-512-BF16.
/// * `lhs` and `rhs` are bf16 panels of the same depth.
/// * The destination that `epilogue` writes for the block is writable, and no other thread accesses it.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")]
pub(super) unsafe fn tile_product<F: Epilogue>(
    (first_row, rows): (usize, usize),
    (first_col, cols): (usize, usize),
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    epilogue: &mut F,
) {
    let (depth, precision) = (rhs.depth, rhs.precision);
    let mut sums = TileSums([[0.0; OUTPUT_TILE]; OUTPUT_TILE]);
    for col in (0..cols).step_by(OUTPUT_TILE) {
        let width = (cols - col).next_multiple_of(TILE).min(OUTPUT_TILE);
        for row in (0..rows).step_by(OUTPUT_TILE) {
            let left_rows = (rows - row).min(OUTPUT_TILE).next_multiple_of(TILE);
            // at least once, so that a product of depth 0 is zero
            for from in (0..depth.max(1)).step_by(precision.depth_block()) {
                let block = from..depth.min(from + precision.depth_block());
                let words = precision.words(block.len());
                let right = &rhs.panels_at(first_col + col, &block)[..width * words];
                let left = &lhs.panels_at(first_row + row, &block)[..left_rows * words];
                // SAFETY: the CPU has AVX-512-BF16: `# Safety`. The slices of the panels hold `left_rows` and `width`
                // lanes of `words`, and `sums` an output tile.
                unsafe {
                    let out: *mut f32 = (&raw mut sums).cast();
                    product(words, left.as_ptr(), left_rows, right.as_ptr(), width, out, OUTPUT_TILE, from > 0);
                }
            }
            let tile = OutputTile::at((row, col), (rows, cols), &sums);
            // SAFETY: the CPU has the instructions, and the destination is exclusive: `# Safety`.
            unsafe { (0..F::PARTS).for_each(|part| epilogue.part(&tile, part)) };
        }
    }
}

/// `out = A B` or, with `adds`, `out += A B` for 32 x 32 elements, `stride` floats from row to row, over `words` of the
/// depth. Padding rows and columns, which `operands` lacks, are not written.
///
/// # Safety
/// * The CPU has AVX-512-BF16.
/// * The panels of `operands` hold `words`, a multiple of 16.
/// * `out` is valid for reads and writes of 32 rows of 32 floats.
#[target_feature(enable = "avx512bf16,avx512f")]
pub(super) unsafe fn output_tile(words: usize, operands: &Operands, out: *mut f32, stride: usize, adds: bool) {
    let Operands { left, lower, right, width, .. } = *operands;
    let rows = if lower > 0 { OUTPUT_TILE } else { TILE };
    // SAFETY: the `# Safety` contract covers that of `product`: the panels hold `rows` and `width` lanes.
    unsafe { product(words, left, rows, right, width, out, stride, adds) };
}

/// [`output_tile`] of 16 or 32 `rows` and `width` columns.
///
/// # Safety
/// * The CPU has AVX-512-BF16.
/// * `left` is valid for reads of `rows` lanes of `words`, in panels of 16, and `right` for reads of `words` of `width`
///   lanes.
/// * `out` is valid for reads and writes of `rows` rows of `width` floats.
#[inline]
#[target_feature(enable = "avx512bf16,avx512f")]
unsafe fn product(
    words: usize,
    left: *const Word,
    rows: usize,
    right: *const Word,
    width: usize,
    out: *mut f32,
    stride: usize,
    adds: bool,
) {
    for row in (0..rows).step_by(ROWS) {
        // SAFETY: rows `row..row + 8` of the panels and of `out`, within the `# Safety` contract.
        unsafe {
            let left = left.add(row / TILE * TILE * words + row % TILE * TILE);
            let out = out.add(row * stride);
            match width {
                TILE => some_rows::<1>(words, left, right, out, stride, adds),
                _ => some_rows::<2>(words, left, right, out, stride, adds),
            }
        }
    }
}

/// [`ROWS`] rows of a product, `VECTORS` vectors wide.
///
/// # Safety
/// As [`product`] with [`ROWS`] rows, of which `left` is the first one's first word.
#[inline]
#[target_feature(enable = "avx512bf16,avx512f")]
unsafe fn some_rows<const VECTORS: usize>(
    words: usize,
    mut left: *const Word,
    mut right: *const Word,
    out: *mut f32,
    stride: usize,
    adds: bool,
) {
    // SAFETY: the loops read `words` of 8 lanes of `left` and of `VECTORS` vectors of `right` and access 8 rows of
    // `out`, within the `# Safety` contract. A vector of floats and a vector of bf16 are 64 bytes each, and any bits
    // are valid.
    unsafe {
        let pairs = |words: __m512| transmute::<__m512, __m512bh>(words);
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        if adds {
            for (i, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(out.add(i * stride + v * TILE));
                }
            }
        }
        for _ in 0..words / TILE {
            for word in 0..TILE {
                let mut columns = [pairs(_mm512_setzero_ps()); VECTORS];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = pairs(_mm512_loadu_ps(right.add(word * VECTORS * TILE + v * TILE).cast()));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let factor = pairs(_mm512_set1_ps(*left.add(i * TILE + word).cast()));
                    for (sum, column) in row.iter_mut().zip(columns) {
                        *sum = _mm512_dpbf16_ps(*sum, factor, column);
                    }
                }
            }
            left = left.add(TILE_WORDS);
            right = right.add(TILE * VECTORS * TILE);
        }
        for (i, row) in sums.iter().enumerate() {
            for (v, sum) in row.iter().enumerate() {
                _mm512_storeu_ps(out.add(i * stride + v * TILE), *sum);
            }
        }
    }
}

/// Multiplies vectors in registers for `rounds` rounds; returns the number of multiplications of words.
///
/// # Safety
/// The CPU has AVX-512-BF16.
#[target_feature(enable = "avx512bf16,avx512f")]
pub(crate) unsafe fn spin(rounds: usize) -> usize {
    /// Independent sums: enough to hide the latency of a product, and few enough for the registers.
    const SUMS: usize = 10;
    // SAFETY: the CPU has AVX-512-BF16: `# Safety`. The types of the transmutation are 64 bytes each, and any bits are
    // valid.
    unsafe {
        // 0.0078: sums never overflow
        let factor = std::hint::black_box(transmute::<[u16; 32], __m512bh>([0x3c00; 32]));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, factor, factor);
            }
        }
        std::hint::black_box(sums);
    }
    rounds * SUMS * TILE
}
