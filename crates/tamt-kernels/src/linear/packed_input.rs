use std::ops::Range;

use crate::base::buffer::AlignedBuffer;
use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::gemm::layout::Side;
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::{Panels, SharedPanels};

/// An input `[T, cols]` as forward products read it.
#[derive(Debug, Default)]
pub struct PackedInput {
    panels: AlignedBuffer,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) precision: Precision,
}

impl PackedInput {
    /// Makes room for `[rows, cols]`, of unspecified content.
    pub(crate) fn begin(&mut self, rows: usize, cols: usize, precision: Precision) -> SharedPanels<'_> {
        (self.rows, self.cols, self.precision) = (rows, cols, precision);
        let panels = Shared::new(self.panels.get(Panels::len_in(precision, Side::Left, rows, cols)));
        SharedPanels { panels, side: Side::Left, lanes: rows, depth: cols, precision }
    }

    pub(crate) fn panels(&self) -> Panels<'_> {
        Panels::of(self.precision, Side::Left, self.rows, self.cols, self.panels.as_slice())
    }
}

/// Packs a block of rows from row `row` on, which has their columns `cols`.
///
/// # Safety
/// No other block that overlaps this one is being packed.
#[allow(unsafe_code)]
pub(crate) unsafe fn pack_rows(panels: &SharedPanels<'_>, row: usize, block: &[f32], cols: Range<usize>) {
    let operand = Operand { precision: panels.precision, ..Operand::new(block, cols.len(), Order::LaneRows) };
    // SAFETY: the caller's.
    unsafe { panels.pack(&operand, row..row + block.len() / cols.len(), cols) };
}
