use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::gemm::layout::Side;

/// Panels that several jobs write, each a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPanels<'a> {
    pub(crate) panels: Shared<'a, f32>,
    pub(crate) side: Side,
    pub(crate) lanes: usize,
    pub(crate) depth: usize,
    pub(crate) precision: Precision,
}

/// An operand in the order in which the register tile reads it: `[depth blocks][panels][steps][width]`, padded with zeros.
///
/// In bf16 a word holds two steps of a lane (see [`Precision`]): it is no float then, though it lies among floats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) side: Side,
    /// Lanes with the padding of the last panel.
    pub(crate) padded: usize,
    pub(crate) depth: usize,
    pub(crate) precision: Precision,
}
