//! Transposition between rows of tokens and panels, in squares.

use crate::base::cpu::{Isa, isa};

/// A matrix in memory: element (i, j) at `start + i * stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(super) start: *const f32,
    pub(super) stride: usize,
}

/// As [`Source`], to write.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

/// Rows and columns of the source that are worked on together: whole cache lines on both sides, few enough for the
/// nearest cache.
const TILE_ROWS: usize = 32;

const TILE_COLS: usize = 64;

/// `to[j][i] = from[i][j]` for `i < rows`, `j < cols`.
///
/// # Safety
/// `from` has `rows` rows of `cols` elements, `to` is writable for `cols` rows of `rows` elements and nobody else's.
#[allow(unsafe_code)]
pub(crate) unsafe fn transpose(from: Source, rows: usize, cols: usize, to: Target) {
    for i in (0..rows).step_by(TILE_ROWS) {
        for j in (0..cols).step_by(TILE_COLS) {
            let (tile_rows, tile_cols) = (TILE_ROWS.min(rows - i), TILE_COLS.min(cols - j));
            // SAFETY: the tile lies in both matrices.
            unsafe {
                let from = Source { start: from.start.add(i * from.stride + j), ..from };
                let to = Target { start: to.start.add(j * to.stride + i), ..to };
                transpose_tile(from, tile_rows, tile_cols, to);
            }
        }
    }
}

/// # Safety
/// As [`transpose`].
#[allow(unsafe_code)]
unsafe fn transpose_tile(from: Source, rows: usize, cols: usize, to: Target) {
    // whole squares first, then what is left to the right of them and below
    // SAFETY: the caller's.
    let (square_rows, square_cols) = unsafe { transpose_squares(from, rows, cols, to) };
    for i in 0..rows {
        for j in if i < square_rows { square_cols } else { 0 }..cols {
            // SAFETY: element (i, j) of the source and (j, i) of the target exist, says the caller.
            unsafe { *to.start.add(j * to.stride + i) = *from.start.add(i * from.stride + j) };
        }
    }
}

/// Transposes the squares for which there are instructions; returns the rows and columns done.
///
/// # Safety
/// As [`transpose`].
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
unsafe fn transpose_squares(from: Source, rows: usize, cols: usize, to: Target) -> (usize, usize) {
    if isa() < Isa::Avx2 {
        return (0, 0);
    }
    // what sixteens leave to the right of them and below is done by eights
    let whole = |size: usize| (rows / size * size, cols / size * size);
    let ((rows, cols), (wide_rows, wide_cols)) = (whole(8), if isa() == Isa::Avx512 { whole(16) } else { (0, 0) });
    // SAFETY: the instructions are there; the parts lie in both matrices.
    unsafe {
        let part = |i: usize, j: usize| {
            let from = Source { start: from.start.add(i * from.stride + j), ..from };
            (from, Target { start: to.start.add(j * to.stride + i), ..to })
        };
        if wide_rows > 0 && wide_cols > 0 {
            x86::transpose_sixteens(from, wide_rows, wide_cols, to);
        }
        let (right, right_to) = part(0, wide_cols);
        x86::transpose_eights(right, wide_rows, cols - wide_cols, right_to);
        let (below, below_to) = part(wide_rows, 0);
        x86::transpose_eights(below, rows - wide_rows, cols, below_to);
    }
    (rows, cols)
}

#[cfg(not(target_arch = "x86_64"))]
#[allow(unsafe_code)]
unsafe fn transpose_squares(_: Source, _: usize, _: usize, _: Target) -> (usize, usize) {
    (0, 0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512};

    use super::{Source, Target};
    use crate::gemm::transpose::transpose_eight;
    use crate::gemm::transpose_avx512::transposed;

    /// # Safety
    /// As [`super::transpose`], for multiples of 16, and with AVX-512.
    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn transpose_sixteens(from: Source, rows: usize, cols: usize, to: Target) {
        for j in (0..cols).step_by(16) {
            for i in (0..rows).step_by(16) {
                // SAFETY: the square lies in both matrices.
                unsafe {
                    let mut square = [_mm512_setzero_si512(); 16];
                    for (k, row) in square.iter_mut().enumerate() {
                        *row = _mm512_loadu_si512(from.start.add((i + k) * from.stride + j).cast());
                    }
                    for (k, row) in transposed(square).into_iter().enumerate() {
                        _mm512_storeu_si512(to.start.add((j + k) * to.stride + i).cast(), row);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`super::transpose`], for multiples of 8, and with AVX.
    #[target_feature(enable = "avx")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn transpose_eights(from: Source, rows: usize, cols: usize, to: Target) {
        // two squares side by side: a cache line of the source at a time
        for pair in (0..cols).step_by(16) {
            for i in (0..rows).step_by(8) {
                for j in (pair..cols.min(pair + 16)).step_by(8) {
                    // SAFETY: the square lies in both matrices.
                    unsafe {
                        let (x, out) = (from.start.add(i * from.stride + j), to.start.add(j * to.stride + i));
                        transpose_eight(x, from.stride, out, to.stride);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn every_element_moves_and_nothing_else_is_written() {
        for (rows, cols) in [(0, 5), (5, 0), (1, 1), (8, 8), (7, 63), (64, 64), (65, 9), (130, 71)] {
            let (from_stride, to_stride) = (cols + 3, rows + 2);
            let x: Vec<f32> = (0..rows * from_stride).map(|i| i as f32).collect();
            let mut y = vec![-1.0; cols * to_stride];
            let from = Source { start: x.as_ptr(), stride: from_stride };
            let to = Target { start: y.as_mut_ptr(), stride: to_stride };
            // SAFETY: both buffers hold the matrix.
            unsafe { transpose(from, rows, cols, to) };
            for (at, &value) in y.iter().enumerate() {
                let (j, i) = (at / to_stride, at % to_stride);
                assert_eq!(value, if i < rows { x[i * from_stride + j] } else { -1.0 });
            }
        }
    }
}
