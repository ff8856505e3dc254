//! Passes through a layer by groups of sequences: a job takes one through all of its operations, and what one operation leaves
//! for the next one is still in a core's own cache. Sequences do not see each other, so the states are those of the whole
//! batch; gradients of parameters, which are sums over all tokens, come after.

use std::sync::Mutex;

use rayon::prelude::*;
use tamt_kernels::Precision;
use tamt_kernels::Write;
use tamt_kernels::inside_parallel_job;
use tamt_kernels::linear::PackedFor;
use tamt_kernels::ops::reduce;

use crate::activations::{Activations, LayerGradients, NormActs, NormView, Rows, Workspace};
use crate::batch::{Batch, Group};
use crate::encoder::Pass;
use crate::grads::Grads;
use crate::kept::{KeptFor, LayerView};
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
            inside_parallel_job(|| job(&mut place));
        } else {
            job(&mut place);
        }
        self.0.lock().expect("no job panicked").push(place);
    }
}

/// A group on its way through the layers.
struct Passage<'a> {
    group: &'a Group,
    /// What is kept of its embeddings.
    embedding: NormView<'a>,
    /// Its hidden states, as [`Activations`] has them.
    hidden: Vec<&'a mut [f32]>,
    /// What each layer is to keep of it, until the layer has its turn.
    views: Vec<Option<LayerView<'a>>>,
}

impl Passage<'_> {
    fn go_through(&mut self, model: &Model, l: usize, pass: Pass<'_>, place: &mut Workspace) {
        let view = self.views[l].take().expect("a group goes through a layer once");
        let places = self.hidden.len();
        let [input, output] = self.hidden.get_disjoint_mut([l % places, (l + 1) % places]).expect("two places");
        model.layer_forward(l, self.group, pass, input, output, view, place);
    }

    fn embed(&mut self, model: &Model, batch: &Batch, pass: Pass<'_>, place: &mut Workspace) {
        let NormView { sum, mean, rstd } = &mut self.embedding;
        let [buffer, ..] = &mut place.hidden;
        model.embed(batch, self.group.tokens.clone(), pass, NormView { sum, mean, rstd }, buffer, self.hidden[0]);
    }
}

impl Model {
    /// The embedding output, the hidden states that each layer leaves, and what is kept of it. Where no matrix is to be packed
    /// before, a job takes its group through all layers.
    pub(crate) fn forward_by_groups(
        &self,
        batch: &Batch,
        groups: &[Group],
        pass: Pass<'_>,
        activations: &mut Activations,
        workspace: &mut Workspace,
    ) {
        let (width, precision, keep) = (self.config.hidden_size, workspace.kernels.precision(), activations.keep());
        let views = self.layers.iter().zip(&mut activations.layers).map(|(layer, acts)| {
            let sparse = [
                [layer.query, layer.key, layer.value].into_iter().any(|dense| pass.has_sparse_gradient(dense)),
                pass.has_sparse_gradient(layer.attention_output),
                pass.has_sparse_gradient(layer.intermediate),
            ];
            let layer = KeptFor { precision, sparse, ffn: pass.ffn_layout(layer) };
            acts.begin(&self.config, groups, keep, layer).into_iter()
        });
        let (mut views, mut hidden): (Vec<_>, Vec<_>) =
            (views.collect(), activations.hidden.iter_mut().map(|states| Rows::new(states, width)).collect());
        let NormActs { sum, mean, rstd } = &mut activations.embedding;
        let (mut sum, mut mean, mut rstd) = (Rows::new(sum, width), Rows::new(mean, 1), Rows::new(rstd, 1));
        let mut passages: Vec<Passage<'_>> = groups
            .iter()
            .map(|group| Passage {
                group,
                embedding: NormView {
                    sum: sum.take(group.tokens.len()),
                    mean: mean.take(group.tokens.len()),
                    rstd: rstd.take(group.tokens.len()),
                },
                hidden: hidden.iter_mut().map(|states| states.take(group.tokens.len())).collect(),
                views: views.iter_mut().map(Iterator::next).collect(),
            })
            .collect();
        let count = self.layers.len();
        let at_once = if pass.has_all_prepared(self) { count.max(1) } else { 1 };
        for first in (0..count.max(1)).step_by(at_once) {
            let mut pass = pass;
            if at_once == 1 && count > 0 {
                workspace.weights.make(self, first, pass, PackedFor::Forward, precision);
                pass.made = Some(&workspace.weights);
            }
            passages.par_iter_mut().with_max_len(1).for_each(|passage| {
                workspace.groups.with(precision, groups.len(), |place| {
                    if first == 0 {
                        passage.embed(self, batch, pass, place);
                    }
                    (first..count.min(first + at_once)).for_each(|l| passage.go_through(self, l, pass, place));
                });
            });
        }
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
        workspace.weights.make(self, l, pass, PackedFor::InputGradient, precision);
        let Workspace { groups: places, weights, flow, norms, factors, .. } = workspace;
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
            let pass = Pass { made: Some(&*weights), ..pass };
            let input = activations.hidden(l);
            groups.par_iter().zip(parts).enumerate().with_max_len(1).for_each(|(index, (group, mut part))| {
                let rows = group.tokens.start * width..group.tokens.end * width;
                let own = own_query_key.map(|(query, key)| (&query[rows.clone()], &key[rows.clone()]));
                places.with(precision, groups.len(), |place| {
                    let mut projections = std::mem::take(&mut place.projections);
                    let acts = a.part(&self.config, index, &group.tokens, &mut projections);
                    part.factors.put_kept(&input[rows], &acts, &mut place.flow);
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
        self.weight_gradients(l, factors, a, pass, grads);
    }
}

/// Places for the gradients of scale and shift of two norms, where they are wanted.
fn norm_slots(norms: &mut [f32], wanted: [bool; 2]) -> [Option<(&mut [f32], &mut [f32])>; 2] {
    let (attention, output) = norms.split_at_mut(norms.len() / 2);
    let [attention, output] = [attention, output].map(|norm| norm.split_at_mut(norm.len() / 2));
    [wanted[0].then_some(attention), wanted[1].then_some(output)]
}
