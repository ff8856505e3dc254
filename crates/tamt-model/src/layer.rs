//! One transformer layer: attention and FFN, each `LayerNorm(residual + dropout(sub-layer))`.

use half::bf16;
use tamt_kernels::linear::{ActivatedGradient, PackedInput};
use tamt_kernels::ops::attention;
use tamt_kernels::ops::attention::AttentionShape;
use tamt_kernels::ops::dropout;
use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::ops::{activation, layer_norm, reduce};
use tamt_kernels::sparse;
use tamt_kernels::sparse::TokenPanelsView;
use tamt_kernels::{Precision, Values};
use tamt_kernels::{Scratch, Write, linear};

use crate::activations::{LayerGradients, NormActs, NormPart, Workspace};
use crate::batch::Group;
use crate::encoder::{Pass, Site};
use crate::factors::{ATTENTION_OUTPUT, FFN_INPUT, FactorParts, INTERMEDIATE, KEY, OUTPUT, QUERY, VALUE};
use crate::grads::Grads;
use crate::kept::{KeptPart, LayerPart, LayerView, PanelsKept, PanelsToKeep, RestView};
use crate::linear_maps::{FfnLayout, MapBuffers};
use crate::model::{Dense, Layer, Model, Norm};
use crate::prepared::SparseBuffers;

