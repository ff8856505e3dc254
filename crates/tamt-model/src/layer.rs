//! One transformer layer: attention and FFN, each `LayerNorm(residual + dropout(sub-layer))`.

use tamt_kernels::attention::{self, Packed};
use tamt_kernels::linear::{self, PackedRows, Scratch, Write};
use tamt_kernels::{activation, dropout, layer_norm, reduce};

use crate::activations::{Activations, Keep, LayerActs, NormActs, Workspace};
use crate::batch::Batch;
use crate::encoder::{Pass, Site};
use crate::linear_maps::MapBuffers;
use crate::model::{Layer, Model, Norm};
use crate::params::Grads;

impl Model {
    fn packed<'a>(&self, bounds: &'a [usize]) -> Packed<'a> {
        let heads = self.config.num_attention_heads;
        Packed { bounds, heads, head_dim: self.config.hidden_size / heads }
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

    /// The layer's output from its input, `[T, hidden]` both, for sequences with these bounds.
    pub(crate) fn layer_forward(
        &self,
        l: usize,
        bounds: &[usize],
        pass: Pass<'_>,
        input: &[f32],
        output: &mut [f32],
        a: &mut LayerActs,
        keep: Keep,
        workspace: &mut Workspace,
    ) {
        let layer = &self.layers[l];
        let eps = self.config.layer_norm_eps;
        let Workspace { kernels: scratch, sparse, ffn_act, ffn_packed, .. } = workspace;
        let maps = &mut MapBuffers { scratch, sparse };

        let projections = [
            (layer.query, a.query.as_mut_slice()),
            (layer.key, a.key.as_mut_slice()),
            (layer.value, a.value.as_mut_slice()),
        ];
        self.maps_forward(input, projections, pass, maps);
        attention::forward(
            &a.query,
            &a.key,
            &a.value,
            &self.packed(bounds),
            pass.dropout_at(Site::AttentionProbabilities(l)),
            &mut a.context,
            (keep == Keep::All).then_some(a.log_sum_exp.as_mut_slice()),
            maps.scratch,
        );
        self.maps_forward(&a.context, [(layer.attention_output, &mut a.attention.sum)], pass, maps);
        layer_norm::forward(
            &mut a.attention.sum,
            Some(input),
            pass.dropout_at(Site::AttentionOutput(l)),
            self.params.get(layer.attention_norm.weight),
            self.params.get(layer.attention_norm.bias),
            eps,
            &mut a.attention_output,
            &mut a.attention.mean,
            &mut a.attention.rstd,
        );

        let ffn = Ffn { before: &mut a.ffn_in, keep: keep == Keep::All, after: ffn_act, packed: ffn_packed };
        self.ffn_forward(layer, &a.attention_output, ffn, &mut a.output.sum, pass, maps);
        layer_norm::forward(
            &mut a.output.sum,
            Some(&a.attention_output),
            pass.dropout_at(Site::Output(l)),
            self.params.get(layer.output_norm.weight),
            self.params.get(layer.output_norm.bias),
            eps,
            output,
            &mut a.output.mean,
            &mut a.output.rstd,
        );
    }

    /// The FFN up to its second map's output.
    fn ffn_forward(
        &self,
        layer: &Layer,
        x: &[f32],
        ffn: Ffn<'_>,
        y: &mut [f32],
        pass: Pass<'_>,
        maps: &mut MapBuffers<'_>,
    ) {
        let activation = self.config.hidden_act;
        if pass.is_sparse(layer.intermediate) || pass.is_sparse(layer.output) {
            let len = x.len() / self.config.hidden_size * self.config.intermediate_size;
            ffn.before.resize(len, 0.0);
            ffn.after.resize(len, 0.0);
            self.maps_forward(x, [(layer.intermediate, &mut *ffn.before)], pass, maps);
            activation::forward(activation, ffn.before, ffn.after);
            return self.maps_forward(ffn.after, [(layer.output, y)], pass, maps);
        }
        let bias = self.params.get(layer.intermediate.bias);
        let weight = self.matrix(layer.intermediate, pass);
        let before = ffn.keep.then_some(ffn.before.as_mut_slice());
        linear::forward_activated(x, weight, bias, activation, before, ffn.packed, maps.scratch);
        let bias = Some(self.params.get(layer.output.bias));
        let output = linear::Layer { weight: self.matrix(layer.output, pass), bias, output: y };
        linear::forward_packed(ffn.packed, [output], maps.scratch);
    }

    /// Takes the gradient of the layer's output from `workspace.flow` and leaves that of its input there.
    pub(crate) fn layer_backward(
        &self,
        l: usize,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &Activations,
        own_query_key: Option<(&[f32], &[f32])>,
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let layer = &self.layers[l];
        let a = &activations.layers[l];
        let input = activations.hidden(l);
        let Workspace { kernels: scratch, sparse, flow, hidden, ffn, ffn_act, .. } = workspace;
        let maps = &mut MapBuffers { scratch, sparse };
        let [residual, branch, dq, dk, dv] = hidden;

        // FFN: flow = dL/d output
        self.norm_backward(layer.output_norm, flow, &a.output, residual, grads, maps.scratch);
        copy_dropped(residual, branch, pass, Site::Output(l));
        self.map_input_gradient(layer.output, branch, ffn, Write::Store, pass, maps);
        activation::backward_with_output(self.config.hidden_act, &a.ffn_in, ffn, ffn_act);
        self.maps_backward(&[(layer.output, branch)], ffn_act, None, pass, grads, maps);
        let dx = (residual.as_mut_slice(), Write::Add);
        self.maps_backward(&[(layer.intermediate, ffn)], &a.attention_output, Some(dx), pass, grads, maps);

        // Attention: residual = dL/d attention_output
        self.norm_backward(layer.attention_norm, residual, &a.attention, flow, grads, maps.scratch);
        copy_dropped(flow, branch, pass, Site::AttentionOutput(l));
        let dx = (residual.as_mut_slice(), Write::Store);
        self.maps_backward(&[(layer.attention_output, branch)], &a.context, Some(dx), pass, grads, maps);
        attention::backward(
            residual,
            &a.query,
            &a.key,
            &a.value,
            &a.context,
            &a.log_sum_exp,
            &self.packed(&batch.bounds),
            pass.dropout_at(Site::AttentionProbabilities(l)),
            dq,
            dk,
            dv,
            maps.scratch,
        );
        if let Some((own_dq, own_dk)) = own_query_key {
            reduce::add(dq, own_dq);
            reduce::add(dk, own_dk);
        }
        let projections = [(layer.query, dq.as_slice()), (layer.key, dk.as_slice()), (layer.value, dv.as_slice())];
        self.maps_backward(&projections, input, Some((flow, Write::Add)), pass, grads, maps);
    }
}

/// What an FFN leaves, `[T, ffn]` each.
struct Ffn<'a> {
    /// Before the activation; for a backward pass alone if `keep`.
    before: &'a mut Vec<f32>,
    keep: bool,
    /// After it.
    after: &'a mut Vec<f32>,
    /// The same, packed for the second map.
    packed: &'a mut PackedRows,
}

/// The gradient that enters a sub-layer through its dropout.
fn copy_dropped(from: &[f32], to: &mut [f32], pass: Pass<'_>, site: Site) {
    to.copy_from_slice(from);
    if let Some(d) = pass.dropout_at(site) {
        dropout::apply(to, d);
    }
}
