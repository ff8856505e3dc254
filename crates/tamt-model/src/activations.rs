//! Hidden states and saved activations of a forward pass, and the gradients that the backward pass starts from.

use crate::batch::Batch;
use crate::config::Config;
use crate::saved_layer::{Save, SavedLayer};
use crate::saved_norm::SavedNorm;

/// Hidden states and saved activations of one forward pass over a packed batch of `T` tokens.
///
/// The first pass allocates the buffers; later passes reuse them.
#[derive(Clone, Debug)]
pub struct Activations {
    pub(crate) save: Save,
    pub(crate) embedding: SavedNorm,
    pub(crate) layers: Vec<SavedLayer>,
    /// Hidden state `l` is element `l % hidden.len()`, `[T, hidden]`.
    pub(crate) hidden: Vec<Vec<f32>>,
}

impl Activations {
    /// Empty buffers for passes that save this much.
    pub fn new(save: Save) -> Self {
        Self { save, embedding: SavedNorm::default(), layers: Vec::new(), hidden: Vec::new() }
    }

    /// Hidden states `[T, hidden]`: 0 is the embedding output, `l + 1` the output of layer `l`.
    ///
    /// # Panics
    /// If the pass did not save them.
    pub fn hidden(&self, index: usize) -> &[f32] {
        assert!(self.save != Save::Last || index + 1 == self.hidden_count(), "only the last hidden states are saved");
        &self.hidden[index % self.hidden.len()]
    }

    /// The last layer's output, `[T, hidden]`.
    ///
    /// # Panics
    /// If no forward pass has run.
    pub fn last_hidden(&self) -> &[f32] {
        assert!(!self.hidden.is_empty(), "a forward pass has run");
        self.hidden(self.layers.len())
    }

    /// Number of hidden states: layers + 1.
    pub fn hidden_count(&self) -> usize {
        self.layers.len() + 1
    }

    /// Q and K of a layer, `[T, hidden]` each.
    ///
    /// # Panics
    /// If the pass did not save them.
    pub fn query_key(&self, layer: usize) -> (&[f32], &[f32]) {
        assert!(self.save.attention(), "Q and K are not saved");
        self.layers[layer].query_key()
    }

    /// Makes room for the hidden states of a batch.
    pub(crate) fn resize(&mut self, config: &Config, batch: &Batch) {
        let (tokens, hidden, layers) = (batch.tokens(), config.hidden_size, config.num_hidden_layers);
        self.embedding.resize(if self.save.all() { tokens } else { 0 }, hidden);
        // If only the last hidden states are saved, layers alternate between two buffers.
        self.hidden.resize_with(if self.save == Save::Last { 2 } else { layers + 1 }, Vec::new);
        for h in &mut self.hidden {
            h.resize(tokens * hidden, 0.0);
        }
        self.layers.resize_with(layers, SavedLayer::default);
    }
}

/// Gradients of an objective with respect to hidden states, and to Q and K of each layer for attention objectives:
/// `[T, hidden]` each, all optional.
#[derive(Clone, Debug, Default)]
pub struct HiddenGrads {
    hidden: Vec<Vec<f32>>,
    active: Vec<bool>,
    query_key: Vec<(Vec<f32>, Vec<f32>)>,
    query_key_active: bool,
}

impl HiddenGrads {
    /// Starts a step: no hidden state has a gradient.
    pub fn begin(&mut self, activations: &Activations) {
        let count = activations.hidden_count();
        self.hidden.resize_with(count, Vec::new);
        self.active.clear();
        self.active.resize(count, false);
        self.query_key_active = false;
    }

    /// The gradient buffer of a hidden state (`len = T * hidden`), zeroed by the first call of a step.
    pub fn hidden_mut(&mut self, index: usize, len: usize) -> &mut [f32] {
        let buffer = &mut self.hidden[index];
        if !std::mem::replace(&mut self.active[index], true) {
            buffer.clear();
            buffer.resize(len, 0.0);
        }
        buffer
    }

    /// The gradient buffers of Q and K of a layer (`len = T * hidden`), zeroed by the first call of a step.
    pub fn query_key_mut(&mut self, layer: usize, len: usize) -> (&mut [f32], &mut [f32]) {
        let layers = self.hidden.len() - 1;
        if !std::mem::replace(&mut self.query_key_active, true) {
            self.query_key.resize_with(layers, Default::default);
            for (q, k) in &mut self.query_key {
                for buffer in [q, k] {
                    buffer.clear();
                    buffer.resize(len, 0.0);
                }
            }
        }
        let (q, k) = &mut self.query_key[layer];
        (q, k)
    }

    pub(crate) fn hidden(&self, index: usize) -> Option<&[f32]> {
        self.active[index].then(|| self.hidden[index].as_slice())
    }

    pub(crate) fn query_key(&self, layer: usize) -> Option<(&[f32], &[f32])> {
        let (q, k) = self.query_key.get(layer)?;
        self.query_key_active.then_some((q, k))
    }
}
