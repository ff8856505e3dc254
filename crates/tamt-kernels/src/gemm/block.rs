//! Blocks of the output `C`.

use std::ops::Range;

/// The initial value of the sums of a product.
#[derive(Clone, Copy)]
pub(crate) enum Init<'a> {
    /// `C = A B`
    Zero,
    /// `C = A B + bias`, one value per column of the block.
    Bias(&'a [f32]),
    /// `C += A B`
    Accumulate,
}

impl<'a> Init<'a> {
    /// The initial value for columns `cols` of the block: after the first depth block, sums accumulate.
    pub(crate) fn of(self, cols: Range<usize>, first: bool) -> Self {
        match self {
            _ if !first => Self::Accumulate,
            Self::Bias(bias) => Self::Bias(&bias[cols]),
            other => other,
        }
    }
}

/// A block of `C` in memory: element (i, j) is `start + i * stride + j`.
#[derive(Clone, Copy)]
pub(crate) struct OutputBlock {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}
