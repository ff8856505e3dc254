//! Transposition between token rows `[tokens, cols]` and token panels `[cols][panel tokens]`.

#[cfg(target_arch = "x86_64")]
use crate::base::{Isa, isa};

/// A readable matrix with element (i, j) at `start + i * stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct StridedPtr {
    pub(super) start: *const f32,
    pub(super) stride: usize,
}

/// A writable matrix with element (i, j) at `start + i * stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct StridedPtrMut {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

impl StridedPtr {
    /// The matrix from element (i, j) on. It may begin past the end if it is empty.
    #[inline(always)]
    fn from(self, i: usize, j: usize) -> Self {
        Self { start: self.start.wrapping_add(i * self.stride + j), ..self }
    }
}

impl StridedPtrMut {
    /// The matrix from element (i, j) on. It may begin past the end if it is empty.
    #[inline(always)]
    fn from(self, i: usize, j: usize) -> Self {
        Self { start: self.start.wrapping_add(i * self.stride + j), ..self }
    }
}

/// Rows and columns of the source that are transposed together: whole cache lines of both matrices, 8 KB each for the
/// L1 cache.
const TILE_ROWS: usize = 32;

const TILE_COLS: usize = 64;

/// `to[j][i] = from[i][j]` for `i < rows`, `j < cols`.
///
/// # Safety
/// `from` must be readable for `rows` rows of `cols` elements. `to` must be writable for `cols` rows of `rows`
/// elements, which nothing else accesses during the call.
pub(crate) unsafe fn transpose(from: StridedPtr, rows: usize, cols: usize, to: StridedPtrMut) {
    for i in (0..rows).step_by(TILE_ROWS) {
        for j in (0..cols).step_by(TILE_COLS) {
            let (tile_rows, tile_cols) = (TILE_ROWS.min(rows - i), TILE_COLS.min(cols - j));
            // SAFETY: the tile lies in both matrices, since `i + tile_rows <= rows` and `j + tile_cols <= cols`.
            unsafe { transpose_tile(from.from(i, j), tile_rows, tile_cols, to.from(j, i)) };
        }
    }
}

/// # Safety
/// As [`transpose`].
unsafe fn transpose_tile(from: StridedPtr, rows: usize, cols: usize, to: StridedPtrMut) {
    // SAFETY: both matrices have these rows and columns: this function's contract.
    let (block_rows, block_cols) = unsafe { transpose_blocks(from, rows, cols, to) };
    // the elements to the right of the blocks and below them
    for i in 0..rows {
        for j in if i < block_rows { block_cols } else { 0 }..cols {
            // SAFETY: `i < rows` and `j < cols`: this function's contract.
            unsafe { *to.start.add(j * to.stride + i) = *from.start.add(i * from.stride + j) };
        }
    }
}

/// Transposes whole blocks of 16 x 16 or 8 x 8 with vector instructions. Returns the rows and columns that the blocks
/// cover.
///
/// # Safety
/// As [`transpose`].
#[cfg(target_arch = "x86_64")]
unsafe fn transpose_blocks(from: StridedPtr, rows: usize, cols: usize, to: StridedPtrMut) -> (usize, usize) {
    if isa() < Isa::Avx2 {
        return (0, 0);
    }
    let whole = |size: usize| (rows / size * size, cols / size * size);
    let ((rows, cols), (wide_rows, wide_cols)) = (whole(8), if isa() == Isa::Avx512 { whole(16) } else { (0, 0) });
    // SAFETY: AVX is present: `isa()` returned at least Avx2; AVX-512F is present where `wide_rows` is not 0. All parts
    // lie within `rows` and `cols` of both matrices.
    unsafe {
        if wide_rows > 0 && wide_cols > 0 {
            x86::transpose_blocks_of_16(from, wide_rows, wide_cols, to);
        }
        // 8 x 8 blocks to the right of the 16 x 16 blocks, then below them
        x86::transpose_blocks_of_8(from.from(0, wide_cols), wide_rows, cols - wide_cols, to.from(wide_cols, 0));
        x86::transpose_blocks_of_8(from.from(wide_rows, 0), rows - wide_rows, cols, to.from(0, wide_rows));
    }
    (rows, cols)
}

/// Without vector instructions, no blocks.
///
/// # Safety
/// None.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn transpose_blocks(_: StridedPtr, _: usize, _: usize, _: StridedPtrMut) -> (usize, usize) {
    (0, 0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512};

    use super::{StridedPtr, StridedPtrMut};
    use crate::gemm::transpose::transpose_eight;
    use crate::gemm::transpose_avx512::transposed;

    /// # Safety
    /// As [`super::transpose`], for multiples of 16. The processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose_blocks_of_16(from: StridedPtr, rows: usize, cols: usize, to: StridedPtrMut) {
        for j in (0..cols).step_by(16) {
            for i in (0..rows).step_by(16) {
                // SAFETY: rows `i..i + 16` and columns `j..j + 16` lie in both matrices: `rows` and `cols` are
                // multiples of 16.
                unsafe {
                    let mut block = [_mm512_setzero_si512(); 16];
                    for (k, row) in block.iter_mut().enumerate() {
                        *row = _mm512_loadu_si512(from.start.add((i + k) * from.stride + j).cast());
                    }
                    for (k, row) in transposed(block).into_iter().enumerate() {
                        _mm512_storeu_si512(to.start.add((j + k) * to.stride + i).cast(), row);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`super::transpose`], for multiples of 8. The processor must have AVX.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn transpose_blocks_of_8(from: StridedPtr, rows: usize, cols: usize, to: StridedPtrMut) {
        // Two neighbouring blocks read one cache line of each source row.
        for pair in (0..cols).step_by(16) {
            for i in (0..rows).step_by(8) {
                for j in (pair..cols.min(pair + 16)).step_by(8) {
                    // SAFETY: rows `i..i + 8` and columns `j..j + 8` lie in both matrices: `rows` and `cols` are
                    // multiples of 8.
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
    use crate::reference::unless_miri;

    #[test]
    fn every_element_moves_and_nothing_else_is_written() {
        let shapes = unless_miri(
            &[(0, 5), (5, 0), (1, 1), (8, 8), (7, 63), (64, 64), (65, 9), (130, 71)][..],
            &[(0, 5), (5, 0), (1, 1), (8, 8), (33, 3), (2, 65)],
        );
        for &(rows, cols) in shapes {
            let (from_stride, to_stride) = (cols + 3, rows + 2);
            let x: Vec<f32> = (0..rows * from_stride).map(|i| i as f32).collect();
            let mut y = vec![-1.0; cols * to_stride];
            let from = StridedPtr { start: x.as_ptr(), stride: from_stride };
            let to = StridedPtrMut { start: y.as_mut_ptr(), stride: to_stride };
            // SAFETY: `x` has `rows` rows of `from_stride >= cols` floats, `y` has `cols` rows of `to_stride >= rows`.
            unsafe { transpose(from, rows, cols, to) };
            for (at, &value) in y.iter().enumerate() {
                let (j, i) = (at / to_stride, at % to_stride);
                assert_eq!(value, if i < rows { x[i * from_stride + j] } else { -1.0 });
            }
        }
    }
}
