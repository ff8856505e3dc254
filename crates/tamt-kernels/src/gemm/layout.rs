//! The layout of packed operands: all arithmetic of panels and tiles.
//!
//! A product `C = A B` sums over `depth` steps. The *lanes* of an operand are the rows of `A` or the columns of `B`. A
//! packed operand stores the lanes of one register tile, a *panel*, together. The depth is cut into blocks, so that a
//! panel of one block stays in a cache:
//!
//! ```text
//! operand        [depth block 0][depth block 1] ... [last depth block]
//! depth block    [panel 0][panel 1] ... [last panel]          lanes are padded with zeros, see `Side::padded`
//!
//! f32: a word is one step of one lane. Panel of W lanes (W = 8, 6 or 4 in A; 48, 16 or 8 in B):
//!
//!     step 0   lane 0, lane 1, ... lane W-1
//!     step 1   lane 0, lane 1, ... lane W-1
//!     ...
//!
//! bf16: a word holds the steps 2w (low half) and 2w + 1 (high half) of one lane; words are padded to whole tiles of 16.
//!
//! panel of A, 16 lanes: tiles of AMX               panel of B, 32 lanes (the last panel 16 or 32)
//!
//!     tile 0   lane 0    words 0 ... 15                word 0   lane 0 ... lane 15 | lane 16 ... lane 31
//!              lane 1    words 0 ... 15                word 1   lane 0 ... lane 15 | lane 16 ... lane 31
//!              ...                                     ...
//!              lane 15   words 0 ... 15                word 15  lane 0 ... lane 15 | lane 16 ... lane 31
//!     tile 1   lane 0    words 16 ... 31                        '-- tile 0 ------'   '-- tile 1 -------'
//!              ...                                     word 16  ...
//! ```
//!
//! Each line of 16 words of a bf16 panel is one cache line and one row of a tile register.

use crate::base::{Isa, Precision, isa};

/// Words of a lane in a depth block in f32: a panel of `B` has 24 KB with AVX2, which fits L1, and 72 KB with AVX-512,
/// which fits L2. Miri, where inputs are small, still divides the depth.
pub(crate) const DEPTH_BLOCK: usize = if cfg!(miri) { 16 } else { 384 };

/// Rows of an AMX tile register, and words in each of its rows.
pub(crate) const TILE: usize = 16;

/// Rows and columns of an output tile in bf16: two panels of `A` by one panel of `B`, the four accumulators of AMX.
pub(crate) const OUTPUT_TILE: usize = 2 * TILE;

/// Words of a tile register.
#[cfg(target_arch = "x86_64")]
pub(crate) const TILE_WORDS: usize = TILE * TILE;

/// Words of a lane in a depth block in bf16. The block is longer than in f32 because accumulators in tile registers are
/// expensive to store and reload: as expensive as reading the operands from L2 instead of L1.
#[cfg(target_arch = "x86_64")]
pub(crate) const BF16_BLOCK_WORDS: usize = 1024;

/// Rows of the register tile: lanes of a panel of `A`.
#[inline]
pub(crate) fn tile_rows(precision: Precision) -> usize {
    match isa() {
        Isa::Avx512 if precision.packs_bf16() => TILE,
        Isa::Avx512 => 8,
        Isa::Avx2 => 6,
        Isa::Portable => 4,
    }
}

/// Columns of the register tile: lanes of a panel of `B`.
#[inline]
pub(crate) fn tile_cols(precision: Precision) -> usize {
    match isa() {
        Isa::Avx512 if precision.packs_bf16() => OUTPUT_TILE,
        Isa::Avx512 => 48,
        Isa::Avx2 => 16,
        Isa::Portable => 8,
    }
}

/// Words in a vector register. The last panel of `B` is a whole number of vectors wide.
#[inline]
pub(crate) fn vector_lanes() -> usize {
    match isa() {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Portable => 4,
    }
}

/// The operand of a product that a panel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `A`: lanes are rows; every panel is as wide as the register tile is high.
    Left,
    /// `B`: lanes are columns; every panel but the last one is as wide as the register tile.
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

/// Depths of panels.
impl Precision {
    /// Steps of the depth in a word of a panel.
    pub(crate) fn steps_in_word(self) -> usize {
        if self.packs_bf16() { 2 } else { 1 }
    }

    /// Words of a lane of `steps`, with padding to whole tiles in bf16.
    pub(crate) fn words(self, steps: usize) -> usize {
        if self.packs_bf16() { tile_words(steps) } else { steps }
    }

    /// Words of a lane in a depth block.
    pub(crate) fn block_words(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.packs_bf16() {
            return BF16_BLOCK_WORDS;
        }
        DEPTH_BLOCK
    }

    /// Steps in a depth block.
    pub(crate) fn depth_block(self) -> usize {
        self.block_words() * self.steps_in_word()
    }
}

/// Words of a lane of `steps` in bf16, with padding to whole tiles.
#[inline(always)]
pub(crate) const fn tile_words(steps: usize) -> usize {
    steps.div_ceil(2).next_multiple_of(TILE)
}

/// Offset of the panel that begins with `lane`, in a depth block of `words` that begins at word `first_word` of the
/// depth. The operand has `padded` lanes.
#[inline(always)]
pub(crate) const fn panel_offset(padded: usize, first_word: usize, words: usize, lane: usize) -> usize {
    first_word * padded + lane * words
}

/// Offset in a panel of bf16, `width` lanes wide, of the line that holds lane `lane` of the panel and `word` of the
/// depth block (see the drawing above): in `A` the line of the word's tile, in `B` the line of `width` words that
/// `lane` begins.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) const fn line_in_panel(side: Side, width: usize, lane: usize, word: usize) -> usize {
    match side {
        Side::Left => word / TILE * TILE_WORDS + lane * TILE,
        Side::Right => word * width + lane,
    }
}

/// The panel of bf16 that holds `lane`: its first lane and its width.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn tile_panel(side: Side, padded: usize, lane: usize) -> (usize, usize) {
    match side {
        Side::Left => (lane / TILE * TILE, TILE),
        Side::Right => {
            let panel = lane / OUTPUT_TILE * OUTPUT_TILE;
            (panel, OUTPUT_TILE.min(padded - panel))
        }
    }
}

/// Offset in a bf16 operand of `lanes` and `depth` of the line that holds `lane` and `step`. Epilogues compute it for
/// each pair of rows: it reads constants only, where the functions of [`Precision`] look up the CPU.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn line_offset(side: Side, lanes: usize, depth: usize, lane: usize, step: usize) -> usize {
    const STEPS: usize = 2 * BF16_BLOCK_WORDS;
    let begin = step / STEPS * STEPS;
    let words = tile_words(depth.min(begin + STEPS) - begin);
    let padded = lanes.next_multiple_of(TILE);
    let (panel, width) = tile_panel(side, padded, lane);
    panel_offset(padded, begin / 2, words, panel) + line_in_panel(side, width, lane - panel, (step - begin) / 2)
}
