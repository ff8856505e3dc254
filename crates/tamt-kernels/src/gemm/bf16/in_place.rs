//! The epilogue that writes output tiles to `C`.

use crate::gemm::bf16::rows::{PAIR, bits, load, rows_of, store, sum, sums_of};
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::epilogue::{Epilogue, OutputTile};
use crate::gemm::layout::OUTPUT_TILE;

/// Writes tiles to a block of `C`.
pub(crate) struct InPlace<'a> {
    pub(crate) out: OutputBlock,
    pub(crate) start: Init<'a>,
}

impl Epilogue for InPlace<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize) {
        let there = bits(tile.cols);
        for row in rows_of(tile, part) {
            // SAFETY: `out` and the lanes `there` are a row of the tile inside the block, which is exclusive by the
            // contract of `Epilogue::part`, and a bias has a value per column of the block. The same contract gives
            // AVX-512.
            unsafe {
                let out = self.out.start.add((tile.row + row) * self.out.stride + tile.col);
                let mut row = sums_of(tile, row);
                match self.start {
                    Init::Zero => {}
                    Init::Bias(bias) => row = sum(row, load(bias[tile.col..].as_ptr(), there)),
                    Init::Accumulate => row = sum(load(out, there), row),
                }
                store(row, out, there);
            }
        }
    }
}
