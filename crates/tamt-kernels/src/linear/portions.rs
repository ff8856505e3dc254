//! The left operand of a product, packed a portion at a time.

use std::ops::Range;

use crate::base::AlignedBuffer;
use crate::gemm::{Operand, Panels, Side, row_portions};

/// Number of rows of an operand `[n, cols]` with `len` elements; 0 if `cols` is 0.
///
/// # Panics
/// If `len` is not a multiple of `cols`; `name` is the operand's name in the message.
pub(crate) fn row_count(len: usize, cols: usize, name: &str) -> usize {
    if cols == 0 {
        return 0;
    }
    assert!(len.is_multiple_of(cols), "{name} of whole rows of {cols}");
    len / cols
}

/// Packs the left operand `[rows, depth]` in portions of rows that fit the last-level cache, and calls `product` with
/// the rows and the panels of each portion.
pub(crate) fn for_each_portion(
    lhs: &Operand<'_>,
    rows: usize,
    depth: usize,
    buffer: &mut AlignedBuffer,
    mut product: impl FnMut(Range<usize>, Panels<'_>),
) {
    for part in row_portions(rows, depth, lhs.precision) {
        let packed = buffer.get(Panels::len_in(lhs.precision, Side::Left, part.len(), depth));
        let lhs = Panels::pack_parallel(Side::Left, lhs, part.clone(), depth, packed);
        product(part, lhs);
    }
}
