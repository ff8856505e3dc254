//! Forward and backward through the whole encoder.

use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::ops::reduce;
use tamt_kernels::rng::{Purpose, Stream};

use crate::activations::{Activations, HiddenGrads, Workspace};
use crate::batch::Batch;
use crate::config::Config;
use crate::grads::Grads;
use crate::groups::GROUP_TOKENS;
use crate::model::Model;
use crate::params::Masks;
use crate::prepared::{LayerWeights, PreparedWeights};

/// How a pass runs: with which masks, with which dropout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass<'a> {
    /// Masks of the pruned matrices; `None` runs the dense model.
    pub masks: Option<&'a Masks>,
    /// Matrices as the kernels read them, prepared for these masks and the model's weights; the others are multiplied by the
    /// dense kernel, which packs them for each pass.
    pub prepared: Option<&'a PreparedWeights>,
    /// Dropout of a training pass; `None` switches it off.
    pub dropout: Option<DropoutPlan>,
    /// Matrices of the layer at hand that were made ready for this pass.
    pub(crate) made: Option<&'a LayerWeights>,
}

/// Dropout rates of a training step, and the randomness that decides them.
#[derive(Clone, Copy, Debug)]
pub struct DropoutPlan {
    /// Rate on embeddings and sub-layer outputs.
    pub hidden: f32,
    /// Rate on attention probabilities.
    pub attention: f32,
    stream: Stream,
}

/// The places of a model that drop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Site {
    Embeddings,
    AttentionProbabilities(usize),
    AttentionOutput(usize),
    Output(usize),
    /// A place of the task head; numbered apart from the layers.
    Head(usize),
}

impl DropoutPlan {
    /// Dropout for training step `step` of a run seeded with `seed`.
    #[must_use]
    pub fn new(hidden: f32, attention: f32, seed: u64, step: u64) -> Self {
        Self { hidden, attention, stream: Stream::new(seed, Purpose::DROPOUT, step) }
    }

    /// Dropout for training step `step` at one rate everywhere, or where it is `None` at the model's own rates.
    #[must_use]
    pub fn for_step(config: &Config, rate: Option<f32>, seed: u64, step: u64) -> Self {
        let (hidden, attention) = match rate {
            Some(p) => (p, p),
            None => (config.hidden_dropout_prob, config.attention_probs_dropout_prob),
        };
        Self::new(hidden, attention, seed, step)
    }

    fn at(&self, site: Site) -> Option<Dropout> {
        let (p, number) = match site {
            Site::Embeddings => (self.hidden, 0),
            Site::AttentionProbabilities(l) => (self.attention, 3 * l + 1),
            Site::AttentionOutput(l) => (self.hidden, 3 * l + 2),
            Site::Output(l) => (self.hidden, 3 * l + 3),
            Site::Head(place) => (self.hidden, (1 << 30) + place),
        };
        (p > 0.0).then(|| Dropout { p, stream: self.stream.fork(number as u32), first: 0 })
    }
}

impl<'a> Pass<'a> {
    /// A pass without dropout.
    #[must_use]
    pub fn new(masks: Option<&'a Masks>, prepared: Option<&'a PreparedWeights>) -> Self {
        Self { masks, prepared, ..Self::default() }
    }

    /// The same with dropout.
    #[must_use]
    pub fn with_dropout(self, dropout: DropoutPlan) -> Self {
        Self { dropout: Some(dropout), ..self }
    }

    pub(crate) fn dropout_at(&self, site: Site) -> Option<Dropout> {
        self.dropout.as_ref()?.at(site)
    }

    /// Dropout of some elements of a place, of which `first` come before them.
    pub(crate) fn dropout_from(&self, site: Site, first: usize) -> Option<Dropout> {
        Some(Dropout { first: first as u64, ..self.dropout_at(site)? })
    }
}

impl Model {
    /// Runs the encoder over a packed batch and leaves the hidden states of every layer in `activations`.
    ///
    /// # Panics
    /// If [`Batch::locate`] was not called, or an id or position lies outside its table.
    pub fn forward(&self, batch: &Batch, pass: Pass<'_>, activations: &mut Activations, workspace: &mut Workspace) {
        assert_eq!(batch.position_ids.len(), batch.tokens(), "positions are located before a pass");
        activations.resize(&self.config, batch);
        self.forward_by_groups(batch, &batch.groups(GROUP_TOKENS), pass, activations, workspace);
    }

    /// Carries the gradients in `d` back through the encoder, as far as a trainable tensor waits for one, and writes
    /// them to `grads`. `activations` are those of the forward pass with the same `batch` and `pass`.
    ///
    /// # Panics
    /// If the forward pass did not keep everything.
    pub fn backward(
        &self,
        batch: &Batch,
        pass: Pass<'_>,
        activations: &Activations,
        d: &HiddenGrads,
        grads: &mut Grads,
        workspace: &mut Workspace,
    ) {
        let Some(depth) = self.backward_depth(grads) else { return };
        assert!(activations.is_complete(), "the forward pass kept too little for a backward pass");
        workspace.flow.resize(batch.tokens() * self.config.hidden_size, 0.0);
        let groups = batch.groups(GROUP_TOKENS);
        match d.hidden(self.layers.len()) {
            Some(top) => workspace.flow.copy_from_slice(top),
            None => workspace.flow.fill(0.0),
        }
        for l in (depth.first_layer()..self.layers.len()).rev() {
            self.backward_through_layer(l, &groups, pass, activations, d.query_key(l), grads, workspace);
            if let Some(own) = d.hidden(l) {
                reduce::add(&mut workspace.flow, own);
            }
        }
        if depth == Depth::Embeddings {
            self.embed_backward(batch, pass, activations, grads, workspace);
        }
    }

    /// How far down the trainable tensors lie; `None` where none is in the encoder.
    fn backward_depth(&self, grads: &Grads) -> Option<Depth> {
        let e = &self.embeddings;
        if [e.word, e.position, e.token_type, e.norm.weight, e.norm.bias].iter().any(|&id| grads.wants(id)) {
            return Some(Depth::Embeddings);
        }
        self.layers
            .iter()
            .position(|layer| {
                let norms = [layer.attention_norm, layer.output_norm];
                layer.dense().iter().any(|d| grads.wants(d.weight) || grads.wants(d.bias))
                    || norms.iter().any(|n| grads.wants(n.weight) || grads.wants(n.bias))
            })
            .map(Depth::Layer)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Embeddings,
    Layer(usize),
}

impl Depth {
    fn first_layer(self) -> usize {
        match self {
            Self::Embeddings => 0,
            Self::Layer(l) => l,
        }
    }
}
