//! Passes by groups of sequences: a job takes a group through a layer, or through all of them, and what one operation leaves
//! for the next one is still in a core's own cache. Sequences do not see each other, so the states are the same bits.

use std::sync::Mutex;

use rayon::prelude::*;
use tamt_kernels::Precision;

use crate::activations::{Activations, Keep, LayerActs, NormActs, Rows, Workspace};
use crate::batch::{Batch, Group};
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

impl Workplaces {
    fn with<R>(&self, precision: Precision, job: impl FnOnce(&mut Workplace) -> R) -> R {
        let free = self.0.lock().expect("no job panicked").pop();
        let mut place = free.unwrap_or_else(|| Workplace {
            embedding: NormActs::default(),
            layer: LayerActs::default(),
            workspace: Workspace::new(precision),
        });
        let result = job(&mut place);
        self.0.lock().expect("no job panicked").push(place);
        result
    }
}

impl Model {
    /// Layer by layer, each by groups. Matrices that are not prepared are packed a layer at a time.
    pub(crate) fn forward_by_layers(
        &self,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &mut Activations,
        workspace: &mut Workspace,
    ) {
        let (width, precision) = (self.config.hidden_size, workspace.kernels.precision());
        let (groups, keep) = (batch.groups(GROUP_TOKENS), activations.keep());
        self.embed(batch.all(), pass, &mut activations.embedding, &mut activations.hidden[0]);
        for l in 0..self.layers.len() {
            workspace.weights.pack(self, l, pass, precision);
            let pass = Pass { packed: Some(&workspace.weights), ..pass };
            let slot = activations.layer_slot(l);
            let views = activations.layers[slot].views(&self.config, groups.iter().map(|group| group.tokens.len()));
            let (before, after) = activations.hidden.split_at_mut(l + 1);
            let (input, mut output) = (&before[l], Rows::new(&mut after[0], width));
            let outputs: Vec<_> = groups.iter().map(|group| output.take(group.tokens.len())).collect();
            groups.par_iter().zip(views).zip(outputs).with_max_len(1).for_each(|((group, mut view), output)| {
                let input = &input[group.tokens.start * width..group.tokens.end * width];
                workspace.groups.with(precision, |place| {
                    self.layer_forward(l, group, pass, input, output, &mut view, keep, &mut place.workspace);
                });
            });
        }
    }

    /// The hidden states of all layers, each group through all of them in turn: nothing else is kept, and every matrix is
    /// prepared.
    pub(crate) fn forward_by_groups(
        &self,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &mut Activations,
        workspace: &Workspace,
    ) {
        let (width, precision) = (self.config.hidden_size, workspace.kernels.precision());
        let groups = batch.groups(GROUP_TOKENS);
        let mut rows: Vec<_> = activations.hidden.iter_mut().map(|states| Rows::new(states, width)).collect();
        let mut states_of = |group: &Group| rows.iter_mut().map(|rows| rows.take(group.tokens.len())).collect();
        let states: Vec<Vec<&mut [f32]>> = groups.iter().map(&mut states_of).collect();
        groups.par_iter().zip(states).with_max_len(1).for_each(|(group, mut states)| {
            workspace.groups.with(precision, |Workplace { embedding, layer, workspace }| {
                let tokens = group.tokens.len();
                embedding.resize(tokens, width);
                layer.resize(&self.config, tokens, Keep::Hidden);
                self.embed(batch.part(group.tokens.clone()), pass, embedding, states[0]);
                for l in 0..self.layers.len() {
                    let (before, after) = states.split_at_mut(l + 1);
                    let mut view = layer.views(&self.config, std::iter::once(tokens)).remove(0);
                    self.layer_forward(l, group, pass, before[l], after[0], &mut view, Keep::Hidden, workspace);
                }
            });
        });
    }
}
