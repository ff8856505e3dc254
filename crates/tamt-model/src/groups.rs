//! A forward pass by groups of sequences, each of which goes through all layers as one job: what a layer leaves for the next
//! one is then still in a core's own cache. Sequences do not see each other, so the states are the same bits.

use std::sync::Mutex;

use rayon::prelude::*;

use crate::activations::{Activations, Keep, LayerActs, NormActs, Workspace};
use crate::batch::Batch;
use crate::encoder::Pass;
use crate::model::Model;

/// Tokens of a group, about: as many as fit the second-level cache with their activations, and enough for each matrix, which a
/// group reads once.
const GROUP_TOKENS: usize = 256;

/// Where a job works.
#[derive(Debug)]
struct Workplace {
    embedding: NormActs,
    layer: LayerActs,
    workspace: Workspace,
}

/// Those that no job is at, from pass to pass.
#[derive(Debug, Default)]
pub(crate) struct Workplaces(Mutex<Vec<Workplace>>);

impl Model {
    /// The hidden states of all layers, by groups.
    pub(crate) fn forward_by_groups(
        &self,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &mut Activations,
        workspace: &Workspace,
    ) {
        let width = self.config.hidden_size;
        let groups = batch.groups(GROUP_TOKENS);
        let mut parts: Vec<Vec<&mut [f32]>> = groups.iter().map(|_| Vec::new()).collect();
        for states in &mut activations.hidden {
            let mut rest = states.as_mut_slice();
            for (group, parts) in groups.iter().zip(&mut parts) {
                let tokens = batch.bounds[group.end] - batch.bounds[group.start];
                let part;
                (part, rest) = rest.split_at_mut(tokens * width);
                parts.push(part);
            }
        }
        let places = &workspace.groups.0;
        groups.into_par_iter().zip(parts).with_max_len(1).for_each(|(group, mut states)| {
            let free = places.lock().expect("no job panicked").pop();
            let mut place = free.unwrap_or_else(|| Workplace {
                embedding: NormActs::default(),
                layer: LayerActs::default(),
                workspace: Workspace::new(workspace.kernels.precision()),
            });
            let first = batch.bounds[group.start];
            let bounds: Vec<usize> = batch.bounds[group.start..=group.end].iter().map(|bound| bound - first).collect();
            let tokens = bounds[group.len()];
            place.embedding.resize(tokens, width);
            place.layer.resize(&self.config, tokens, Keep::Hidden);
            self.embed(batch.part(first..first + tokens), pass, &mut place.embedding, states[0]);
            for l in 0..self.layers.len() {
                let (before, after) = states.split_at_mut(l + 1);
                self.layer_forward(
                    l,
                    &bounds,
                    pass,
                    before[l],
                    after[0],
                    &mut place.layer,
                    Keep::Hidden,
                    &mut place.workspace,
                );
            }
            places.lock().expect("no job panicked").push(place);
        });
    }
}
