//! The epilogue of a weight gradient: [`GradEpilogue`] on the output tiles of `G = dyᵀ x`.

use half::bf16;
use std::arch::x86_64::{_mm512_mask_storeu_epi16, _mm512_maskz_loadu_epi16, _mm512_maskz_mov_ps, _mm512_mul_ps};

use crate::base::{Shared, Values};
use crate::gemm::bf16::round::round_pair;
use crate::gemm::bf16::rows::{PAIR, Row, bits, halves, load, rows_of, store, sum, sums_of, widened};
use crate::gemm::{Epilogue, OUTPUT_TILE, OutputTile};
use crate::masks::{BitMask, GradEpilogue, first_bits};

/// Stores or adds `epilogue(G)`, a strip of a weight gradient.
pub(crate) struct StoreGradient<'a> {
    pub(crate) epilogue: GradEpilogue<'a>,
    /// Columns of `G`.
    pub(crate) cols: usize,
    /// The strip's first row and column in `G`.
    pub(crate) first: (usize, usize),
    pub(crate) out: GradientOut<'a>,
    /// Whether `epilogue(G)` is added to `out`.
    pub(crate) add: bool,
}

/// The output of a weight gradient, `[rows, cols]`.
#[derive(Clone, Copy)]
pub(crate) enum GradientOut<'a> {
    F32(Shared<'a, f32>),
    Bf16(Shared<'a, bf16>),
}

/// The bits of a mask for 32 columns of a row, column `col` in the lowest bit; `col` is a multiple of 32.
#[inline(always)]
pub(crate) fn mask_bits(mask: &BitMask, row: usize, col: usize) -> u32 {
    first_bits(&mask.row(row)[col / 8..])
}

impl StoreGradient<'_> {
    /// Applies the epilogue to `g`, columns `col..col + 32` of row `row` of `G`; `lanes` masks the columns beyond `G`.
    ///
    /// # Safety
    /// * The processor has AVX-512F, BW, DQ and VL.
    /// * The weights of the epilogue hold the elements of `lanes`: [`GradEpilogue::assert_shape`].
    #[inline(always)]
    unsafe fn transformed(&self, g: Row, row: usize, col: usize, lanes: u32) -> Row {
        // SAFETY: the target features are present, and the masked loads of the weights read the elements of `lanes`
        // only: preconditions of this function.
        unsafe {
            match self.epilogue {
                GradEpilogue::Dense => g,
                GradEpilogue::Survivors(_) => unreachable!("survivors are gathered"),
                GradEpilogue::Masked(mask) => {
                    let [low, high] = halves(mask_bits(mask, row, col));
                    [_mm512_maskz_mov_ps(low, g[0]), _mm512_maskz_mov_ps(high, g[1])]
                }
                GradEpilogue::Score(w) => {
                    let at = row * self.cols + col;
                    let w = match w {
                        Values::F32(w) => load(w.as_ptr().add(at), lanes),
                        Values::Bf16(w) => widened(_mm512_maskz_loadu_epi16(lanes, w.as_ptr().add(at).cast())),
                    };
                    [_mm512_mul_ps(g[0], w[0]), _mm512_mul_ps(g[1], w[1])]
                }
            }
        }
    }
}

impl Epilogue for StoreGradient<'_> {
    const PARTS: usize = OUTPUT_TILE / PAIR;

    #[inline(always)]
    unsafe fn part(&mut self, tile: &OutputTile<'_>, part: usize) {
        let lanes = bits(tile.cols);
        for i in rows_of(tile, part) {
            let (row, col) = (self.first.0 + tile.row + i, self.first.1 + tile.col);
            let at = row * self.cols + col;
            // SAFETY: AVX-512F, BW, DQ, VL and BF16 are present: a precondition of `part`. The weights of the epilogue
            // have the shape of `G`: `assert_shape` in `weight_gradient` and `backward_weight`. Only this thread writes
            // the strip's elements of `out`: the contract of `Strip::multiply_tiles`. `lanes` masks the columns beyond the
            // strip.
            unsafe {
                let mut g = self.transformed(sums_of(tile, i), row, col, lanes);
                match &self.out {
                    GradientOut::F32(out) => {
                        let out = out.part(at..at + tile.cols).as_mut_ptr();
                        if self.add {
                            g = sum(g, load(out, lanes));
                        }
                        store(g, out, lanes);
                    }
                    GradientOut::Bf16(out) => {
                        let out = out.part(at..at + tile.cols).as_mut_ptr().cast();
                        if self.add {
                            g = sum(g, widened(_mm512_maskz_loadu_epi16(lanes, out)));
                        }
                        _mm512_mask_storeu_epi16(out, lanes, round_pair(g[0], g[1]));
                    }
                }
            }
        }
    }
}
