use crate::base::precision::Precision;
use crate::base::values::Values;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::in_place::InPlace;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit;
#[cfg(target_arch = "x86_64")]
use crate::gemm::bf16::unit::TileUnit;
use crate::gemm::block::{Init, OutputBlock};
use crate::gemm::layout::{tile_cols, tile_rows, vector_lanes};
use crate::gemm::microkernel::{LeftRows, strip_product};
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::Panels;

/// A left operand: packed for large products, as it lies for small ones, whose rows stay in the first-level cache.
#[derive(Clone, Copy)]
pub(crate) enum LeftOperand<'a> {
    /// Packed, from a row that begins a panel.
    Packed(Panels<'a>, usize),
    /// From the first element of its data; without a mask.
    Plain(Operand<'a>),
}

/// Steps of the depth from which on squares of tiles are finished in parts, on tile registers beside others' products: shorter ones
/// have too few to do it between.
#[cfg(target_arch = "x86_64")]
const DEEP_SQUARES: usize = 256;

/// `C (+)= A B`, on this thread. `first_col` is the block's first column in `rhs`, where a panel begins. The depth is that of `rhs`.
///
/// # Safety
/// The block must be writable and nobody else's.
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply(
    c: OutputBlock,
    lhs: LeftOperand<'_>,
    rhs: Panels<'_>,
    first_col: usize,
    start: Init<'_>,
) {
    if let LeftOperand::Plain(a) = lhs {
        let (rows, cols) = if a.order == Order::LaneRows { (c.rows, rhs.depth()) } else { (rhs.depth(), c.rows) };
        assert!(rows * cols == 0 || a.data.len() >= (rows - 1) * a.stride + cols, "the left operand holds the block");
        assert!(a.mask.is_none(), "a left operand without a mask");
        assert_eq!(rhs.precision(), Precision::F32, "a right operand of the left one's precision");
    }
    let precision = rhs.precision();
    let width = tile_cols(precision);
    #[cfg(target_arch = "x86_64")]
    let tiles = TileUnit::new(precision);
    #[cfg(target_arch = "x86_64")]
    if let (Some(tiles), LeftOperand::Packed(lhs, row), DEEP_SQUARES..) = (&tiles, lhs, rhs.depth()) {
        let mut finish = InPlace { out: c, start };
        // SAFETY: the caller's.
        return unsafe { unit::squares(tiles, (row, c.rows), (first_col, c.cols), lhs, rhs, &mut finish) };
    }
    let mut from = 0;
    // at least once, so that a product of depth 0 still writes its start
    while from < rhs.depth() || from == 0 {
        let block = from..rhs.depth().min(from + precision.depth_block());
        let steps = precision.words(block.len());
        let a = match lhs {
            LeftOperand::Packed(panels, row) => {
                assert_eq!(panels.precision(), precision, "operands of one precision");
                let a = panels.panels_at(row, &block);
                assert!(
                    a.len() >= c.rows.next_multiple_of(tile_rows(precision)) * steps,
                    "the left operand holds the block"
                );
                LeftRows { start: a.as_ptr(), row: 1, step: tile_rows(precision), packed: true }
            }
            LeftOperand::Plain(Operand { data, stride, order, .. }) => {
                let Values::F32(data) = data else { panic!("a left operand that is read where it lies is in f32") };
                let (row, step) = if order == Order::LaneRows { (stride, 1) } else { (1, stride) };
                LeftRows { start: data.as_ptr().wrapping_add(from * step), row, step, packed: false }
            }
        };
        for col in (0..c.cols).step_by(width) {
            let cols = width.min(c.cols - col);
            let panel = &rhs.panels_at(first_col + col, &block)[..cols.next_multiple_of(vector_lanes()) * steps];
            // SAFETY: columns col..col + cols of the block; the left operand was checked.
            unsafe {
                let strip = OutputBlock { start: c.start.add(col), cols, ..c };
                let start = start.of(col..col + cols, from == 0);
                #[cfg(target_arch = "x86_64")]
                if let Some(tiles) = &tiles {
                    unit::strip(tiles, strip, steps, a.start, panel, start);
                    continue;
                }
                strip_product(strip, steps, a, panel, start);
            }
        }
        from += precision.depth_block();
    }
}
