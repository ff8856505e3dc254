use crate::gemm::bf16::rows::{PAIR, bits, load, rows_of, store, sum, sums_of};
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::epilogue::{Epilogue, OutputTile};
use crate::gemm::layout::OUTPUT_TILE;

/// Rows of the output in place.
pub(crate) struct InPlace<'a> {
    pub(crate) out: OutputBlock,
    pub(crate) start: Init<'a>,
}

#[allow(unsafe_code)]
impl Epilogue for InPlace<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, square: &OutputTile<'_>, part: usize) {
        let there = bits(square.cols);
        for row in rows_of(square, part) {
            // SAFETY: rows and columns of the block; the instructions are the caller's promise.
            unsafe {
                let out = self.out.start.add((square.row + row) * self.out.stride + square.col);
                let mut row = sums_of(square, row);
                match self.start {
                    Init::Zero => {}
                    Init::Bias(bias) => row = sum(row, load(bias[square.col..].as_ptr(), there)),
                    Init::Accumulate => row = sum(load(out, there), row),
                }
                store(row, out, there);
            }
        }
    }
}