impl Model {
    fn packed<'a>(&self, bounds: &'a [usize], first_sequence: usize) -> AttentionShape<'a> {
        let heads = self.config.num_attention_heads;
        AttentionShape { bounds, heads, head_dim: self.config.hidden_size / heads, first_sequence }
    }

    /// `ds` from `dy`, and the gradients of scale and shift where they are trainable (always both or neither).
    pub(crate) fn norm_backward(
        &self,
        norm: Norm,
        dy: &[f32],
        acts: &NormActs,
        ds: &mut [f32],
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) {
        let gamma = self.params.get(norm.weight);
        let NormActs { sum, mean, rstd } = acts;
        match grads.pair(norm.weight, norm.bias) {
            Some((dgamma, dbeta, mode)) => {
                layer_norm::backward(dy, sum, mean, rstd, gamma, ds, Some((dgamma, dbeta)), mode, scratch);
            }
            None => layer_norm::backward(dy, sum, mean, rstd, gamma, ds, None, Write::Store, scratch),
        }
    }

    /// `ds` from `dy` for some tokens, and their share of the gradients of scale and shift where it is wanted.
    fn norm_part_backward(
        &self,
        norm: Norm,
        dy: &[f32],
        acts: &NormPart<'_>,
        ds: &mut [f32],
        wanted: &mut Option<(&mut [f32], &mut [f32])>,
        scratch: &mut Scratch,
    ) {
        let gamma = self.params.get(norm.weight);
        let wanted = wanted.as_mut().map(|(gamma, beta)| (&mut **gamma, &mut **beta));
        layer_norm::backward(dy, acts.sum, acts.mean, acts.rstd, gamma, ds, wanted, Write::Store, scratch);
    }

    /// The layer's output from its input, `[T, hidden]` both, for a group of sequences. All is made in the workspace, near, and what
    /// is to be kept then put where it is.
    pub(crate) fn layer_forward(
        &self,
        l: usize,
        group: &Group,
        pass: Pass<'_>,
        input: &[f32],
        output: &mut [f32],
        kept: LayerView<'_>,
        workspace: &mut Workspace,
    ) {
        let layer = &self.layers[l];
        let first = group.tokens.start * self.config.hidden_size;
        let Workspace { kernels: scratch, sparse, hidden, rounded, ffn, ffn_act, ffn_packed, .. } = workspace;
        let maps = &mut MapBuffers { scratch, sparse };
        for buffer in &mut *hidden {
            buffer.resize(input.len(), 0.0);
        }
        let [query, key, value, context, sum] = hidden;
        let LayerView { projections, input: mut kept_input, context: mut kept_context, .. } = kept;
        let (mut kept_output, rest) = (kept.attention_output, kept.rest);
        let (log_sum_exp, kept_attention, kept_ffn, kept_sum) = match rest {
            Some(RestView { log_sum_exp, attention, ffn_in, ffn_panels, output }) => {
                (Some(log_sum_exp), Some(attention), (Some(ffn_in), ffn_panels), Some(output))
            }
            None => (None, None, (None, None), None),
        };

        kept_input.put(input);
        let buffers = ([&mut *query, &mut *key, &mut *value], rounded);
        let [q, k, v] = self.project(layer, input, kept_input.view(), projections, buffers, pass, maps);
        attention::forward(
            q,
            k,
            v,
            &self.packed(&group.bounds, group.first_sequence),
            pass.dropout_at(Site::AttentionProbabilities(l)),
            context,
            log_sum_exp,
            maps.scratch,
        );
        kept_context.put(context);
        self.maps_forward(context, kept_context.view(), [(layer.attention_output, (&mut *sum).into())], pass, maps);
        // Q is needed no more
        let attention_output = query;
        let dropout = pass.dropout_from(Site::AttentionOutput(l), first);
        self.norm_forward(layer.attention_norm, sum, input, dropout, attention_output, kept_attention);
        kept_output.put(attention_output);

        let (kept, kept_panels) = kept_ffn;
        let ffn = Ffn { kept, kept_panels, before: ffn, after: ffn_act, packed: ffn_packed };
        self.ffn_forward(layer, attention_output, kept_output.view(), ffn, sum, pass, maps);
        let dropout = pass.dropout_from(Site::Output(l), first);
        self.norm_forward(layer.output_norm, sum, attention_output, dropout, output, kept_sum);
    }

    /// Q, K and V of an input, and puts them where they are kept: in the first buffers, or in bf16 in the second ones, if attention rounds them
    /// and nobody else reads them.
    fn project<'a>(
        &self,
        layer: &Layer,
        input: &[f32],
        panels: Option<TokenPanelsView<'_>>,
        mut kept: [KeptPart<'a>; 3],
        (rows, rounded): ([&'a mut Vec<f32>; 3], &'a mut [Vec<bf16>; 3]),
        pass: Pass<'_>,
        maps: &mut MapBuffers<'_>,
    ) -> [Values<'a>; 3] {
        let denses = [layer.query, layer.key, layer.value];
        let in_f32 = denses.iter().any(|dense| pass.is_sparse(*dense)) || kept.iter().any(KeptPart::keeps_f32);
        if maps.scratch.precision().effective() == Precision::F32 || in_f32 {
            let [q, k, v] = rows;
            let outputs =
                [(layer.query, (&mut *q).into()), (layer.key, (&mut *k).into()), (layer.value, (&mut *v).into())];
            self.maps_forward(input, panels, outputs, pass, maps);
            for (kept, x) in kept.iter_mut().zip([&mut *q, &mut *k, &mut *v]) {
                kept.put(x);
            }
            return [Values::F32(q), Values::F32(k), Values::F32(v)];
        }
        let [q, k, v] = rounded.each_mut().map(|buffer| {
            buffer.resize(input.len(), bf16::ZERO);
            &mut buffer[..]
        });
        let outputs = [(layer.query, (&mut *q).into()), (layer.key, (&mut *k).into()), (layer.value, (&mut *v).into())];
        self.maps_forward(input, panels, outputs, pass, maps);
        for (kept, x) in kept.iter_mut().zip([&*q, &*k, &*v]) {
            kept.put_bf16(x);
        }
        [Values::Bf16(q), Values::Bf16(k), Values::Bf16(v)]
    }

    /// `y = LayerNorm(residual + dropout(x))`; `x` is changed.
    fn norm_forward(
        &self,
        norm: Norm,
        x: &mut [f32],
        residual: &[f32],
        dropout: Option<Dropout>,
        y: &mut [f32],
        kept: Option<layer_norm::Kept<'_>>,
    ) {
        let (gamma, beta) = (self.params.get(norm.weight), self.params.get(norm.bias));
        layer_norm::forward(x, Some(residual), dropout, gamma, beta, self.config.layer_norm_eps, y, kept);
    }

    /// The FFN up to its second map's output; `panels` are the input's, where it is in panels already.
    fn ffn_forward(
        &self,
        layer: &Layer,
        x: &[f32],
        panels: Option<TokenPanelsView<'_>>,
        ffn: Ffn<'_>,
        y: &mut [f32],
        pass: Pass<'_>,
        maps: &mut MapBuffers<'_>,
    ) {
        let activation = self.config.hidden_act;
        let Ffn { kept, kept_panels, before, after, packed } = ffn;
        let layout = pass.ffn_layout(layer);
        if let FfnLayout::Panels = layout {
            let [intermediate, output] = pass.both_sparse(layer);
            let width = self.config.intermediate_size;
            let tokens = x.len() / self.config.hidden_size;
            let SparseBuffers { input, ffn: [before, after], .. } = &mut *maps.sparse;
            let (kept, rounded) = match kept_panels {
                Some(PanelsToKeep::F32(part)) => (Some(part), None),
                Some(PanelsToKeep::Bf16(rounded)) => (None, Some(rounded)),
                None => (None, None),
            };
            let mut u = kept.unwrap_or_else(|| before.one_part(width, tokens));
            let mut y_panels = after.one_part(width, tokens);
            let x = panels.unwrap_or_else(|| input.pack(x, self.config.hidden_size));
            sparse::forward_to_panels(x, intermediate, Some(self.params.get(layer.intermediate.bias)), &mut u);
            if let Some(rounded) = rounded {
                // what the backward pass reads is what is activated
                tamt_kernels::round(u.view().values(), rounded);
                tamt_kernels::widen(rounded, u.values_mut());
            }
            activation::forward(activation, u.view().values(), y_panels.values_mut());
            return sparse::forward(y_panels.view(), output, Some(self.params.get(layer.output.bias)), y);
        }
        if let FfnLayout::Rows = layout {
            let len = x.len() / self.config.hidden_size * self.config.intermediate_size;
            let before = kept.unwrap_or_else(|| {
                before.resize(len, 0.0);
                before
            });
            after.resize(len, 0.0);
            self.maps_forward(x, panels, [(layer.intermediate, (&mut *before).into())], pass, maps);
            activation::forward(activation, before, after);
            return self.maps_forward(after, None, [(layer.output, y.into())], pass, maps);
        }
        let bias = self.params.get(layer.intermediate.bias);
        let weight = self.matrix(layer.intermediate, pass);
        linear::forward_activated(x, weight, bias, activation, kept, packed, maps.scratch);
        let bias = Some(self.params.get(layer.output.bias));
        let output = linear::Projection { weight: self.matrix(layer.output, pass), bias, output: y.into() };
        linear::forward_packed(packed, [output], maps.scratch);
    }

    /// Takes the gradient of the layer's output from `g.flow` and leaves that of its input there, for a group of sequences,
    /// and in the rest of `g` what gradients of parameters are made of.
    pub(crate) fn layer_backward(
        &self,
        l: usize,
        group: &Group,
        pass: Pass<'_>,
        a: &LayerPart<'_>,
        own_query_key: Option<(&[f32], &[f32])>,
        g: &mut LayerGradients<'_>,
        workspace: &mut Workspace,
    ) {
        let layer = &self.layers[l];
        let first = group.tokens.start * self.config.hidden_size;
        let Workspace { kernels: scratch, sparse, flow: residual, hidden, ffn, ffn_act, ffn_packed, .. } = workspace;
        let maps = &mut MapBuffers { scratch, sparse };
        for buffer in hidden.iter_mut().chain([&mut *residual]) {
            buffer.resize(g.flow.len(), 0.0);
        }
        let [query, key, value, attention_out, ffn_out] = hidden;

        // FFN: flow = dL/d output
        self.norm_part_backward(layer.output_norm, g.flow, &a.output, residual, &mut g.output_norm, maps.scratch);
        copy_dropped(residual, ffn_out, pass.dropout_from(Site::Output(l), first));
        g.factors.output_gradients[OUTPUT].put(ffn_out);
        let buffers = FfnGradient { du: ffn, y: ffn_act, packed: ffn_packed };
        self.ffn_backward(layer, ffn_out, a.ffn_in, a.ffn_panels, residual, &mut g.factors, buffers, pass, maps);

        // Attention: residual = dL/d attention_output
        self.norm_part_backward(
            layer.attention_norm,
            residual,
            &a.attention,
            g.flow,
            &mut g.attention_norm,
            maps.scratch,
        );
        copy_dropped(g.flow, attention_out, pass.dropout_from(Site::AttentionOutput(l), first));
        g.factors.output_gradients[ATTENTION_OUTPUT].put(attention_out);
        let panels = g.factors.output_gradients[ATTENTION_OUTPUT].view();
        self.map_input_gradient(layer.attention_output, attention_out, panels, residual, Write::Store, pass, maps);
        attention::backward(
            residual,
            a.query,
            a.key,
            a.value,
            a.log_sum_exp,
            &self.packed(&group.bounds, group.first_sequence),
            pass.dropout_at(Site::AttentionProbabilities(l)),
            query,
            key,
            value,
            maps.scratch,
        );
        if let Some((own_query, own_key)) = own_query_key {
            reduce::add(query, own_query);
            reduce::add(key, own_key);
        }
        for (map, dy) in [(QUERY, query), (KEY, key), (VALUE, value)] {
            g.factors.output_gradients[map].put(dy);
            let panels = g.factors.output_gradients[map].view();
            self.map_input_gradient(layer.dense()[map], dy, panels, g.flow, Write::Add, pass, maps);
        }
    }

    /// Adds to `dx` the gradient of an FFN's input from that of its output; `u` is what came before the activation.
    fn ffn_backward(
        &self,
        layer: &Layer,
        dy: &[f32],
        u: &[f32],
        u_panels: Option<PanelsKept<'_>>,
        dx: &mut [f32],
        factors: &mut FactorParts<'_>,
        buffers: FfnGradient<'_>,
        pass: Pass<'_>,
        maps: &mut MapBuffers<'_>,
    ) {
        let (activation, FfnGradient { du, y, packed }) = (self.config.hidden_act, buffers);
        // as in the forward pass: what it kept is read as it was left
        let layout = pass.ffn_layout(layer);
        if let (FfnLayout::Panels, Some(u)) = (layout, u_panels) {
            let [intermediate, output] = pass.both_sparse(layer);
            let SparseBuffers { input, gradient, ffn: [own_du, own_y] } = &mut *maps.sparse;
            let u = match u {
                PanelsKept::F32(panels) => panels,
                PanelsKept::Bf16(rounded) => {
                    let tokens = dy.len() / self.config.hidden_size;
                    tamt_kernels::widen(rounded, input.one_part(self.config.intermediate_size, tokens).values_mut());
                    input.view()
                }
            };
            let [.., of_intermediate, of_output] = &mut factors.output_gradients;
            let of_input = &mut factors.inputs[FFN_INPUT];
            let dy = of_output.view().unwrap_or_else(|| gradient.pack(dy, self.config.hidden_size));
            // made where they are wanted, if they are wanted in panels
            let [du_panels, y_panels] = [(&mut of_intermediate.panels, own_du), (&mut of_input.panels, own_y)]
                .map(|(wanted, own)| wanted.take().unwrap_or_else(|| own.one_part(u.cols(), u.tokens())));
            let [mut du_panels, mut y_panels] = [du_panels, y_panels];
            sparse::backward_input_to_panels(dy, output, &mut du_panels);
            let (d, y_values) = (du_panels.values_mut(), y_panels.values_mut());
            activation::backward_with_output(activation, u.values(), d, y_values);
            of_intermediate.put_panels(du_panels.view(), du);
            of_input.put_panels(y_panels.view(), y);
            return sparse::backward_input(du_panels.view(), intermediate, dx, Write::Add);
        }
        if let FfnLayout::Packed = layout {
            let packed_weight = |dense: Dense| {
                pass.made
                    .and_then(|weights| weights.packed(dense.weight))
                    .expect("what is not sparse is packed for a pass")
            };
            let to = ActivatedGradient {
                rows: packed,
                output_gradient: factors.output_gradients[INTERMEDIATE].packed.as_ref(),
                input: factors.inputs[FFN_INPUT].packed.as_ref(),
            };
            linear::backward_activated(dy, packed_weight(layer.output), u, activation, to, maps.scratch);
            return linear::backward_input_rows(packed, packed_weight(layer.intermediate), dx, Write::Add);
        }
        for buffer in [&mut *du, &mut *y] {
            buffer.resize(u.len(), 0.0);
        }
        let panels = factors.output_gradients[OUTPUT].view();
        self.map_input_gradient(layer.output, dy, panels, du, Write::Store, pass, maps);
        activation::backward_with_output(activation, u, du, y);
        factors.inputs[FFN_INPUT].put(y);
        factors.output_gradients[INTERMEDIATE].put(du);
        let panels = factors.output_gradients[INTERMEDIATE].view();
        self.map_input_gradient(layer.intermediate, du, panels, dx, Write::Add, pass, maps);
    }
}

/// What the backward pass of an FFN works in, `[T, ffn]` each.
struct FfnGradient<'a> {
    /// Of what is before the activation.
    du: &'a mut Vec<f32>,
    /// What is after it.
    y: &'a mut Vec<f32>,
    /// `du`, packed for the next map.
    packed: &'a mut PackedInput,
}

/// What an FFN leaves, `[T, ffn]` each.
struct Ffn<'a> {
    /// Before the activation, for a backward pass.
    kept: Option<&'a mut [f32]>,
    /// The same in panels.
    kept_panels: Option<PanelsToKeep<'a>>,
    /// The same, where it is not kept and yet written.
    before: &'a mut Vec<f32>,
    /// After the activation, where the next map reads it so.
    after: &'a mut Vec<f32>,
    /// After the activation, packed for the next map.
    packed: &'a mut PackedInput,
}

/// The gradient that enters a sub-layer through its dropout.
fn copy_dropped(from: &[f32], to: &mut [f32], dropout: Option<Dropout>) {
    match dropout {
        None => to.copy_from_slice(from),
        Some(d) => dropout::apply_to(from, to, d),
    }
}
