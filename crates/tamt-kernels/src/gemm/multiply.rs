//! The product of a block of `C` on one thread.

use std::ops::Range;

use crate::base::{Precision, Values, Word};
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::in_place::InPlace;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::{self, TileUnit};
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::layout::{tile_cols, tile_rows, vector_lanes};
use crate::gemm::microkernel::{LeftRows, strip_product};
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::Panels;

/// The left operand of [`multiply`].
#[derive(Clone, Copy)]
pub(crate) enum LeftOperand<'a> {
    /// A packed operand, from the given row on, which begins a panel. For large products.
    Packed(Panels<'a>, usize),
    /// An unpacked, unmasked operand in f32, from the first element of its data on. For small products, whose rows stay
    /// in L1.
    Plain(Operand<'a>),
}

impl LeftOperand<'_> {
    /// Checks an unpacked operand of `rows` rows against the right operand.
    fn assert_plain(self, rows: usize, rhs: Panels<'_>) {
        let Self::Plain(a) = self else { return };
        let (rows, cols) = if a.order == Order::LaneRows { (rows, rhs.depth) } else { (rhs.depth, rows) };
        assert!(rows * cols == 0 || a.data.len() >= (rows - 1) * a.stride + cols, "the left operand holds the block");
        assert!(a.mask.is_none(), "a left operand without a mask");
        assert_eq!(rhs.precision, Precision::F32, "a right operand of the left one's precision");
    }

    /// The operand's `rows` rows for the depth block `block` of `words` words.
    fn block(self, rows: usize, block: &Range<usize>, words: usize, precision: Precision) -> LeftRows {
        match self {
            Self::Packed(panels, row) => {
                assert_eq!(panels.precision, precision, "operands of one precision");
                let a = panels.panels_at(row, block);
                let padded = rows.next_multiple_of(tile_rows(precision));
                assert!(a.len() >= padded * words, "the left operand holds the block");
                LeftRows { start: a.as_ptr().cast(), row: 1, step: tile_rows(precision), packed: true }
            }
            Self::Plain(Operand { data, stride, order, .. }) => {
                let Values::F32(data) = data else { panic!("an unpacked left operand is in f32") };
                let (row, step) = if order == Order::LaneRows { (stride, 1) } else { (1, stride) };
                LeftRows { start: data.as_ptr().wrapping_add(block.start * step), row, step, packed: false }
            }
        }
    }
}

/// The least depth of bf16 products in output tiles with an epilogue. In shallower products, too few tile products hide
/// the epilogue's work.
#[cfg(target_arch = "x86_64")]
const MIN_EPILOGUE_DEPTH: usize = 256;

/// `C (+)= A B` on this thread. `first_col` is the column of `rhs` that is the block's first column; it begins a panel.
/// The depth is that of `rhs`.
///
/// # Safety
/// `c` is writable, and no other thread accesses it.
///
/// # Panics
/// If `lhs` does not hold the block's rows at the depth and precision of `rhs`, or `rhs` does not hold its columns.
pub(crate) unsafe fn multiply(
    c: OutputBlock,
    lhs: LeftOperand<'_>,
    rhs: Panels<'_>,
    first_col: usize,
    start: Init<'_>,
) {
    lhs.assert_plain(c.rows, rhs);
    let precision = rhs.precision;
    let width = tile_cols(precision);
    #[cfg(target_arch = "x86_64")]
    let tiles = TileUnit::new(precision);
    #[cfg(target_arch = "x86_64")]
    if let (Some(tiles), LeftOperand::Packed(lhs, row), MIN_EPILOGUE_DEPTH..) = (&tiles, lhs, rhs.depth) {
        let mut epilogue = InPlace { out: c, start };
        // SAFETY: `TileUnit::new` found AVX-512-BF16; `c` is writable and unshared by the `# Safety` contract.
        return unsafe { unit::tile_product(tiles, (row, c.rows), (first_col, c.cols), lhs, rhs, &mut epilogue) };
    }
    let mut from = 0;
    // at least once, so that a product of depth 0 writes the initial value
    while from < rhs.depth || from == 0 {
        let block = from..rhs.depth.min(from + precision.depth_block());
        let words = precision.words(block.len());
        let a = lhs.block(c.rows, &block, words, precision);
        for col in (0..c.cols).step_by(width) {
            let cols = width.min(c.cols - col);
            let panel = &rhs.panels_at(first_col + col, &block)[..cols.next_multiple_of(vector_lanes()) * words];
            // SAFETY: the strip is the columns `col..col + cols` of `c`, writable and unshared by the `# Safety`
            // contract; `LeftOperand::block` and `assert_plain` checked that `a` holds `c.rows` rows of the block, in
            // whole panels.
            unsafe {
                let strip = OutputBlock { start: c.start.add(col), cols, ..c };
                let start = start.of(col..col + cols, from == 0);
                #[cfg(target_arch = "x86_64")]
                if let Some(tiles) = &tiles {
                    unit::strip(tiles, strip, words, a.start.cast(), panel, start);
                    continue;
                }
                strip_product(strip, words, a, Word::floats(panel), start);
            }
        }
        from += precision.depth_block();
    }
}
