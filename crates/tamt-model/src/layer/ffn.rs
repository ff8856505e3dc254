//! The feed-forward sub-layer (`BertIntermediate` and `BertOutput`), forward and backward.

use tamt_kernels::linear::{ActivatedGradient, WeightOperand};
use tamt_kernels::ops::activation::{self, Activation};
use tamt_kernels::sparse::{TokenPanels, TokenPanelsView};
use tamt_kernels::{Write, linear, sparse};

use crate::batch::SequenceGroup;
use crate::layer::norm::dropout_backward;
use crate::model::{INTERMEDIATE, OUTPUT};
use crate::pass::DropoutSite;
use crate::plan::{DenseLinear, FfnPlan, LayerPlan, Linear, SparseLinear};
use crate::saved_layer::{FfnSlots, PreActivation, PreActivationSlot, SavedFfn};
use crate::weight_gradients::{ACTIVATION_INPUT, FactorSlots, LayerGradients};
use crate::workspace::{FfnBuffers, LinearBuffers};

/// `y = LayerNorm(x + dropout(FFN(x)))`, `[T, hidden]`; `sum` is scratch of the same shape:
///
/// ```text
/// u = x W₁ᵀ + b₁,  a = f(u)                       BertIntermediate
/// y = LayerNorm(x + dropout(a W₂ᵀ + b₂))          BertOutput
/// ```
pub(super) fn forward(
    plan: &LayerPlan<'_>,
    group: &SequenceGroup,
    x: &[f32],
    y: &mut [f32],
    mut slots: FfnSlots<'_>,
    sum: &mut [f32],
    ffn: &mut FfnBuffers,
    linear: &mut LinearBuffers,
) {
    slots.input.pack(x);
    let (f, u) = (plan.config.hidden_act, slots.pre_activation);
    let job = Forward { f, x, x_panels: slots.input.view(), u, y: &mut *sum, ffn, linear };
    match &plan.ffn {
        FfnPlan::Packed(linears) => job.packed(linears),
        FfnPlan::Panels(linears) => job.panels(linears),
        FfnPlan::Rows(linears) => job.rows(linears),
    }
    plan.output_norm.forward(sum, Some(x), plan.dropout(DropoutSite::FfnOutput, group), y, slots.norm);
}

/// From `dy` in `gradients.flow` to `dx`, `[T, hidden]`; `dropped` is scratch of the same shape:
///
/// ```text
/// ds = LayerNorm'(dy)
/// du = (dropout'(ds) W₂) ∘ f'(u)
/// dx = ds + du W₁
/// ```
pub(super) fn backward(
    plan: &LayerPlan<'_>,
    group: &SequenceGroup,
    saved: &SavedFfn<'_>,
    gradients: &mut LayerGradients<'_>,
    dx: &mut [f32],
    dropped: &mut [f32],
    ffn: &mut FfnBuffers,
    linear: &mut LinearBuffers,
) {
    let LayerGradients { flow: dy, factors, output_norm: norm_share, .. } = gradients;
    plan.output_norm.backward(dy, saved.norm, dx, norm_share.take(), &mut linear.kernels);
    dropout_backward(dx, dropped, plan.dropout(DropoutSite::FfnOutput, group));
    factors.output_gradients[OUTPUT].pack(dropped);
    let job = Backward { f: plan.config.hidden_act, dy: dropped, u: saved.pre_activation, dx, factors, ffn, linear };
    match &plan.ffn {
        FfnPlan::Packed(linears) => job.packed(linears),
        FfnPlan::Panels(linears) => job.panels(linears),
        FfnPlan::Rows(linears) => job.rows(linears),
    }
}

/// Operands of `y = f(x W₁ᵀ + b₁) W₂ᵀ + b₂`.
struct Forward<'a> {
    f: Activation,
    x: &'a [f32],
    /// `x`, if in panels too.
    x_panels: Option<TokenPanelsView<'a>>,
    u: PreActivationSlot<'a>,
    y: &'a mut [f32],
    ffn: &'a mut FfnBuffers,
    linear: &'a mut LinearBuffers,
}

/// Operands of `du = (dy W₂) ∘ f'(u)`, `dx += du W₁`.
struct Backward<'a, 'f> {
    f: Activation,
    dy: &'a [f32],
    u: PreActivation<'a>,
    dx: &'a mut [f32],
    factors: &'a mut FactorSlots<'f>,
    ffn: &'a mut FfnBuffers,
    linear: &'a mut LinearBuffers,
}

