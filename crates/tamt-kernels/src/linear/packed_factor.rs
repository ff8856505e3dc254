//! [`PackedFactor`]: `dy` and `x` of weight gradients, packed by the groups of tokens that compute the rows.
//!
//! `dW = dyᵀ x` sums over all tokens. Each group packs its rows of `dy` and `x` while they are in L1 or L2; afterwards
//! one product runs over the panels of all groups. Panels of bf16 pairs take half the memory of rows in f32.

use std::ops::Range;

use crate::base::{AlignedBuffer, Precision, Shared, Word, add_elements, store_fence};
use crate::gemm::{Operand, Order, Panels, SharedPanels, Side, TILE, job_rows};

/// The factors of a weight gradient.
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
/// Each group starts at a whole word of the panels (1 token in f32, 32 tokens in bf16 pairs) and is padded with zeros.
#[derive(Clone, Debug, Default)]
pub struct PackedFactor {
    panels: AlignedBuffer,
    pub(crate) width: usize,
    /// Number of tokens, with the padding of all groups.
    pub(crate) steps: usize,
    pub(crate) precision: Precision,
    /// Sums of the unrounded rows of an output gradient in bf16 pairs, `[blocks, sums_width(width)]`; else empty.
    pub(crate) sums: AlignedBuffer,
    /// Number of blocks of [`job_rows`] rows, the last block of each group shorter.
    pub(crate) blocks: usize,
}

/// Length of a row of [`PackedFactor::sums`]: `width`, padded to whole output tiles.
pub(crate) fn sums_width(width: usize) -> usize {
    width.next_multiple_of(2 * TILE)
}

/// Rows that are packed together: whole words in every precision.
const PACK_ROWS: usize = 2 * TILE;

/// The part of a [`PackedFactor`] that one group of tokens packs.
#[derive(Debug)]
pub struct PackedFactorPart<'a> {
    panels: SharedPanels<'a>,
    first_step: usize,
    tokens: usize,
    /// The group's rows of [`PackedFactor::sums`], if the factor has sums.
    sums: Option<Shared<'a, f32>>,
}

impl PackedFactor {
    /// Resizes to `width` columns and to groups of the given numbers of tokens, and returns the group's parts, of
    /// unspecified content.
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
        let (sums, mut first_step, mut first_sum) = (Shared::new(sums), 0, 0);
        let part = |tokens| {
            let own = first_sum..first_sum + blocks(tokens) * sums_width(width);
            first_sum = own.end;
            // SAFETY: the parts of two groups are disjoint: each group starts where the previous group ends.
            let sums = is_summed.then(|| Shared::new(unsafe { sums.part(own) }));
            let part = PackedFactorPart { panels, first_step, tokens, sums };
            first_step += padded(tokens);
            part
        };
        groups.map(part).collect()
    }

    pub(crate) fn panels(&self, factor: Factor) -> Panels<'_> {
        Panels::of(self.precision, factor.side(), self.width, self.steps, self.panels.as_slice())
    }
}

impl PackedFactorPart<'_> {
    /// Checks that this is the part of a factor for a group of `tokens` rows of `width`.
    ///
    /// # Panics
    /// If it is another one.
    pub(super) fn assert_holds(&self, factor: Factor, tokens: usize, width: usize, precision: Precision) {
        let own = (self.panels.side, self.tokens, self.panels.lanes, self.panels.precision);
        assert!(own == (factor.side(), tokens, width, precision), "a part of the group's factor");
    }

    /// Packs all rows `x` `[tokens, width]` of the group and adds the rows to the factor's sums: once per group.
    pub fn pack(&mut self, x: &[f32]) {
        let width = self.panels.lanes;
        assert_eq!(x.len(), self.tokens * width, "rows of the group's tokens");
        // SAFETY: no other block of the group is packed: `self` is borrowed mutably.
        unsafe { self.pack_block(0, 0, x, width) };
    }

    /// Packs `block` `[n, cols]` as rows `row..row + n` of the group and columns `col..col + cols`. The block starts at
    /// whole panels and words, and ends at whole ones or where the group ends.
    ///
    /// # Safety
    /// No other thread packs, during the call, a block that shares a panel word with this block, or a block whose
    /// columns overlap in the same [`job_rows`] rows.
    pub(super) unsafe fn pack_block(&self, row: usize, col: usize, block: &[f32], cols: usize) {
        assert!(
            row + block.len().checked_div(cols).unwrap_or(0) <= self.tokens && col + cols <= self.panels.lanes,
            "a block of the group"
        );
        // a few rows for all panels at a time read memory sequentially
        for (i, some) in block.chunks((PACK_ROWS * cols).max(1)).enumerate() {
            if self.sums.is_some() {
                // SAFETY: no other thread has these sums: a precondition of this function.
                let sums = unsafe { self.row_sums(row, col..col + cols) };
                some.chunks_exact(cols.max(1)).for_each(|row| add_elements(sums, row));
            }
            let precision = self.panels.precision;
            let operand = Operand { precision, non_temporal: true, ..Operand::new(some, cols, Order::DepthRows) };
            let first = self.first_step + row + i * PACK_ROWS;
            // SAFETY: groups own disjoint words: `PackedFactor::parts`. Within the group, no other thread accesses the
            // words of the block: a precondition of this function.
            unsafe { self.panels.pack(&operand, col..col + cols, first..first + some.len() / cols) };
        }
        store_fence();
    }

    /// The sums of `columns` over the block of [`job_rows`] rows that contains row `row` of the group.
    ///
    /// # Panics
    /// If the factor has no sums, or the range exceeds the group's sums.
    ///
    /// # Safety
    /// No other reference to these sums is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(super) unsafe fn row_sums(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let SharedPanels { lanes, precision, .. } = self.panels;
        let first = row / job_rows(precision) * sums_width(lanes);
        // SAFETY: no other reference to these sums is alive: a precondition of this function.
        unsafe { self.sums.expect("a factor with sums").part(first + columns.start..first + columns.end) }
    }

    /// [`SharedPanels::line`] of a token of the group.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn line(&self, lane: usize, token: usize) -> *mut Word {
        self.panels.line(lane, self.first_step + token)
    }
}
