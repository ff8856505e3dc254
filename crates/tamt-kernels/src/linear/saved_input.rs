//! The layout of a saved activation input `u`: the forward pass of a fused FFN writes `u`, the backward pass reads `u`.
//!
//! In f32 a word is an element; in bf16 a word is a pair of elements (see [`saved_width`]). A job saves its strip a
//! block of rows at a time, and each block as sub-blocks of [`SAVED_COLS`] columns: `[blocks of rows][sub-blocks of
//! columns][rows of the block][words]`. The epilogues of bf16 products on tiles have a layout of their own,
//! `SavedLayout` in `epilogue::activated`.

use std::ops::Range;

use crate::base::{Precision, bf16_bits, kernel};
use crate::gemm::JOB_COLS;

/// Words per token that [`forward_activated`](crate::linear::forward_activated) saves for an activation with `width`
/// features: a word per feature in f32, a word per pair of features in bf16.
pub fn saved_width(width: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 => width,
        Precision::Bf16 => width.div_ceil(2),
    }
}

/// Columns of a sub-block. The columns of every job are whole sub-blocks, except at the end of a row.
const SAVED_COLS: usize = JOB_COLS.start;

/// The words of a block of `rows` rows from row `row` on and of the columns `cols`, for an activation with `width`
/// features.
pub(crate) fn saved_range(
    width: usize,
    precision: Precision,
    row: usize,
    rows: usize,
    cols: &Range<usize>,
) -> Range<usize> {
    let start = row * saved_width(width, precision) + rows * saved_width(cols.start, precision);
    start..start + rows * saved_width(cols.len(), precision)
}

/// Rounds a block `x` `[rows, cols]` to the precision in place, and writes the block to `saved`.
pub(crate) fn save_block(x: &mut [f32], cols: usize, precision: Precision, mut saved: &mut [f32]) {
    let rows = x.len() / cols;
    for from in (0..cols).step_by(SAVED_COLS) {
        let some = SAVED_COLS.min(cols - from);
        let (sub_block, rest) = std::mem::take(&mut saved).split_at_mut(rows * saved_width(some, precision));
        saved = rest;
        match precision {
            Precision::Bf16 => save_pairs(x, cols, from, some, sub_block),
            Precision::F32 => {
                for (row, saved) in x.chunks_exact(cols).zip(sub_block.chunks_exact_mut(some)) {
                    saved.copy_from_slice(&row[from..from + some]);
                }
            }
        }
    }
}

/// Reads row `i` of a block of `rows` rows that [`save_block`] wrote.
pub(crate) fn load_row(saved: &[f32], rows: usize, i: usize, precision: Precision, row: &mut [f32]) {
    let mut first = 0;
    for row in row.chunks_mut(SAVED_COLS) {
        let width = saved_width(row.len(), precision);
        let words = &saved[first + i * width..][..width];
        match precision {
            Precision::F32 => row.copy_from_slice(words),
            Precision::Bf16 => unpack_pairs(words, row),
        }
        first += rows * width;
    }
}

kernel! {
    /// Rounds columns `from..from + cols` of `x` `[rows, stride]` to bf16 in place, and writes the pairs to `saved`:
    /// word `i` of a row is column `i` of the first half in the low bits, column `i` of the second half in the high
    /// bits.
    fn save_pairs<FMA>(x: &mut [f32], stride: usize, from: usize, cols: usize, saved: &mut [f32]) {
        let half = cols.div_ceil(2);
        for (row, words) in x.chunks_exact_mut(stride).zip(saved.chunks_exact_mut(half)) {
            let (low, high) = row[from..from + cols].split_at_mut(half);
            for (word, (low, high)) in words.iter_mut().zip(low.iter_mut().zip(high.iter_mut())) {
                let (low_bits, high_bits) = (bf16_bits(*low), bf16_bits(*high) << 16);
                *word = f32::from_bits(low_bits | high_bits);
                (*low, *high) = (f32::from_bits(low_bits << 16), f32::from_bits(high_bits));
            }
            if high.len() < half {
                let bits = bf16_bits(low[half - 1]);
                (words[half - 1], low[half - 1]) = (f32::from_bits(bits), f32::from_bits(bits << 16));
            }
        }
    }

    /// The inverse of [`save_pairs`] for one row: the low halves of all words, then the high halves.
    fn unpack_pairs<FMA>(words: &[f32], row: &mut [f32]) {
        let (low, high) = row.split_at_mut(words.len());
        for (low, word) in low.iter_mut().zip(words) {
            *low = f32::from_bits(word.to_bits() << 16);
        }
        for (high, word) in high.iter_mut().zip(words) {
            *high = f32::from_bits(word.to_bits() & 0xffff_0000);
        }
    }
}
