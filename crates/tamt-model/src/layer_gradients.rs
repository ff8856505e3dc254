//! The gradients of one group of tokens in one layer.

use tamt_kernels::Write;

use crate::weight_gradients::FactorSlots;

/// A group's share of `dγ` and `dβ`, `[hidden]` each, and whether to store or to add.
pub(crate) type NormShare<'a> = (&'a mut [f32], &'a mut [f32], Write);

/// Gradients that a layer's backward pass reads and leaves for a group of `T` tokens.
#[derive(Debug)]
pub(crate) struct LayerGradients<'a> {
    /// The gradient of the layer's output, then of its input, `[T, hidden]`.
    pub(crate) flow: &'a mut [f32],
    /// The objective's own gradients of Q and K, `[T, hidden]` each.
    pub(crate) query_key: Option<(&'a [f32], &'a [f32])>,
    pub(crate) factors: FactorSlots<'a>,
    /// `dγ` and `dβ` of the attention's `LayerNorm`, if trained.
    pub(crate) attention_norm: Option<NormShare<'a>>,
    /// `dγ` and `dβ` of the FFN's `LayerNorm`, if trained.
    pub(crate) output_norm: Option<NormShare<'a>>,
}
