//! Products of tiles by AVX-512-BF16: 32 products of two vectors in one instruction, with two vectors of sums for each of some rows
//! in registers.

use std::arch::x86_64::{
    __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use crate::gemm::bf16::operands::Operands;
use crate::gemm::epilogue::{Epilogue, OutputTile, TileSums};
use crate::gemm::layout::{OUTPUT_TILE, TILE, TILE_WORDS};
use crate::gemm::panels::Panels;

/// Rows whose sums are in registers: with two vectors of each, as many as hide how long a product takes, and operands of sixteen
/// products are ten loads.
const ROWS: usize = 8;

/// The product of rows `first_row..` of a left operand and columns `first_col..` of a right one, each square given to `finish`.
///
/// # Safety
/// The processor has these instructions, the operands have the same depth and precision, and what `finish` asks for.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")]
#[allow(unsafe_code)]
pub(super) unsafe fn squares<F: Epilogue>(
    (first_row, rows): (usize, usize),
    (first_col, cols): (usize, usize),
    lhs: Panels<'_>,
    rhs: Panels<'_>,
    finish: &mut F,
) {
    let (depth, precision) = (rhs.depth(), rhs.precision());
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
                // SAFETY: the caller's; panels hold what they were asked for.
                unsafe {
                    let out: *mut f32 = (&raw mut sums).cast();
                    product(words, left.as_ptr(), left_rows, right.as_ptr(), width, out, OUTPUT_TILE, from > 0);
                }
            }
            let square = OutputTile::at((row, col), (rows, cols), &sums);
            // SAFETY: the caller's.
            unsafe { (0..F::PARTS).for_each(|part| finish.part(&square, part)) };
        }
    }
}

/// `out = A B` or, with `adds`, `out += A B` for 32 x 32 elements, `stride` floats from row to row.
///
/// # Safety
/// The processor has these instructions; all memory is there.
#[target_feature(enable = "avx512bf16,avx512f")]
#[allow(unsafe_code)]
pub(super) unsafe fn square(words: usize, operands: &Operands, out: *mut f32, stride: usize, adds: bool) {
    let Operands { left, lower, right, width, .. } = *operands;
    let rows = if lower > 0 { OUTPUT_TILE } else { TILE };
    // SAFETY: the caller's.
    unsafe { product(words, left, rows, right, width, out, stride, adds) };
}

/// The product of panels of one or two tiles' `rows` and a right panel, which with `adds` is added to what is there.
///
/// # Safety
/// As for [`square`].
#[inline]
#[target_feature(enable = "avx512bf16,avx512f")]
#[allow(unsafe_code)]
#[allow(clippy::too_many_arguments)]
unsafe fn product(
    words: usize,
    left: *const f32,
    rows: usize,
    right: *const f32,
    width: usize,
    out: *mut f32,
    stride: usize,
    adds: bool,
) {
    for row in (0..rows).step_by(ROWS) {
        // SAFETY: the caller's.
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

/// [`ROWS`] rows of a product, `VECTORS` wide.
///
/// # Safety
/// As for [`square`].
#[inline]
#[target_feature(enable = "avx512bf16,avx512f")]
#[allow(unsafe_code)]
unsafe fn some_rows<const VECTORS: usize>(
    words: usize,
    mut left: *const f32,
    mut right: *const f32,
    out: *mut f32,
    stride: usize,
    adds: bool,
) {
    // SAFETY: the caller's; a vector of words and one of bf16 are the same 64 bytes.
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
                    *column = pairs(_mm512_loadu_ps(right.add(word * VECTORS * TILE + v * TILE)));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let factor = pairs(_mm512_set1_ps(*left.add(i * TILE + word)));
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

/// Products of registers for a while; returns the multiplications of words.
///
/// # Safety
/// The processor has these instructions.
#[target_feature(enable = "avx512bf16,avx512f")]
#[allow(unsafe_code)]
pub(crate) unsafe fn spin(rounds: usize) -> usize {
    /// More than a product takes cycles, and few enough for the registers.
    const SUMS: usize = 10;
    // SAFETY: the caller's; both types are 64 bytes.
    unsafe {
        // bf16, small enough never to overflow
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
