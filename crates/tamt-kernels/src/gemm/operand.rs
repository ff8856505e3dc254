//! Operands of a product before packing.

use crate::base::{Precision, Values};
use crate::masks::BitMask;

/// An operand before packing: lanes (rows of `A` or columns of `B`) by steps of the depth.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) data: Values<'a>,
    /// Elements from one row of `data` to the next.
    pub(crate) stride: usize,
    pub(crate) order: Order,
    /// Mask with the rows and columns of `data`, applied by packing. Only a right operand whose `data` begins with the
    /// first element of its matrix has one.
    pub(crate) mask: Option<&'a BitMask>,
    /// The precision that packing rounds to.
    pub(crate) precision: Precision,
    /// Whether packing in bf16 uses non-temporal stores, for panels that are read much later. The packing thread then
    /// calls [`store_fence`](crate::base::prefetch::store_fence) before another thread reads them.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) non_temporal: bool,
}

impl<'a> Operand<'a> {
    /// An unmasked operand in f32.
    pub(crate) fn new(data: impl Into<Values<'a>>, stride: usize, order: Order) -> Self {
        Self { data: data.into(), stride, order, mask: None, precision: Precision::F32, non_temporal: false }
    }

    /// The rows of `data` from an element on. With a mask, `col` is a multiple of 8.
    pub(crate) fn rows_from<'b, T>(&self, data: &'b [T], row: usize, col: usize) -> SourceRows<'b, T>
    where
        'a: 'b,
    {
        let bits = self.mask.map(|mask| {
            assert!(col.is_multiple_of(8), "a part that begins with a byte of the mask");
            (&mask.as_bytes()[row * mask.row_bytes() + col / 8..], mask.row_bytes())
        });
        SourceRows { data: &data[row * self.stride + col..], stride: self.stride, bits }
    }
}

/// The meaning of a row of an operand's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A row is one lane, contiguous in depth.
    LaneRows,
    /// A row is one step of the depth, contiguous in lanes.
    DepthRows,
}

/// Rows of a matrix from an element on, with the bits of their mask from that element's byte on.
#[derive(Clone, Copy)]
pub(crate) struct SourceRows<'a, T = f32> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    /// Bytes of the mask, and bytes of one of its rows.
    pub(crate) bits: Option<(&'a [u8], usize)>,
}
