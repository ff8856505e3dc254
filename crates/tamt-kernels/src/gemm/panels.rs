//! Packed operands: read by products, or written by several jobs at once.

use std::ops::Range;

use crate::base::{Precision, Shared, Word};
use crate::gemm::layout::{Side, panel_offset};

/// A packed operand, in the layout of [`crate::gemm::layout`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    pub(crate) data: &'a [Word],
    pub(crate) side: Side,
    /// Lanes with the padding of the last panel.
    pub(crate) padded: usize,
    /// Steps of the depth.
    pub(crate) depth: usize,
    pub(crate) precision: Precision,
}

impl<'a> Panels<'a> {
    /// Words of an operand of `lanes` and `depth` steps in f32.
    pub(crate) fn len(side: Side, lanes: usize, depth: usize) -> usize {
        Self::len_in(Precision::F32, side, lanes, depth)
    }

    /// Words of an operand of `lanes` and `depth` steps.
    pub(crate) fn len_in(precision: Precision, side: Side, lanes: usize, depth: usize) -> usize {
        side.padded(lanes, precision) * precision.words(depth)
    }

    /// The packed operand of `lanes` and `depth` steps at the beginning of `data`.
    pub(crate) fn of(precision: Precision, side: Side, lanes: usize, depth: usize, data: &'a [Word]) -> Self {
        let padded = side.padded(lanes, precision);
        Self { data: &data[..padded * precision.words(depth)], side, padded, depth, precision }
    }

    /// The panels from the one that begins with `lane` to the last one, of the depth block `block`.
    #[inline]
    pub(crate) fn panels_at(&self, lane: usize, block: &Range<usize>) -> &'a [Word] {
        debug_assert!(lane.is_multiple_of(self.side.width(self.precision)), "a panel begins with the lane");
        let [start, end, len] = [block.start, block.end, block.len()].map(|steps| self.precision.words(steps));
        &self.data[panel_offset(self.padded, start, len, lane)..end * self.padded]
    }
}

/// An operand that several jobs pack, each a disjoint block of lanes and steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPanels<'a> {
    pub(crate) panels: Shared<'a, Word>,
    pub(crate) side: Side,
    pub(crate) lanes: usize,
    pub(crate) depth: usize,
    pub(crate) precision: Precision,
}

#[cfg(target_arch = "x86_64")]
impl SharedPanels<'_> {
    /// Pointer to the line of sixteen words of a bf16 panel that begins with `lane` and `step`: of `A` 32 steps of one
    /// lane (`step` a multiple of 32), of `B` two steps of 16 lanes (`lane` a multiple of 16).
    ///
    /// # Panics
    /// If the line exceeds the buffer.
    #[inline(always)]
    pub(crate) fn line(&self, lane: usize, step: usize) -> *mut Word {
        use crate::gemm::layout::{TILE, line_offset};
        let line = line_offset(self.side, self.lanes, self.depth, lane, step);
        let _ = self.panels.pointer(line + TILE);
        self.panels.pointer(line)
    }
}