impl Forward<'_> {
    /// Two dense products; the fused kernel saves `u` and packs `a` for the second product.
    fn packed(self, [first, second]: &[DenseLinear<'_>; 2]) {
        let (a, kernels) = (&mut self.ffn.packed, &mut self.linear.kernels);
        let (weight, u) = (WeightOperand::Packed(first.weight), self.u.rows());
        linear::forward_activated(self.x, weight, &first.bias, self.f, u, a, kernels);
        linear::forward_packed(a, [second.with_output(self.y)], kernels);
    }

    /// Two sparse products, with `u` and `a` in panels.
    fn panels(self, [first, second]: &[SparseLinear<'_>; 2]) {
        let x = self.x_panels.unwrap_or_else(|| self.linear.input.pack(self.x, first.weight.cols()));
        let (width, [u_buffer, a_buffer]) = (first.weight.rows(), &mut self.ffn.panels);
        let mut a = a_buffer.one_part(width, x.tokens());
        let (mut u, rounded) = match self.u {
            PreActivationSlot::Panels(u) => (u, None),
            PreActivationSlot::RoundedPanels(rounded) => (u_buffer.one_part(width, x.tokens()), Some(rounded)),
            PreActivationSlot::Rows(_) | PreActivationSlot::None => (u_buffer.one_part(width, x.tokens()), None),
        };
        sparse::forward_to_panels(x, first.weight, Some(&first.bias), &mut u);
        if let Some(rounded) = rounded {
            // The activation function sees the rounded values, as in the backward pass.
            tamt_kernels::round(u.view().values(), rounded);
            tamt_kernels::widen(rounded, u.values_mut());
        }
        activation::forward(self.f, u.view().values(), a.values_mut());
        sparse::forward(a.view(), second.weight, Some(&second.bias), self.y);
    }

    /// A dense and a sparse product, with `u` and `a` in rows.
    fn rows(self, [first, second]: &[Linear<'_>; 2]) {
        let len = self.y.len() / second.bias.len() * first.bias.len();
        let FfnBuffers { rows, activated: a, .. } = self.ffn;
        let u = self.u.rows().unwrap_or_else(|| {
            rows.resize(len, 0.0);
            rows
        });
        a.resize(len, 0.0);
        first.forward(self.x, self.x_panels, u, self.linear);
        activation::forward(self.f, u, a);
        second.forward(a, None, self.y, self.linear);
    }
}

impl Backward<'_, '_> {
    /// The fused kernel computes `du` and `a` from `u`, and packs both for the products that follow.
    fn packed(self, [first, second]: &[DenseLinear<'_>; 2]) {
        let du = &mut self.ffn.packed;
        let to = ActivatedGradient {
            rows: &mut *du,
            output_gradient: self.factors.output_gradients[INTERMEDIATE].packed.as_ref(),
            input: self.factors.inputs[ACTIVATION_INPUT].packed.as_ref(),
        };
        linear::backward_activated(self.dy, second.weight, self.u.rows(), self.f, to, &mut self.linear.kernels);
        linear::backward_input_rows(du, first.weight, self.dx, Write::Add);
    }

    /// Two sparse products, with `du` and `a` in panels: the slots of the weight gradients, if those read panels.
    fn panels(self, [first, second]: &[SparseLinear<'_>; 2]) {
        let [.., du_factor, dy_factor] = &mut self.factors.output_gradients;
        let a_factor = &mut self.factors.inputs[ACTIVATION_INPUT];
        let dy = dy_factor.view().unwrap_or_else(|| self.linear.gradient.pack(self.dy, second.weight.rows()));
        let u = self.u.panels(&mut self.linear.input, first.weight.rows(), dy.tokens());
        let FfnBuffers { rows, activated, panels: [du_buffer, a_buffer], .. } = self.ffn;
        let [mut du, mut a] = [(&mut du_factor.panels, du_buffer), (&mut a_factor.panels, a_buffer)]
            .map(|(slot, buffer)| slot.take().unwrap_or_else(|| buffer.one_part(u.cols(), u.tokens())));
        sparse::backward_input_to_panels(dy, second.weight, &mut du);
        activation::backward_with_output(self.f, u.values(), du.values_mut(), a.values_mut());
        du_factor.pack_from_panels(du.view(), rows);
        a_factor.pack_from_panels(a.view(), activated);
        sparse::backward_input(du.view(), first.weight, self.dx, Write::Add);
    }

    /// A dense and a sparse product, with `du` and `a` in rows.
    fn rows(self, [first, second]: &[Linear<'_>; 2]) {
        let FfnBuffers { rows: du, activated: a, .. } = self.ffn;
        let u = self.u.rows();
        du.resize(u.len(), 0.0);
        a.resize(u.len(), 0.0);
        let [.., du_factor, dy_factor] = &mut self.factors.output_gradients;
        second.input_gradient(self.dy, dy_factor.view(), du, Write::Store, self.linear);
        activation::backward_with_output(self.f, u, du, a);
        self.factors.inputs[ACTIVATION_INPUT].pack(a);
        du_factor.pack(du);
        first.input_gradient(du, du_factor.view(), self.dx, Write::Add, self.linear);
    }
}

impl<'a> PreActivationSlot<'a> {
    /// The slot of `u` in rows, if `u` is saved so.
    fn rows(self) -> Option<&'a mut [f32]> {
        if let Self::Rows(rows) = self { Some(rows) } else { None }
    }
}

impl<'a> PreActivation<'a> {
    /// `u` as saved in rows; empty if `u` is saved in panels.
    fn rows(self) -> &'a [f32] {
        if let Self::Rows(rows) = self { rows } else { &[] }
    }

    /// `u` `[tokens, width]` in panels in f32, which `buffer` holds unless `u` is saved so.
    fn panels(self, buffer: &'a mut TokenPanels, width: usize, tokens: usize) -> TokenPanelsView<'a> {
        match self {
            Self::Rows(rows) => buffer.pack(rows, width),
            Self::Panels(panels) => panels,
            Self::RoundedPanels(rounded) => {
                tamt_kernels::widen(rounded, buffer.one_part(width, tokens).values_mut());
                buffer.view()
            }
        }
    }
}
