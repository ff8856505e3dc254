//! The epilogue of an output in bf16.

use half::bf16;
use std::arch::x86_64::_mm512_mask_storeu_epi16;

use crate::base::Shared;
use crate::gemm::bf16::round::round_pair;
use crate::gemm::bf16::rows::{PAIR, bits, load, rows_of, sum, sums_of};
use crate::gemm::{Epilogue, OUTPUT_TILE, OutputTile};

/// Stores `x (W ∘ B)ᵀ + b`, rounded to bf16.
pub(crate) struct StoreRounded<'a> {
    /// `y` `[T, stride]`
    pub(crate) out: Shared<'a, bf16>,
    pub(crate) stride: usize,
    /// The strip's first row and column in `out`.
    pub(crate) first: (usize, usize),
    /// One value per column of the strip.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Epilogue for StoreRounded<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize) {
        let lanes = bits(tile.cols);
        for row in rows_of(tile, part) {
            let at = (self.first.0 + tile.row + row) * self.stride + self.first.1 + tile.col;
            // SAFETY: AVX-512F, BW and BF16 are present: a precondition of `part`. `bias` has the strip's columns, and
            // only this thread writes the strip's elements of `out`: the contract of `Strip::multiply_tiles`. `lanes` masks the
            // columns beyond the strip.
            unsafe {
                let mut row = sums_of(tile, row);
                if let Some(bias) = self.bias {
                    row = sum(row, load(bias[tile.col..].as_ptr(), lanes));
                }
                let out = self.out.part(at..at + tile.cols).as_mut_ptr().cast();
                _mm512_mask_storeu_epi16(out, lanes, round_pair(row[0], row[1]));
            }
        }
    }
}
