//! Transposition of rows into panels of f32.

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};

/// `out[j * width + i] = x[i * stride + j]` for `i < rows`, `j < cols`, and 0 for `rows <= i < width`.
pub(crate) fn transpose(x: &[f32], stride: usize, rows: usize, cols: usize, out: &mut [f32], width: usize) {
    assert!(rows <= width && out.len() >= cols * width, "the output holds the panel");
    assert!(rows == 0 || x.len() >= (rows - 1) * stride + cols, "the input holds the rows");
    // blocks by vector instructions, the remaining rows and columns one element at a time
    let (block_rows, block_cols) = transpose_blocks(x, stride, rows, cols, out, width);
    for i in 0..rows {
        for j in if i < block_rows { block_cols } else { 0 }..cols {
            out[j * width + i] = x[i * stride + j];
        }
    }
    if rows < width {
        for row in out.chunks_exact_mut(width).take(cols) {
            row[rows..].fill(0.0);
        }
    }
}

/// Transposes an even number of rows and a multiple of 8 columns with AVX; returns the two numbers.
#[cfg(target_arch = "x86_64")]
fn transpose_blocks(
    x: &[f32],
    stride: usize,
    rows: usize,
    cols: usize,
    out: &mut [f32],
    width: usize,
) -> (usize, usize) {
    if isa() < Isa::Avx2 {
        return (0, 0);
    }
    let done = (rows / 2 * 2, cols / 8 * 8);
    // SAFETY: `isa` found AVX2, which implies AVX; `transpose` asserted that `x` and `out` hold `rows` x `cols`
    // elements, and `done` is at most that.
    unsafe { transpose_blocks_avx(x.as_ptr(), stride, done, out.as_mut_ptr(), width) };
    done
}

/// Transposes groups of eight rows, then of four, then of two.
///
/// # Safety
/// * The CPU has AVX.
/// * `x` is valid for reads of `rows` rows of `cols` floats, `stride` apart, and `out` for writes of `cols` rows of
///   `rows` floats, `width` apart.
/// * `rows` is even, and `cols` a multiple of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn transpose_blocks_avx(
    x: *const f32,
    stride: usize,
    (rows, cols): (usize, usize),
    out: *mut f32,
    width: usize,
) {
    let mut i = 0;
    while i < rows {
        // SAFETY: each call transposes rows `i..` and 8 or 4 columns from `j` on, fewer than the `# Safety` contract
        // covers.
        unsafe {
            let (x, out) = (x.add(i * stride), out.add(i));
            match rows - i {
                8.. => {
                    for j in (0..cols).step_by(8) {
                        transpose_eight(x.add(j), stride, out.add(j * width), width);
                    }
                    i += 8;
                }
                4.. => {
                    for j in (0..cols).step_by(4) {
                        transpose_four(x.add(j), stride, out.add(j * width), width);
                    }
                    i += 4;
                }
                _ => {
                    for j in (0..cols).step_by(4) {
                        transpose_two(x.add(j), stride, out.add(j * width), width);
                    }
                    i += 2;
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_blocks(_: &[f32], _: usize, _: usize, _: usize, _: &mut [f32], _: usize) -> (usize, usize) {
    (0, 0)
}

/// Transposes 4 x 4 floats.
///
/// # Safety
/// The CPU has AVX; `x` is valid for reads of four rows of four floats, `out` for writes of four rows of four.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn transpose_four(x: *const f32, stride: usize, out: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    // SAFETY: four loads and four stores of four floats, all within the rows of the `# Safety` contract.
    unsafe {
        let [r0, r1, r2, r3] = [0, 1, 2, 3].map(|i| _mm_loadu_ps(x.add(i * stride)));
        let (a, b) = (_mm_unpacklo_ps(r0, r1), _mm_unpackhi_ps(r0, r1));
        let (c, d) = (_mm_unpacklo_ps(r2, r3), _mm_unpackhi_ps(r2, r3));
        _mm_storeu_ps(out, _mm_movelh_ps(a, c));
        _mm_storeu_ps(out.add(width), _mm_movehl_ps(c, a));
        _mm_storeu_ps(out.add(2 * width), _mm_movelh_ps(b, d));
        _mm_storeu_ps(out.add(3 * width), _mm_movehl_ps(d, b));
    }
}

/// Transposes 2 x 4 floats.
///
/// # Safety
/// The CPU has AVX; `x` is valid for reads of two rows of four floats, `out` for writes of four rows of two.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
unsafe fn transpose_two(x: *const f32, stride: usize, out: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    // SAFETY: two loads of four floats and four stores of two, within the rows of the `# Safety` contract. A store
    // writes two floats as half of a vector of two doubles and needs no alignment.
    unsafe {
        let (top, bottom) = (_mm_loadu_ps(x), _mm_loadu_ps(x.add(stride)));
        let low = _mm_castps_pd(_mm_unpacklo_ps(top, bottom));
        let high = _mm_castps_pd(_mm_unpackhi_ps(top, bottom));
        _mm_storel_pd(out.cast(), low);
        _mm_storeh_pd(out.add(width).cast(), low);
        _mm_storel_pd(out.add(2 * width).cast(), high);
        _mm_storeh_pd(out.add(3 * width).cast(), high);
    }
}

/// Transposes 8 x 8 floats. Loads join rows i and i + 4 in one vector, which leaves two rounds of shuffles instead of
/// three.
///
/// # Safety
/// The CPU has AVX; `x` is valid for reads of eight rows of eight floats, `out` for writes of eight rows of eight.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
#[inline]
pub(crate) unsafe fn transpose_eight(x: *const f32, stride: usize, out: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    // SAFETY: four floats from column `j` of row `i`, with `i < 8` and `j <= 4`, within the rows of the `# Safety`
    // contract.
    let quarter = |i: usize, j: usize| unsafe { _mm_loadu_ps(x.add(i * stride + j)) };
    for j in [0, 4] {
        let pair = |i: usize| _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(quarter(i, j)), quarter(i + 4, j));
        let (r0, r1, r2, r3) = (pair(0), pair(1), pair(2), pair(3));
        let (a, b) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
        let (c, d) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
        let columns = [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xee>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xee>(b, d),
        ];
        for (k, column) in columns.into_iter().enumerate() {
            // SAFETY: row `j + k < 8` of the output, within the rows of the `# Safety` contract.
            unsafe { _mm256_storeu_ps(out.add((j + k) * width), column) };
        }
    }
}
