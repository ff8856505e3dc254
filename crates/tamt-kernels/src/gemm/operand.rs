use crate::base::precision::Precision;
use crate::base::values::Values;
use crate::masks::bit_mask::BitMask;

/// An operand before packing. `lane` counts rows of `A` or columns of `B`; `depth` is the index that is summed over.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub(crate) data: Values<'a>,
    /// Elements from one row of `data` to the next.
    pub(crate) stride: usize,
    pub(crate) order: Order,
    /// Mask of `data`, whose rows it shares; `data` then is the whole matrix, and the operand a right one.
    pub(crate) mask: Option<&'a BitMask>,
    /// What packing rounds to.
    pub(crate) precision: Precision,
    /// Whether panels are written past the caches, for they are read much later, as far as there are instructions for it. Then
    /// [`store_fence`] comes before another thread reads them.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) non_temporal: bool,
}

/// What a row of an operand's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One lane, contiguous in depth.
    LaneRows,
    /// One step of the depth, contiguous in lanes.
    DepthRows,
}

/// Some rows of a matrix, with the bits of their mask, from an element and its byte on.
#[derive(Clone, Copy)]
pub(crate) struct SourceRows<'a, T = f32> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) bits: Option<(&'a [u8], usize)>,
}
