//! One transformer layer: attention and FFN, each `LayerNorm(residual + dropout(sub-layer))`.

use tamt_kernels::attention::{self, Packed};
use tamt_kernels::linear::{self, PackedInput, Scratch, Write};
use tamt_kernels::{activation, dropout, layer_norm, reduce};

use crate::activations::{Activations, NormActs, Workspace};
use crate::batch::Batch;
use crate::encoder::{Pass, Site};
use crate::model::{Dense, Model, Norm};
use crate::params::{Grads, epilogue};

impl Model {
    fn packed<'a>(&self, batch: &'a Batch) -> Packed<'a> {
        let heads = self.config.num_attention_heads;
        Packed { bounds: &batch.bounds, heads, head_dim: self.config.hidden_size / heads }
    }

    pub(crate) fn dense_forward(&self, dense: Dense, x: &[f32], pass: Pass<'_>, y: &mut [f32], scratch: &mut Scratch) {
        let bias = self.params.get(dense.bias);
        linear::forward(x, self.params.weight(dense.weight, pass.masks), Some(bias), y, scratch);
    }

    /// Gradients of a dense map's weight (or score) and bias, where they are trainable.
    pub(crate) fn dense_grads(
        &self,
        dense: Dense,
        dy: &[f32],
        x: &[f32],
        pass: Pass<'_>,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) {
        if let Some((slot, mode, kind)) = grads.slot(dense.weight) {
            let weight = self.params.weight(dense.weight, pass.masks);
            linear::backward_weight(dy, x, weight.rows, weight.cols, epilogue(kind, weight), slot, mode);
        }
        if let Some((slot, mode, _)) = grads.slot(dense.bias) {
            linear::backward_bias(dy, slot, mode, scratch);
        }
    }

    /// [`Model::dense_grads`] of maps with the same input, given with their output gradients.
    fn shared_input_grads(
        &self,
        maps: &[(Dense, &[f32])],
        x: &[f32],
        pass: Pass<'_>,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) {
        if maps.iter().any(|(dense, _)| grads.wants(dense.weight)) {
            let hidden = self.config.hidden_size;
            let input = PackedInput::new(x, x.len() / hidden, hidden, scratch);
            for (dense, dy) in maps {
                if let Some((slot, mode, kind)) = grads.slot(dense.weight) {
                    let weight = self.params.weight(dense.weight, pass.masks);
                    input.backward_weight(dy, weight.rows, epilogue(kind, weight), slot, mode);
                }
            }
        }
        for (dense, dy) in maps {
            if let Some((slot, mode, _)) = grads.slot(dense.bias) {
                linear::backward_bias(dy, slot, mode, scratch);
            }
        }
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

    pub(crate) fn layer_forward(
        &self,
        l: usize,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &mut Activations,
        workspace: &mut Workspace,
    ) {
        let layer = &self.layers[l];
        let eps = self.config.layer_norm_eps;
        let Workspace { kernels: scratch, ffn_act, .. } = workspace;
        ffn_act.resize(batch.tokens() * self.config.intermediate_size, 0.0);
        let slot = activations.layer_slot(l);
        let a = &mut activations.layers[slot];
        let (before, after) = activations.hidden.split_at_mut(l + 1);
        let (input, output) = (&before[l], &mut after[0]);

        let projections = [(layer.query, &mut a.query), (layer.key, &mut a.key), (layer.value, &mut a.value)];
        let projections = projections.map(|(dense, output)| linear::Layer {
            weight: self.params.weight(dense.weight, pass.masks),
            bias: Some(self.params.get(dense.bias)),
            output,
        });
        linear::forward_each(input, projections, scratch);
        attention::forward(
            &a.query,
            &a.key,
            &a.value,
            &self.packed(batch),
            pass.dropout_at(Site::AttentionProbabilities(l)),
            &mut a.context,
            &mut a.log_sum_exp,
            scratch,
        );
        self.dense_forward(layer.attention_output, &a.context, pass, &mut a.attention.sum, scratch);
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

        self.dense_forward(layer.intermediate, &a.attention_output, pass, &mut a.ffn_in, scratch);
        activation::forward(self.config.hidden_act, &a.ffn_in, ffn_act);
        self.dense_forward(layer.output, ffn_act, pass, &mut a.output.sum, scratch);
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
        let Workspace { kernels: scratch, flow, hidden, ffn, ffn_act, .. } = workspace;
        let [residual, branch, dq, dk, dv] = hidden;
        let weight = |dense: Dense| self.params.weight(dense.weight, pass.masks);

        // FFN: flow = dL/d output
        self.norm_backward(layer.output_norm, flow, &a.output, residual, grads, scratch);
        copy_dropped(residual, branch, pass, Site::Output(l));
        linear::backward_input(branch, weight(layer.output), ffn, Write::Store, scratch);
        activation::backward_with_output(self.config.hidden_act, &a.ffn_in, ffn, ffn_act);
        self.dense_grads(layer.output, branch, ffn_act, pass, grads, scratch);
        self.dense_grads(layer.intermediate, ffn, &a.attention_output, pass, grads, scratch);
        linear::backward_input(ffn, weight(layer.intermediate), residual, Write::Add, scratch);

        // Attention: residual = dL/d attention_output
        self.norm_backward(layer.attention_norm, residual, &a.attention, flow, grads, scratch);
        copy_dropped(flow, branch, pass, Site::AttentionOutput(l));
        self.dense_grads(layer.attention_output, branch, &a.context, pass, grads, scratch);
        linear::backward_input(branch, weight(layer.attention_output), residual, Write::Store, scratch);
        attention::backward(
            residual,
            &a.query,
            &a.key,
            &a.value,
            &a.context,
            &a.log_sum_exp,
            &self.packed(batch),
            pass.dropout_at(Site::AttentionProbabilities(l)),
            dq,
            dk,
            dv,
            scratch,
        );
        if let Some((own_dq, own_dk)) = own_query_key {
            reduce::add(dq, own_dq);
            reduce::add(dk, own_dk);
        }
        let projections = [(layer.query, dq.as_slice()), (layer.key, dk.as_slice()), (layer.value, dv.as_slice())];
        self.shared_input_grads(&projections, input, pass, grads, scratch);
        for (dense, dy) in projections {
            linear::backward_input(dy, weight(dense), flow, Write::Add, scratch);
        }
    }
}

/// The gradient that enters a sub-layer through its dropout.
fn copy_dropped(from: &[f32], to: &mut [f32], pass: Pass<'_>, site: Site) {
    to.copy_from_slice(from);
    if let Some(d) = pass.dropout_at(site) {
        dropout::apply(to, d);
    }
}
