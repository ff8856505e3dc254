//! What a forward pass keeps, and the scratch that both passes share. Sized on first use and then reused.

use tamt_kernels::Precision;
use tamt_kernels::Scratch;
use tamt_kernels::linear::PackedInput;

use crate::batch::Batch;
use crate::config::Config;
use crate::kept::LayerActs;

/// How much a forward pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything the backward pass needs.
    All,
    /// The same, and Q and K of every layer in f32.
    AllAndAttention,
    /// The hidden states of every layer only.
    Hidden,
    /// The last layer's only.
    Last,
    /// The hidden states, and Q and K of every layer (for attention distillation).
    HiddenAndAttention,
}

impl Keep {
    /// Whether a backward pass may follow.
    pub(crate) fn all(self) -> bool {
        matches!(self, Self::All | Self::AllAndAttention)
    }

    /// Whether Q and K can be read.
    pub(crate) fn attention(self) -> bool {
        matches!(self, Self::AllAndAttention | Self::HiddenAndAttention)
    }
}

/// Buffers of a sub-layer `y = LayerNorm(s)`, `s = residual + dropout(x)`.
#[derive(Clone, Debug, Default)]
pub(crate) struct NormActs {
    pub(crate) sum: Vec<f32>,
    pub(crate) mean: Vec<f32>,
    pub(crate) rstd: Vec<f32>,
}

impl NormActs {
    pub(crate) fn resize(&mut self, tokens: usize, hidden: usize) {
        self.sum.resize(tokens * hidden, 0.0);
        self.mean.resize(tokens, 0.0);
        self.rstd.resize(tokens, 0.0);
    }
}

/// A part of [`NormActs`] to read.
#[derive(Debug)]
pub(crate) struct NormPart<'a> {
    pub(crate) sum: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) rstd: &'a [f32],
}

/// A part of [`NormActs`] to write; empty where nothing is kept.
#[derive(Debug)]
pub(crate) struct NormView<'a> {
    pub(crate) sum: &'a mut [f32],
    pub(crate) mean: &'a mut [f32],
    pub(crate) rstd: &'a mut [f32],
}

/// A `[T, width]` buffer that is taken apart from its beginning.
pub(crate) struct Rows<'a, T = f32> {
    rest: &'a mut [T],
    width: usize,
}

impl<'a, T> Rows<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T], width: usize) -> Self {
        Self { rest: buffer, width }
    }

    /// The next rows; none of a buffer that is not kept.
    pub(crate) fn take(&mut self, rows: usize) -> &'a mut [T] {
        let rest = std::mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut(rest.len().min(rows * self.width));
        self.rest = rest;
        taken
    }
}

/// Gradients of some tokens in a layer: what the next layer down takes, and what gradients of parameters are made of.
#[derive(Debug)]
pub(crate) struct LayerGradients<'a> {
    /// Of the layer's output, then of its input.
    pub(crate) flow: &'a mut [f32],
    /// Factors of the gradients of weights.
    pub(crate) factors: crate::factors::FactorParts<'a>,
    /// Of scale and shift, these tokens' share.
    pub(crate) attention_norm: Option<(&'a mut [f32], &'a mut [f32])>,
    pub(crate) output_norm: Option<(&'a mut [f32], &'a mut [f32])>,
}

/// Activations of one forward pass over a packed batch of `T` tokens.
#[derive(Clone, Debug)]
pub struct Activations {
    keep: Keep,
    tokens: usize,
    pub(crate) embedding: NormActs,
    pub(crate) layers: Vec<LayerActs>,
    /// Those of layer `l` are in place `l % hidden.len()`.
    pub(crate) hidden: Vec<Vec<f32>>,
}

