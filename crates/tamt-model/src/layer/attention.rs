//! The attention sub-layer (`BertAttention`: `BertSelfAttention` and `BertSelfOutput`), forward and backward.

use half::bf16;
use tamt_kernels::ops::attention::{Qkv, QkvGradients};
use tamt_kernels::ops::{attention, reduce};
use tamt_kernels::sparse::TokenPanelsView;
use tamt_kernels::{Precision, Values, Write, linear};

use crate::batch::SequenceGroup;
use crate::layer::norm::dropout_backward;
use crate::model::{ATTENTION_OUTPUT, KEY, QUERY, VALUE};
use crate::pass::DropoutSite;
use crate::plan::{LayerPlan, Linear};
use crate::saved_layer::{AttentionSlots, RowsSlot, SavedAttention};
use crate::weight_gradients::LayerGradients;
use crate::workspace::LinearBuffers;

/// Scratch memory of the attention sub-layer.
pub(super) struct AttentionBuffers<'a> {
    /// Q, K and V, `[T, hidden]` each.
    pub(super) projections: [&'a mut Vec<f32>; 3],
    /// Q, K and V in bf16, `[T, hidden]` each.
    pub(super) rounded: &'a mut [Vec<bf16>; 3],
    /// `[T, hidden]`
    pub(super) context: &'a mut [f32],
}

/// `y = LayerNorm(x + dropout(Attention(x)))`, `[T, hidden]`; `sum` is scratch of the same shape:
///
/// ```text
/// Q, K, V = x Wqᵀ + bq, x Wkᵀ + bk, x Wvᵀ + bv                       BertSelfAttention
/// context = dropout(softmax(Q Kᵀ / sqrt(head_dim))) V, in each head
/// y       = LayerNorm(x + dropout(context Woᵀ + bo))                 BertSelfOutput
/// ```
pub(super) fn forward<'a>(
    plan: &LayerPlan<'_>,
    group: &SequenceGroup,
    x: &[f32],
    mut slots: AttentionSlots<'_>,
    buffers: AttentionBuffers<'a>,
    sum: &mut [f32],
    linear: &mut LinearBuffers,
) -> &'a [f32] {
    let AttentionBuffers { mut projections, rounded, context } = buffers;
    slots.input.pack(x);
    let panels = slots.input.view();
    let [q, k, v] = project(plan, (x, panels), &mut slots.projections, &mut projections, rounded, linear);
    let (shape, dropout) = (plan.attention_shape(group), plan.probability_dropout());
    attention::forward(Qkv::new(q, k, v), &shape, dropout, context, slots.log_sum_exp, &linear.kernels);
    slots.context.pack(context);
    plan.attention_output.forward(context, slots.context.view(), sum, linear);
    let [y, ..] = projections; // Q has no further reader.
    let dropout = plan.dropout(DropoutSite::AttentionOutput, group);
    plan.attention_norm.forward(sum, Some(x), dropout, y, slots.norm);
    y
}

/// Q, K and V of `x`, saved in their slots: in bf16 if attention computes in bf16 and nothing reads f32.
fn project<'a>(
    plan: &LayerPlan<'_>,
    (x, panels): (&[f32], Option<TokenPanelsView<'_>>),
    slots: &mut [RowsSlot<'_>; 3],
    rows: &'a mut [&mut Vec<f32>; 3],
    rounded: &'a mut [Vec<bf16>; 3],
    linear: &mut LinearBuffers,
) -> [Values<'a>; 3] {
    let reads_bf16 = linear.kernels.precision().effective() == Precision::Bf16;
    if let [Some(query), Some(key), Some(value)] = plan.projections.each_ref().map(Linear::as_dense) {
        if reads_bf16 && !slots.iter().any(RowsSlot::is_f32) {
            rounded.iter_mut().for_each(|buffer| buffer.resize(x.len(), bf16::ZERO));
            let [q, k, v] = rounded.each_mut().map(Vec::as_mut_slice);
            let layers = [query.with_output(&mut *q), key.with_output(&mut *k), value.with_output(&mut *v)];
            linear::forward_each(x, layers, &mut linear.kernels);
            slots.iter_mut().zip([&*q, &*k, &*v]).for_each(|(slot, rows)| slot.save_bf16(rows));
            return [Values::Bf16(q), Values::Bf16(k), Values::Bf16(v)];
        }
        let [q, k, v] = rows.each_mut().map(|rows| &mut **rows);
        let layers = [query.with_output(q), key.with_output(k), value.with_output(v)];
        linear::forward_each(x, layers, &mut linear.kernels);
    } else {
        let mut input = std::mem::take(&mut linear.input);
        let panels = panels.unwrap_or_else(|| input.pack(x, plan.config.hidden_size));
        let projections = plan.projections.iter().zip(rows.iter_mut());
        projections.for_each(|(projection, y)| projection.forward(x, Some(panels), y, linear));
        linear.input = input;
    }
    slots.iter_mut().zip(rows.iter_mut()).for_each(|(slot, rows)| slot.save(rows));
    let [q, k, v] = rows;
    [Values::F32(q), Values::F32(k), Values::F32(v)]
}

/// From `dy` to `dx`, `[T, hidden]`, in reverse:
///
/// ```text
/// ds       = LayerNorm'(dy)
/// dcontext = dropout'(ds) Wo
/// dP       = dropout'(dcontext Vᵀ),  dS = P ∘ (dP - rowsum(P ∘ dP)) / sqrt(head_dim)
/// dQ, dK, dV = dS K, dSᵀ Q, dropout(P)ᵀ dcontext, plus the objective's own gradients of Q and K
/// dx       = ds + dQ Wq + dK Wk + dV Wv
/// ```
///
/// `dx` goes to `gradients.flow`, `dy` is overwritten. `dropped` and `projections` are scratch, `[T, hidden]` each.
pub(super) fn backward(
    plan: &LayerPlan<'_>,
    group: &SequenceGroup,
    saved: &SavedAttention<'_>,
    dy: &mut [f32],
    gradients: &mut LayerGradients<'_>,
    (dropped, projections): (&mut [f32], [&mut [f32]; 3]),
    linear: &mut LinearBuffers,
) {
    let LayerGradients { flow: dx, factors, attention_norm: norm_share, query_key, .. } = gradients;
    plan.attention_norm.backward(dy, saved.norm, dx, norm_share.take(), &mut linear.kernels);
    dropout_backward(dx, dropped, plan.dropout(DropoutSite::AttentionOutput, group));
    let factor = &mut factors.output_gradients[ATTENTION_OUTPUT];
    factor.pack(dropped);
    let dcontext = dy;
    plan.attention_output.input_gradient(dropped, factor.view(), dcontext, Write::Store, linear);
    let ([q, k, v], [dq, dk, dv]) = (saved.projections, projections);
    let (shape, dropout) = (plan.attention_shape(group), plan.probability_dropout());
    let (qkv, lse) = (Qkv::new(q, k, v), saved.log_sum_exp);
    let projection_gradients = QkvGradients { dq: &mut *dq, dk: &mut *dk, dv: &mut *dv };
    attention::backward(dcontext, qkv, lse, &shape, dropout, projection_gradients, &linear.kernels);
    if let Some((own_dq, own_dk)) = query_key {
        reduce::add(dq, own_dq);
        reduce::add(dk, own_dk);
    }
    for (projection, (i, dy)) in plan.projections.iter().zip([(QUERY, dq), (KEY, dk), (VALUE, dv)]) {
        let factor = &mut factors.output_gradients[i];
        factor.pack(dy);
        projection.input_gradient(dy, factor.view(), dx, Write::Add, linear);
    }
}
