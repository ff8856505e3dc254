//! The encoder (`BertModel` without its pooler): forward and backward through embeddings and layers.
//!
//! Jobs take groups of whole sequences through a layer. Sequences do not see each other, so hidden states do not
//! depend on the grouping; gradients of parameters, which are sums over all tokens, follow after all groups.

use rayon::prelude::*;
use tamt_kernels::Write;
use tamt_kernels::linear::PackedFor;
use tamt_kernels::ops::layer_norm::SavedStatistics;
use tamt_kernels::ops::reduce;

use crate::activations::{Activations, HiddenGrads};
use crate::batch::{Batch, SequenceGroup, group_rows};
use crate::grads::Grads;
use crate::layer;
use crate::model::{Layer, Model, Norm};
use crate::params::ParamId;
use crate::pass::Pass;
use crate::plan::LayerPlan;
use crate::saved_layer::{LayerSlots, SavedLayer};
use crate::saved_norm::SavedNorm;
use crate::weight_gradients::{GradientPath, LayerGradients, NormShare};
use crate::workspace::{JobWorkspace, Workspace};

/// Maximum number of tokens of a group; a longer sequence is a group of its own. The activations of a group fit the L2
/// cache, and the tokens of a group share one read of each matrix.
const GROUP_TOKENS: usize = 256;

impl Model {
    /// Runs the encoder over a packed batch and leaves the hidden states of every layer in `activations`.
    ///
    /// # Panics
    /// If [`Batch::locate`] was not called, or an id or position lies outside its table.
    pub fn forward(&self, batch: &Batch, pass: Pass<'_>, activations: &mut Activations, workspace: &mut Workspace) {
        assert_eq!(batch.position_ids.len(), batch.tokens(), "`locate` has filled the positions");
        activations.resize(&self.config, batch);
        let groups = batch.groups(GROUP_TOKENS);
        let (save, count) = (activations.save, self.layers.len());
        let Activations { embedding, layers, hidden, .. } = activations;
        let Workspace { kernels, weights, jobs, .. } = workspace;
        let precision = kernels.precision();
        let mut states = group_states(&groups, self.config.hidden_size, embedding, hidden);
        let mut run = |plans: &[LayerPlan<'_>], saved: &mut [SavedLayer], with_embeddings: bool| {
            let slots = plans.iter().zip(saved).map(|(plan, saved)| saved.begin(plan, &groups, save).into_iter());
            let mut slots: Vec<_> = slots.collect();
            let slots = groups.iter().map(|_| slots.iter_mut().filter_map(Iterator::next).collect());
            let slots: Vec<Vec<_>> = slots.collect();
            states.par_iter_mut().zip(slots).with_max_len(1).for_each(|(states, slots)| {
                jobs.run(precision, groups.len(), |workspace| {
                    if with_embeddings {
                        states.embed(self, batch, pass, workspace);
                    }
                    plans.iter().zip(slots).for_each(|(plan, slots)| states.forward(plan, slots, workspace));
                });
            });
        };
        let prepared: Option<Vec<_>> = (0..count).map(|l| LayerPlan::prepared(self, l, pass, precision)).collect();
        if let Some(plans) = prepared {
            // No matrix is to be packed: a job takes its group through all layers.
            return run(&plans, layers, true);
        }
        for l in 0..count {
            let plan = LayerPlan::pack(self, l, pass, PackedFor::Forward, precision, weights);
            run(&[plan], &mut layers[l..=l], l == 0);
        }
    }

    /// Backpropagates the gradients in `d` down to the lowest trainable tensor, and writes the gradients of all
    /// trainable tensors of the encoder to `grads`. `batch`, `pass` and `activations` are those of the forward pass.
    ///
    /// # Panics
    /// If the forward pass did not save everything ([`Save::All`](crate::Save::All)).
    pub fn backward(
        &self,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &Activations,
        d: &HiddenGrads,
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let Some(lowest) = self.lowest_trainable(grads) else { return };
        assert!(activations.save.all(), "the forward pass saved everything");
        workspace.flow.resize(batch.tokens() * self.config.hidden_size, 0.0);
        let groups = batch.groups(GROUP_TOKENS);
        match d.hidden(self.layers.len()) {
            Some(top) => workspace.flow.copy_from_slice(top),
            None => workspace.flow.fill(0.0),
        }
        for l in (lowest.saturating_sub(1)..self.layers.len()).rev() {
            self.layer_backward(l, &groups, pass, activations, d.query_key(l), grads, workspace);
            if let Some(own) = d.hidden(l) {
                reduce::add(&mut workspace.flow, own);
            }
        }
        if lowest == 0 {
            self.embed_backward(batch, pass, activations, grads, workspace);
        }
    }

    /// The lowest hidden state that depends on a trainable tensor (0: embeddings, `l + 1`: layer `l`); `None` if no
    /// tensor of the encoder is trainable.
    fn lowest_trainable(&self, grads: &Grads) -> Option<usize> {
        let e = &self.embeddings;
        let of_norm = |norm: Norm| [norm.weight, norm.bias];
        let embeddings = [e.word, e.position, e.token_type].into_iter().chain(of_norm(e.norm)).collect();
        let layers = self.layers.iter().map(|layer| {
            let linears = layer.dense().into_iter().flat_map(|dense| [dense.weight, dense.bias]);
            linears.chain([layer.attention_norm, layer.output_norm].into_iter().flat_map(of_norm)).collect()
        });
        let mut parts = std::iter::once(embeddings).chain(layers);
        parts.position(|part: Vec<ParamId>| part.into_iter().any(|id| grads.contains(id)))
    }