impl Activations {
    /// Empty buffers that grow at the first pass.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { keep, tokens: 0, embedding: NormActs::default(), layers: Vec::new(), hidden: Vec::new() }
    }

    /// Hidden states `[T, hidden]`: 0 is the embedding output, `l + 1` the output of layer `l`.
    ///
    /// # Panics
    /// If the pass did not keep them.
    #[must_use]
    pub fn hidden(&self, index: usize) -> &[f32] {
        assert!(self.keep != Keep::Last || index + 1 == self.hidden_count(), "only the last hidden states were kept");
        &self.hidden[index % self.hidden.len()]
    }

    /// The last layer's output, `[T, hidden]`.
    ///
    /// # Panics
    /// Before the first forward pass.
    #[must_use]
    pub fn last_hidden(&self) -> &[f32] {
        assert!(!self.hidden.is_empty(), "a forward pass has run");
        self.hidden(self.layers.len())
    }

    /// Number of hidden states: layers + 1.
    #[must_use]
    pub fn hidden_count(&self) -> usize {
        self.layers.len() + 1
    }

    /// Q and K of a layer, `[T, hidden]` each.
    ///
    /// # Panics
    /// If the pass did not keep them.
    #[must_use]
    pub fn query_key(&self, layer: usize) -> (&[f32], &[f32]) {
        assert!(self.keep.attention(), "Q and K were not kept");
        self.layers[layer].query_key()
    }

    /// Tokens `T` of the last pass.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn keep(&self) -> Keep {
        self.keep
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.keep.all()
    }

    /// Makes room for the hidden states of a batch.
    pub(crate) fn resize(&mut self, config: &Config, batch: &Batch) {
        let tokens = batch.tokens();
        let (hidden, layers) = (config.hidden_size, config.num_hidden_layers);
        self.tokens = tokens;
        self.embedding.resize(if self.keep.all() { tokens } else { 0 }, hidden);
        // where only the last ones are kept, layers go to and fro between two
        self.hidden.resize_with(if self.keep == Keep::Last { 2 } else { layers + 1 }, Vec::new);
        for h in &mut self.hidden {
            h.resize(tokens * hidden, 0.0);
        }
        self.layers.resize_with(layers, LayerActs::default);
    }
}

/// Gradients that an objective puts in: one optional `[T, hidden]` buffer for each hidden state, and for attention
/// objectives Q and K of each layer.
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

    /// The gradient buffer of a hidden state, zeroed when first asked for in a step.
    #[must_use]
    pub fn hidden_mut(&mut self, index: usize, len: usize) -> &mut [f32] {
        let buffer = &mut self.hidden[index];
        if !std::mem::replace(&mut self.active[index], true) {
            buffer.clear();
            buffer.resize(len, 0.0);
        }
        buffer
    }

    /// The gradient buffers of Q and K of a layer, zeroed when first asked for in a step.
    #[must_use]
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

/// Scratch of the two passes, reused from step to step.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) kernels: Scratch,
    pub(crate) sparse: crate::prepared::SparseBuffers,
    /// Gradient that flows from layer to layer, `[T, hidden]`
    pub(crate) flow: Vec<f32>,
    /// Q, K, V and the outputs of attention and FFN, or the gradients of these, `[T, hidden]` each, of the tokens at hand.
    pub(crate) hidden: [Vec<f32>; 5],
    /// Q, K and V in bf16.
    pub(crate) rounded: [Vec<half::bf16>; 3],
    /// Q, K and V as they were kept.
    pub(crate) projections: [Vec<f32>; 3],
    /// Gradients of scale and shift of both norms of a layer, for each group: `[groups, 4, hidden]`.
    pub(crate) norms: Vec<f32>,
    /// FFN before the activation, or the gradient of that, of the tokens at hand.
    pub(crate) ffn: Vec<f32>,
    /// FFN after the activation, or the gradient of that, packed for the next map.
    pub(crate) ffn_packed: PackedInput,
    /// FFN after the activation, `[T, ffn]`: the backward pass makes it again from what is before it.
    pub(crate) ffn_act: Vec<f32>,
    /// Factors of the gradients of a layer's weights.
    pub(crate) factors: crate::factors::LayerFactors,
    /// Where jobs that have a group of sequences each work.
    pub(crate) groups: crate::groups::Workplaces,
    /// Matrices of the layer at hand.
    pub(crate) weights: crate::prepared::LayerWeights,
    pub(crate) head: crate::mlm_head::HeadBuffers,
    pub(crate) task: crate::task_head::TaskBuffers,
}

impl Workspace {
    /// Scratch of passes whose dense products are computed in this precision; [`Workspace::default`] is for f32.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self { kernels: Scratch::new(precision), ..Self::default() }
    }
}
