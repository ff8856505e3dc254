use crate::base::cpu::{Isa, isa};
use crate::base::precision::Precision;

/// Words of a lane (steps of the depth, in bf16 pairs of them) in a block of panels: a panel of `B` then has 24 KB with AVX2, a part of the first-level cache, and
/// 72 KB with AVX-512, a part of the second-level cache.
pub(crate) const DEPTH_BLOCK: usize = 384;

/// LeftRows of a tile register of AMX, and words in a row of it. Products on them take two of a left operand and two of a right
/// one at a time; a right panel is as wide as both.
pub(crate) const TILE: usize = 16;

/// LeftRows of the register tile, the width of a panel of the left operand.
#[inline]
pub(crate) fn tile_rows(precision: Precision) -> usize {
    match isa() {
        Isa::Avx512 if precision.packs_bf16() => TILE,
        Isa::Avx512 => 8,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

/// Columns of the register tile, the width of a panel of the right operand.
#[inline]
pub(crate) fn tile_cols(precision: Precision) -> usize {
    match isa() {
        Isa::Avx512 if precision.packs_bf16() => 2 * TILE,
        Isa::Avx512 => 48,
        Isa::Avx2 => 16,
        Isa::Portable => 8,
    }
}

/// Floats in a vector. The last panel of a right operand is some vectors wide.
#[inline]
pub(crate) fn vector_lanes() -> usize {
    match isa() {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Portable => 4,
    }
}

/// Which operand of a product a panel belongs to: the sides of the register tile have different widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `A`: a panel has the rows of the register tile.
    Left,
    /// `B`: a panel has the columns of the register tile, the last one perhaps fewer vectors.
    Right,
}

impl Side {
    /// Lanes of a panel.
    #[inline]
    pub(crate) fn width(self, precision: Precision) -> usize {
        match self {
            Self::Left => tile_rows(precision),
            Self::Right => tile_cols(precision),
        }
    }

    /// `lanes` with the padding of the last panel.
    #[inline]
    pub(crate) fn padded(self, lanes: usize, precision: Precision) -> usize {
        match self {
            Self::Left => lanes.next_multiple_of(tile_rows(precision)),
            Self::Right => lanes.next_multiple_of(vector_lanes()),
        }
    }
}

/// Rows and columns of a square: two panels of the left operand, a whole one of the right.
pub(crate) const OUTPUT_TILE: usize = 2 * TILE;

/// Words of a tile.
pub(crate) const TILE_WORDS: usize = TILE * TILE;

/// Words of a lane in a block of the depth: tile registers keep their sums for longer than vectors, for to write them and to read
/// them again takes as long as to have the operands from the second-level cache in place of the first.
pub(crate) const BF16_BLOCK_WORDS: usize = 1024;

/// The panel layout of operands in a precision.
impl Precision {
    /// Steps of the depth in a word of a panel. Two of bf16 are a low and a high half.
    pub(crate) fn steps_in_word(self) -> usize {
        if self.packs_bf16() { 2 } else { 1 }
    }

    /// Words that hold `steps` of a lane; whole tiles of them where panels are made of those.
    pub(crate) fn words(self, steps: usize) -> usize {
        let words = steps.div_ceil(self.steps_in_word());
        if self.packs_bf16() { words.next_multiple_of(TILE) } else { words }
    }

    /// Words of a lane in a block of the depth.
    pub(crate) fn block_words(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.packs_bf16() {
            return BF16_BLOCK_WORDS;
        }
        DEPTH_BLOCK
    }

    /// Steps in a block of the depth.
    pub(crate) fn depth_block(self) -> usize {
        self.block_words() * self.steps_in_word()
    }
}