    /// From the gradient of layer `l`'s output to the gradient of its input, both in `workspace.flow`. Writes the
    /// gradients of the layer's trainable tensors. `query_key` are the objective's own gradients of Q and K.
    fn layer_backward(
        &self,
        l: usize,
        groups: &[SequenceGroup],
        pass: Pass<'_>,
        activations: &Activations,
        query_key: Option<(&[f32], &[f32])>,
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let (layer, saved, width) = (&self.layers[l], &activations.layers[l], self.config.hidden_size);
        let Workspace { kernels, flow, norm_gradients, factors, weights, jobs, .. } = workspace;
        let precision = kernels.precision();
        let plan = LayerPlan::pack(self, l, pass, PackedFor::InputGradient, precision, weights);
        let paths = GradientPath::of_layer(layer, pass, grads);
        norm_gradients.resize(groups.len() * 4 * width, 0.0);
        let trained = [layer.attention_norm, layer.output_norm].map(|norm| grads.contains(norm.weight));
        let factor_slots = factors.begin(self, layer, &paths, saved, groups, precision);
        let shares = norm_gradients.chunks_exact_mut(4 * width);
        let slots = groups.iter().zip(group_rows(groups, flow, width)).zip(shares).zip(factor_slots);
        let gradients = slots.map(|(((group, flow), shares), factors)| {
            let rows = group.tokens.start * width..group.tokens.end * width;
            let query_key = query_key.map(|(query, key)| (&query[rows.clone()], &key[rows]));
            let [attention_norm, output_norm] = norm_shares(shares, trained);
            LayerGradients { flow, query_key, factors, attention_norm, output_norm }
        });
        let gradients: Vec<_> = gradients.collect();
        let x = activations.hidden(l);
        groups.par_iter().zip(gradients).enumerate().with_max_len(1).for_each(|(index, (group, mut gradients))| {
            jobs.run(precision, groups.len(), |workspace| {
                let JobWorkspace { layer, residual, projections } = workspace;
                let (attention, ffn) = saved.group(&plan, groups, index, projections);
                let x = &x[group.tokens.start * width..group.tokens.end * width];
                gradients.factors.pack_inputs(x, &attention, &ffn, residual);
                layer::backward(&plan, group, (&attention, &ffn), &mut gradients, residual, layer);
            });
        });
        add_norm_gradients(layer, norm_gradients, width, grads);
        factors.weight_gradients(self, layer, &paths, saved, pass, grads);
    }
}

/// A group's rows of the hidden states, and its slots for the saved activations of the embeddings.
struct GroupStates<'a> {
    group: &'a SequenceGroup,
    embedding: SavedStatistics<'a>,
    hidden: Vec<&'a mut [f32]>,
}

fn group_states<'a>(
    groups: &'a [SequenceGroup],
    width: usize,
    embedding: &'a mut SavedNorm,
    hidden: &'a mut [Vec<f32>],
) -> Vec<GroupStates<'a>> {
    let mut hidden: Vec<_> = hidden.iter_mut().map(|states| group_rows(groups, states, width)).collect();
    let states = |(group, embedding)| {
        let hidden = hidden.iter_mut().filter_map(Iterator::next).collect();
        GroupStates { group, embedding, hidden }
    };
    groups.iter().zip(embedding.slots(groups, width)).map(states).collect()
}

impl GroupStates<'_> {
    fn embed(&mut self, model: &Model, batch: &Batch, pass: Pass<'_>, workspace: &mut JobWorkspace) {
        let [buffer, ..] = &mut workspace.layer.hidden;
        model.embed(batch, self.group.tokens.clone(), pass, &mut self.embedding, buffer, self.hidden[0]);
    }

    fn forward(&mut self, plan: &LayerPlan<'_>, slots: LayerSlots<'_>, workspace: &mut JobWorkspace) {
        let (l, states) = (plan.layer, self.hidden.len());
        let [x, y] = self.hidden.get_disjoint_mut([l % states, (l + 1) % states]).expect("two or more hidden states");
        layer::forward(plan, self.group, x, y, slots, &mut workspace.layer);
    }
}

/// Cuts a group's `[4, hidden]` into `(dγ, dβ)` of both norms of a layer, if trained.
fn norm_shares(shares: &mut [f32], trained: [bool; 2]) -> [Option<NormShare<'_>>; 2] {
    let (attention, output) = shares.split_at_mut(shares.len() / 2);
    [(attention, trained[0]), (output, trained[1])].map(|(norm, trained)| {
        let (gamma, beta) = norm.split_at_mut(norm.len() / 2);
        trained.then_some((gamma, beta, Write::Store))
    })
}

/// Adds up the groups' shares `[groups, 4, width]` of the gradients of both norms of a layer, in the order of the
/// groups.
fn add_norm_gradients(layer: &Layer, shares: &[f32], width: usize, grads: &mut Grads) {
    for (i, norm) in [layer.attention_norm, layer.output_norm].into_iter().enumerate() {
        let Some((gamma, beta, mode)) = grads.pair(norm.weight, norm.bias) else { continue };
        for (j, slot) in [gamma, beta].into_iter().enumerate() {
            if mode == Write::Store {
                slot.fill(0.0);
            }
            for shares in shares.chunks_exact(4 * width) {
                reduce::add(slot, &shares[(2 * i + j) * width..][..width]);
            }
        }
    }
}
