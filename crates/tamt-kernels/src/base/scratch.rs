//! Buffers and precision shared by the products of a caller.

use crate::base::buffer::AlignedBuffer;
use crate::base::precision::Precision;

/// Buffers that kernels reuse from call to call, and the precision of their products. The caller owns a `Scratch` and
/// passes it to any number of calls, one at a time.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) precision: Precision,
    pub(crate) floats: AlignedBuffer,
    pub(crate) panels: AlignedBuffer,
    pub(crate) sums: Vec<f64>,
    pub(crate) order: Vec<u32>,
}

impl Scratch {
    /// Empty buffers for products in this precision; [`Scratch::default`] is for f32.
    pub fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// The precision that operands of products are rounded to.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}
