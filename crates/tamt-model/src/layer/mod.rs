//! One transformer layer (`BertLayer`): attention, then FFN, for one group of sequences.
//!
//! Each sub-layer is a file with its forward pass and, under it, its backward pass. A job takes a group through all
//! operations of a layer, so that an operation's output is still in the core's own cache for the next operation.

mod attention;
mod ffn;
mod linear;
mod norm;

use crate::batch::SequenceGroup;
use crate::layer::attention::AttentionBuffers;
use crate::plan::LayerPlan;
use crate::saved_layer::{LayerSlots, SavedAttention, SavedFfn};
use crate::weight_gradients::LayerGradients;
use crate::workspace::LayerBuffers;

/// `y = FFN(Attention(x))`, each with its residual connection and `LayerNorm`: `x`, `y` `[T, hidden]`.
pub(crate) fn forward(
    plan: &LayerPlan<'_>,
    group: &SequenceGroup,
    x: &[f32],
    y: &mut [f32],
    slots: LayerSlots<'_>,
    buffers: &mut LayerBuffers,
) {
    let LayerBuffers { linear, hidden, rounded, ffn } = buffers;
    hidden.iter_mut().for_each(|buffer| buffer.resize(x.len(), 0.0));
    let [query, key, value, context, sum] = hidden;
    let buffers = AttentionBuffers { projections: [query, key, value], rounded, context };
    let attention_output = attention::forward(plan, group, x, slots.attention, buffers, sum, linear);
    ffn::forward(plan, group, attention_output, y, slots.ffn, sum, ffn, linear);
}

/// From the gradient of `y` to the gradient of `x`, both in `gradients.flow`. Leaves the packed factors of weight
/// gradients and the group's share of the norms' gradients in `gradients`. `residual` is scratch.
pub(crate) fn backward(
    plan: &LayerPlan<'_>,
    group: &SequenceGroup,
    (saved_attention, saved_ffn): (&SavedAttention<'_>, &SavedFfn<'_>),
    gradients: &mut LayerGradients<'_>,
    residual: &mut Vec<f32>,
    buffers: &mut LayerBuffers,
) {
    let LayerBuffers { linear, hidden, ffn, .. } = buffers;
    hidden.iter_mut().chain([&mut *residual]).for_each(|buffer| buffer.resize(gradients.flow.len(), 0.0));
    let [dq, dk, dv, d_attention, d_ffn] = hidden;
    ffn::backward(plan, group, saved_ffn, gradients, residual, d_ffn, ffn, linear);
    attention::backward(plan, group, saved_attention, residual, gradients, (d_attention, [dq, dk, dv]), linear);
}
