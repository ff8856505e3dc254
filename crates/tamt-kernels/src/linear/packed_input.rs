//! [`PackedInput`]: activations packed as the left operand of the next product.

use std::ops::Range;

use crate::base::{AlignedBuffer, Precision, Shared};
use crate::gemm::{Operand, Order, Panels, SharedPanels, Side};

/// A left operand `[T, cols]` in panels, written by the operation that computes the values.
#[derive(Debug, Default)]
pub struct PackedInput {
    panels: AlignedBuffer,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) precision: Precision,
}

impl PackedInput {
    /// Resizes to `[rows, cols]` and returns the panels, of unspecified content.
    pub(crate) fn begin(&mut self, rows: usize, cols: usize, precision: Precision) -> SharedPanels<'_> {
        (self.rows, self.cols, self.precision) = (rows, cols, precision);
        let panels = Shared::new(self.panels.get(Panels::len_in(precision, Side::Left, rows, cols)));
        SharedPanels { panels, side: Side::Left, lanes: rows, depth: cols, precision }
    }

    pub(crate) fn panels(&self) -> Panels<'_> {
        Panels::of(self.precision, Side::Left, self.rows, self.cols, self.panels.as_slice())
    }
}

/// Packs `block` `[n, cols.len()]` as rows `row..row + n` and columns `cols` of `panels`.
///
/// # Safety
/// No other thread reads or writes the panel words of these rows and columns during the call.
pub(crate) unsafe fn pack_rows(panels: &SharedPanels<'_>, row: usize, block: &[f32], cols: Range<usize>) {
    let operand = Operand { precision: panels.precision, ..Operand::new(block, cols.len(), Order::LaneRows) };
    // SAFETY: no other thread accesses the words of the block: a precondition of this function.
    unsafe { panels.pack(&operand, row..row + block.len() / cols.len(), cols) };
}
