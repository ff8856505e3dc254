//! The hidden states of a forward pass, and its saved activations.

use crate::batch::Batch;
use crate::config::Config;
use crate::saved_layer::{Save, SavedLayer};
use crate::saved_norm::SavedNorm;

/// Hidden states and saved activations of one forward pass over a packed batch of `T` tokens.
///
/// The first pass allocates the buffers; later passes reuse them.
#[derive(Clone, Debug)]
pub struct Activations {
    save: Save,
    tokens: usize,
    pub(crate) embedding: SavedNorm,
    pub(crate) layers: Vec<SavedLayer>,
    /// Hidden state `l` is element `l % hidden.len()`, `[T, hidden]`.
    pub(crate) hidden: Vec<Vec<f32>>,
}

impl Activations {
    /// Empty buffers for passes that save this much.
    pub fn new(save: Save) -> Self {
        Self { save, tokens: 0, embedding: SavedNorm::default(), layers: Vec::new(), hidden: Vec::new() }
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

    /// Tokens `T` of the latest pass.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn save(&self) -> Save {
        self.save
    }

    /// Makes room for the hidden states of a batch.
    pub(crate) fn resize(&mut self, config: &Config, batch: &Batch) {
        let tokens = batch.tokens();
        let (hidden, layers) = (config.hidden_size, config.num_hidden_layers);
        self.tokens = tokens;
        self.embedding.resize(if self.save.all() { tokens } else { 0 }, hidden);
        // If only the last hidden states are saved, layers alternate between two buffers.
        self.hidden.resize_with(if self.save == Save::Last { 2 } else { layers + 1 }, Vec::new);
        for h in &mut self.hidden {
            h.resize(tokens * hidden, 0.0);
        }
        self.layers.resize_with(layers, SavedLayer::default);
    }
}
