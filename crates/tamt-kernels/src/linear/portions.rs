use std::ops::Range;

use crate::base::buffer::AlignedBuffer;
use crate::gemm::layout::Side;
use crate::gemm::operand::Operand;
use crate::gemm::panels::Panels;
use crate::gemm::product::row_portions;

/// Rows of an operand `[n, cols]` given as a flat slice of `len` elements.
pub(crate) fn rows_of(len: usize, cols: usize, what: &str) -> usize {
    if cols == 0 {
        return 0;
    }
    assert!(len.is_multiple_of(cols), "{what} of whole rows of {cols}");
    len / cols
}

/// Packs rows of a left operand `[rows, depth]`, a portion at a time.
pub(crate) fn each_portion(
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
