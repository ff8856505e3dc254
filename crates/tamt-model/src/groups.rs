//! Passes through a layer by groups of sequences: a job takes one through all of its operations, and what one operation leaves
//! for the next one is still in a core's own cache. Sequences do not see each other, so the states are those of the whole
//! batch; gradients of parameters, which are sums over all tokens, come after.

use std::sync::Mutex;

use rayon::prelude::*;
use tamt_kernels::Precision;
use tamt_kernels::as_one_of_many;
use tamt_kernels::linear::{PackedFor, Write};
use tamt_kernels::reduce;

use crate::activations::{Activations, KeptFor, LayerGradients, Rows, Workspace};
use crate::batch::Group;
use crate::encoder::Pass;
use crate::grads::Grads;
use crate::linear_maps::MapBuffers;
use crate::model::Model;

/// Tokens of a group, about: as many as fit the second-level cache with their activations, and enough for each matrix, which a
/// group reads once.
pub(crate) const GROUP_TOKENS: usize = 256;

/// Where jobs work, those that none is at, from pass to pass.
#[derive(Debug, Default)]
pub(crate) struct Workplaces(Mutex<Vec<Workspace>>);

impl Workplaces {
    /// Runs a job, one of `jobs`.
    fn with(&self, precision: Precision, jobs: usize, job: impl FnOnce(&mut Workspace)) {
        let free = self.0.lock().expect("no job panicked").pop();
        let mut place = free.unwrap_or_else(|| Workspace::new(precision));
        if jobs >= rayon::current_num_threads() {
            as_one_of_many(|| job(&mut place));
        } else {
            job(&mut place);
        }
        self.0.lock().expect("no job panicked").push(place);
    }
}

impl Model {
    /// The hidden states that layer `l` leaves, and what is kept of it.
    pub(crate) fn forward_through_layer(
        &self,
        l: usize,
        groups: &[Group],
        pass: Pass<'_>,
        activations: &mut Activations,
        workspace: &mut Workspace,
    ) {
        let (width, precision) = (self.config.hidden_size, workspace.kernels.precision());
        workspace.weights.pack(self, l, pass, PackedFor::Forward, precision);
        let pass = Pass { packed: Some(&workspace.weights), ..pass };
        let (slot, keep, layer) = (activations.layer_slot(l), activations.keep(), &self.layers[l]);
        let sparse =
            [pass.is_sparse(layer.attention_output), pass.is_sparse(layer.intermediate), pass.has_sparse_ffn(layer)];
        let views = activations.layers[slot].begin(&self.config, groups, keep, KeptFor { precision, sparse });
        let (before, after) = activations.hidden.split_at_mut(l + 1);
        let (input, mut output) = (&before[l], Rows::new(&mut after[0], width));
        let outputs: Vec<_> = groups.iter().map(|group| output.take(group.tokens.len())).collect();
        groups.par_iter().zip(views).zip(outputs).with_max_len(1).for_each(|((group, view), output)| {
            let input = &input[group.tokens.start * width..group.tokens.end * width];
            workspace.groups.with(precision, groups.len(), |place| {
                self.layer_forward(l, group, pass, input, output, view, place);
            });
        });
    }

    /// Takes the gradient of layer `l`'s output from `workspace.flow`, leaves that of its input there, and writes those of its
    /// parameters.
    pub(crate) fn backward_through_layer(
        &self,
        l: usize,
        groups: &[Group],
        pass: Pass<'_>,
        activations: &Activations,
        own_query_key: Option<(&[f32], &[f32])>,
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let (layer, a, width) = (&self.layers[l], &activations.layers[l], self.config.hidden_size);
        let precision = workspace.kernels.precision();
        workspace.weights.pack(self, l, pass, PackedFor::InputGradient, precision);
        let Workspace { kernels: scratch, sparse, groups: places, weights, flow, norms, factors, .. } = workspace;
        norms.resize(groups.len() * 4 * width, 0.0);
        let wanted = [layer.attention_norm, layer.output_norm].map(|norm| grads.wants(norm.weight));
        {
            let mut flow = Rows::new(flow, width);
            let parts = factors.parts(self, l, a, groups, pass, grads, precision).into_iter();
            let of_group = |((group, norms), factors): ((&Group, _), _)| {
                let [attention_norm, output_norm] = norm_slots(norms, wanted);
                LayerGradients { flow: flow.take(group.tokens.len()), factors, attention_norm, output_norm }
            };
            let parts: Vec<_> = groups.iter().zip(norms.chunks_exact_mut(4 * width)).zip(parts).map(of_group).collect();
            let pass = Pass { packed: Some(&*weights), ..pass };
            let input = activations.hidden(l);
            groups.par_iter().zip(parts).with_max_len(1).for_each(|(group, mut part)| {
                let rows = group.tokens.start * width..group.tokens.end * width;
                let own = own_query_key.map(|(query, key)| (&query[rows.clone()], &key[rows.clone()]));
                places.with(precision, groups.len(), |place| {
                    let mut projections = std::mem::take(&mut place.projections);
                    let acts = a.part(&self.config, &group.tokens, &mut projections);
                    part.factors.put_kept(&input[rows], &acts);
                    self.layer_backward(l, group, pass, &acts, own, &mut part, place);
                    place.projections = projections;
                });
            });
        }
        for (i, norm) in [layer.attention_norm, layer.output_norm].into_iter().enumerate() {
            let Some((gamma, beta, mode)) = grads.pair(norm.weight, norm.bias) else { continue };
            for (j, slot) in [gamma, beta].into_iter().enumerate() {
                if mode == Write::Store {
                    slot.fill(0.0);
                }
                for norms in norms.chunks_exact(4 * width) {
                    reduce::add(slot, &norms[(2 * i + j) * width..][..width]);
                }
            }
        }
        self.weight_gradients(l, factors, activations.hidden(l), a, pass, grads, &mut MapBuffers { scratch, sparse });
    }
}

/// Places for the gradients of scale and shift of two norms, where they are wanted.
fn norm_slots(norms: &mut [f32], wanted: [bool; 2]) -> [Option<(&mut [f32], &mut [f32])>; 2] {
    let (attention, output) = norms.split_at_mut(norms.len() / 2);
    let [attention, output] = [attention, output].map(|norm| norm.split_at_mut(norm.len() / 2));
    [wanted[0].then_some(attention), wanted[1].then_some(output)]
}
