use std::ops::Range;

use crate::base::dispatch::kernel;
use crate::base::precision::Precision;
use crate::base::values::bf16_bits;
use crate::gemm::layout::TILE;
use crate::gemm::product::JOB_COLS;

/// Floats that [`forward_activated`] keeps of a token whose activation has `width` features.
#[must_use]
pub fn saved_width(width: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 => width,
        Precision::Bf16 => width.div_ceil(2),
    }
}

/// Columns of a block of what is kept, at most; every job has whole blocks.
const SAVED_COLS: usize = JOB_COLS.start;

/// What is kept of `rows` rows from row `row` on and of columns `cols`: blocks of rows one after the other, in each of them the
/// blocks of columns.
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

kernel! {
    /// Rounds columns `from..from + cols` of rows of `stride` to bf16 and keeps them in words: the first half of a row is low, the
    /// second one high.
    fn save_rounded<FMA>(x: &mut [f32], stride: usize, from: usize, cols: usize, kept: &mut [f32]) {
        let half = cols.div_ceil(2);
        for (row, words) in x.chunks_exact_mut(stride).zip(kept.chunks_exact_mut(half)) {
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
}

/// Rounds a block of rows of `cols` to the precision, and keeps it.
pub(crate) fn keep(x: &mut [f32], cols: usize, precision: Precision, mut kept: &mut [f32]) {
    let rows = x.len() / cols;
    for from in (0..cols).step_by(SAVED_COLS) {
        let some = SAVED_COLS.min(cols - from);
        let (block, rest) = std::mem::take(&mut kept).split_at_mut(rows * saved_width(some, precision));
        kept = rest;
        match precision {
            Precision::Bf16 => save_rounded(x, cols, from, some, block),
            Precision::F32 => {
                for (row, kept) in x.chunks_exact(cols).zip(block.chunks_exact_mut(some)) {
                    kept.copy_from_slice(&row[from..from + some]);
                }
            }
        }
    }
}

/// Row `i` of what [`keep`] kept of `rows` rows.
pub(crate) fn saved_row(kept: &[f32], rows: usize, i: usize, precision: Precision, row: &mut [f32]) {
    let mut first = 0;
    for row in row.chunks_mut(SAVED_COLS) {
        let width = saved_width(row.len(), precision);
        let words = &kept[first + i * width..][..width];
        match precision {
            Precision::F32 => row.copy_from_slice(words),
            Precision::Bf16 => unpack_halves(words, row),
        }
        first += rows * width;
    }
}

kernel! {
    /// The low unpack_halves of words, then the high ones.
    fn unpack_halves<FMA>(words: &[f32], row: &mut [f32]) {
        let (low, high) = row.split_at_mut(words.len());
        for (low, word) in low.iter_mut().zip(words) {
            *low = f32::from_bits(word.to_bits() << 16);
        }
        for (high, word) in high.iter_mut().zip(words) {
            *high = f32::from_bits(word.to_bits() & 0xffff_0000);
        }
    }
}

/// How an activation's input is kept: in bf16, blocks of 32 columns one after the other, in the order in which a job goes through
/// them.
#[derive(Clone, Copy)]
pub(crate) struct SavedLayout {
    pub(crate) rows: usize,
    /// Words of a row.
    pub(crate) words: usize,
}

impl SavedLayout {
    /// The words of columns `col..` of a row, where a block begins with `col`.
    #[inline(always)]
    pub(crate) fn place(&self, row: usize, col: usize) -> Range<usize> {
        let before = col / 2;
        let width = TILE.min(self.words - before);
        let first = before * self.rows + row * width;
        first..first + width
    }
}
