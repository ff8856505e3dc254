//! Operands of weight gradients, packed by jobs that have some of the tokens each.
//!
//! `dW = dyᵀ x` sums over tokens. A job that makes rows of `dy` (and has those of `x` at hand) leaves them as the product reads
//! them while they are still in its core's caches; in bf16 that is half of what rows in f32 would be.

use std::ops::Range;

use crate::base::buffer::AlignedBuffer;
use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::base::prefetch::store_fence;
use crate::base::sums::add_elements;
use crate::gemm::layout::{Side, TILE};
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::{Panels, SharedPanels};
use crate::gemm::product::job_rows;

/// Which factor of a weight gradient an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// `dy`
    OutputGradient,
    /// `x`
    Input,
}

impl Factor {
    fn side(self) -> Side {
        match self {
            Self::OutputGradient => Side::Left,
            Self::Input => Side::Right,
        }
    }
}

/// `dy` or `x` of a weight gradient, `[T, width]`, packed a group of tokens at a time.
///
/// Groups begin where a word of panels (a token, by tiles 32) begins: what a group lacks to whole words is zero.
#[derive(Clone, Debug, Default)]
pub struct PackedFactor {
    panels: AlignedBuffer,
    pub(crate) width: usize,
    /// Tokens with the padding of all groups.
    pub(crate) steps: usize,
    pub(crate) precision: Precision,
    /// Of an output gradient by tiles the sums over some rows each: `[blocks of rows][sums_width]`.
    pub(crate) sums: AlignedBuffer,
    pub(crate) blocks: usize,
}

/// Columns of sums of so many, whole squares.
pub(crate) fn sums_width(width: usize) -> usize {
    width.next_multiple_of(2 * TILE)
}

/// Rows that are packed together: whole words in every precision.
const ROWS_AT_ONCE: usize = 2 * TILE;

/// A group's part of [`PackedFactor`].
#[derive(Debug)]
pub struct PackedFactorPart<'a> {
    panels: SharedPanels<'a>,
    first: usize,
    tokens: usize,
    /// Sums over the rows of each of the group's blocks, if any are wanted.
    sums: Option<Shared<'a, f32>>,
}

impl PackedFactor {
    /// Begins an operand of groups with so many tokens each, and gives their parts, of unspecified content.
    pub fn parts(
        &mut self,
        factor: Factor,
        width: usize,
        groups: impl Iterator<Item = usize> + Clone,
        precision: Precision,
    ) -> Vec<PackedFactorPart<'_>> {
        let padded = |tokens| precision.words(tokens) * precision.steps_in_word();
        (self.width, self.precision) = (width, precision);
        self.steps = groups.clone().map(padded).sum();
        let (side, depth) = (factor.side(), self.steps);
        let buffer = self.panels.get(Panels::len_in(precision, side, width, depth));
        let panels = SharedPanels { panels: Shared::new(buffer), side, lanes: width, depth, precision };
        let is_summed = factor == Factor::OutputGradient && precision.packs_bf16();
        let blocks = |tokens: usize| if is_summed { tokens.div_ceil(job_rows(precision)) } else { 0 };
        self.blocks = groups.clone().map(blocks).sum();
        let sums = self.sums.get(self.blocks * sums_width(width));
        sums.fill(0.0);
        let (sums, mut first, mut first_sum) = (Shared::new(sums), 0, 0);
        let part = |tokens| {
            let own = first_sum..first_sum + blocks(tokens) * sums_width(width);
            first_sum = own.end;
            // SAFETY: each group has sums of its own.
            #[allow(unsafe_code)]
            let sums = is_summed.then(|| Shared::new(unsafe { sums.part(own) }));
            let part = PackedFactorPart { panels, first, tokens, sums };
            first += padded(tokens);
            part
        };
        groups.map(part).collect()
    }

    pub(crate) fn panels(&self, factor: Factor) -> Panels<'_> {
        Panels::of(self.precision, factor.side(), self.width, self.steps, self.panels.as_slice())
    }
}

impl PackedFactorPart<'_> {
    /// Packs all rows `[tokens, width]` of the group, once: sums over them are added up on the way.
    pub fn pack(&mut self, x: &[f32]) {
        let width = self.panels.lanes;
        assert_eq!(x.len(), self.tokens * width, "rows of the group's tokens");
        // SAFETY: the part is borrowed as a whole.
        #[allow(unsafe_code)]
        unsafe {
            self.pack_block(0, 0, x, width);
        }
    }

    /// Packs a block whose first row is the group's row `row`, and whose `cols` columns begin with `col`; both begin panels and
    /// words, and end so too or where the group ends.
    ///
    /// # Safety
    /// No other block that overlaps this one is being packed.
    #[allow(unsafe_code)]
    pub(super) unsafe fn pack_block(&self, row: usize, col: usize, block: &[f32], cols: usize) {
        assert!(
            row + block.len().checked_div(cols).unwrap_or(0) <= self.tokens && col + cols <= self.panels.lanes,
            "a block of the group"
        );
        // a few rows at a time for all panels, as memory likes to be read
        for (i, some) in block.chunks((ROWS_AT_ONCE * cols).max(1)).enumerate() {
            if self.sums.is_some() {
                // SAFETY: as below.
                let sums = unsafe { self.sums_of(row, col..col + cols) };
                some.chunks_exact(cols.max(1)).for_each(|row| add_elements(sums, row));
            }
            let precision = self.panels.precision;
            let operand = Operand { precision, non_temporal: true, ..Operand::new(some, cols, Order::DepthRows) };
            let first = self.first + row + i * ROWS_AT_ONCE;
            // SAFETY: groups are disjoint, blocks of one by the caller's promise.
            unsafe { self.panels.pack(&operand, col..col + cols, first..first + some.len() / cols) };
        }
        store_fence();
    }

    /// Sums over rows of columns, of the block of rows that a row of the group is in.
    ///
    /// # Safety
    /// Sums are wanted, and nobody else has these.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn sums_of(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let SharedPanels { lanes, precision, .. } = self.panels;
        let first = row / job_rows(precision) * sums_width(lanes);
        // SAFETY: the caller's.
        unsafe { self.sums.expect("sums are wanted").part(first + columns.start..first + columns.end) }
    }

    /// [`SharedPanels::line`] of a token of the group.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn line(&self, lane: usize, token: usize) -> *mut f32 {
        self.panels.line(lane, self.first + token)
    }
}
