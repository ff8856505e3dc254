use half::bf16;
use std::arch::x86_64::_mm512_mask_storeu_epi16;

use crate::base::parallel::Shared;
use crate::gemm::bf16::round::round_pair;
use crate::gemm::bf16::rows::{PAIR, bits, load, rows_of, sum, sums_of};
use crate::gemm::epilogue::{Epilogue, OutputTile};
use crate::gemm::layout::OUTPUT_TILE;

/// Rows of the output, round_pair.
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
impl Epilogue for Rounded<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize) {
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
                _mm512_mask_storeu_epi16(out, there, round_pair(row[0], row[1]));
            }
        }
    }
}
