//! What a forward pass keeps, and the scratch that both passes share. Sized on first use and then reused.

use std::ops::Range;

use tamt_kernels::Precision;
#[cfg(doc)]
use tamt_kernels::linear;
use tamt_kernels::linear::{PackedRows, Scratch};

use crate::batch::Batch;
use crate::config::Config;

/// How much a forward pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything the backward pass needs.
    All,
    /// The hidden states of every layer only.
    Hidden,
    /// The hidden states, and Q and K of every layer (for attention distillation).
    HiddenAndAttention,
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

/// A part of [`NormActs`].
#[derive(Debug)]
pub(crate) struct NormView<'a> {
    pub(crate) sum: &'a mut [f32],
    pub(crate) mean: &'a mut [f32],
    pub(crate) rstd: &'a mut [f32],
}

/// A `[T, width]` buffer that is taken apart from its beginning.
pub(crate) struct Rows<'a> {
    rest: &'a mut [f32],
    width: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(buffer: &'a mut [f32], width: usize) -> Self {
        Self { rest: buffer, width }
    }

    /// The next rows; none of a buffer that is not kept.
    pub(crate) fn take(&mut self, rows: usize) -> &'a mut [f32] {
        let rest = std::mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut(rest.len().min(rows * self.width));
        self.rest = rest;
        taken
    }
}

/// What one transformer layer keeps of some tokens.
#[derive(Debug)]
pub(crate) struct LayerView<'a> {
    pub(crate) query: &'a mut [f32],
    pub(crate) key: &'a mut [f32],
    pub(crate) value: &'a mut [f32],
    pub(crate) context: &'a mut [f32],
    pub(crate) log_sum_exp: &'a mut [f32],
    pub(crate) attention: NormView<'a>,
    pub(crate) attention_output: &'a mut [f32],
    pub(crate) ffn_in: &'a mut [f32],
    pub(crate) output: NormView<'a>,
}

/// What one transformer layer kept of some tokens.
#[derive(Debug)]
pub(crate) struct LayerPart<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) context: &'a [f32],
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) attention: NormPart<'a>,
    pub(crate) attention_output: &'a [f32],
    pub(crate) ffn_in: &'a [f32],
    pub(crate) output: NormPart<'a>,
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

/// What one transformer layer keeps.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerActs {
    pub(crate) query: Vec<f32>,
    pub(crate) key: Vec<f32>,
    pub(crate) value: Vec<f32>,
    pub(crate) context: Vec<f32>,
    pub(crate) log_sum_exp: Vec<f32>,
    pub(crate) attention: NormActs,
    pub(crate) attention_output: Vec<f32>,
    /// FFN before the activation: `[T, ffn_width]`, as [`linear::forward_activated`] keeps it, or in rows where a map of it is
    /// sparse.
    pub(crate) ffn_in: Vec<f32>,
    pub(crate) ffn_width: usize,
    pub(crate) output: NormActs,
}

impl LayerActs {
    /// Takes the buffers apart: a view for each number of tokens.
    pub(crate) fn views<'a>(&'a mut self, config: &Config, tokens: impl Iterator<Item = usize>) -> Vec<LayerView<'a>> {
        let (hidden, ffn, heads) = (config.hidden_size, self.ffn_width, config.num_attention_heads);
        let mut query = Rows::new(&mut self.query, hidden);
        let mut key = Rows::new(&mut self.key, hidden);
        let mut value = Rows::new(&mut self.value, hidden);
        let mut context = Rows::new(&mut self.context, hidden);
        let mut log_sum_exp = Rows::new(&mut self.log_sum_exp, heads);
        let mut attention_output = Rows::new(&mut self.attention_output, hidden);
        let mut ffn_in = Rows::new(&mut self.ffn_in, ffn);
        let mut norms = [&mut self.attention, &mut self.output]
            .map(|norm| (Rows::new(&mut norm.sum, hidden), Rows::new(&mut norm.mean, 1), Rows::new(&mut norm.rstd, 1)));
        let view = |tokens| {
            let [attention, output] = norms.each_mut().map(|(sum, mean, rstd)| NormView {
                sum: sum.take(tokens),
                mean: mean.take(tokens),
                rstd: rstd.take(tokens),
            });
            LayerView {
                query: query.take(tokens),
                key: key.take(tokens),
                value: value.take(tokens),
                context: context.take(tokens),
                log_sum_exp: log_sum_exp.take(tokens),
                attention,
                attention_output: attention_output.take(tokens),
                ffn_in: ffn_in.take(tokens),
                output,
            }
        };
        tokens.map(view).collect()
    }

    /// What was kept of some tokens.
    pub(crate) fn part(&self, config: &Config, tokens: &Range<usize>) -> LayerPart<'_> {
        let rows = |width: usize| tokens.start * width..tokens.end * width;
        let hidden = rows(config.hidden_size);
        let [attention, output] = [&self.attention, &self.output].map(|norm| NormPart {
            sum: &norm.sum[hidden.clone()],
            mean: &norm.mean[tokens.clone()],
            rstd: &norm.rstd[tokens.clone()],
        });
        LayerPart {
            query: &self.query[hidden.clone()],
            key: &self.key[hidden.clone()],
            value: &self.value[hidden.clone()],
            context: &self.context[hidden.clone()],
            log_sum_exp: &self.log_sum_exp[rows(config.num_attention_heads)],
            attention,
            attention_output: &self.attention_output[hidden.clone()],
            ffn_in: &self.ffn_in[rows(self.ffn_width)],
            output,
        }
    }

    pub(crate) fn resize(&mut self, config: &Config, tokens: usize, keep: Keep, ffn_width: usize) {
        self.ffn_width = ffn_width;
        let hidden = config.hidden_size;
        for buffer in [&mut self.query, &mut self.key, &mut self.value, &mut self.context, &mut self.attention_output] {
            buffer.resize(tokens * hidden, 0.0);
        }
        self.log_sum_exp.resize(tokens * config.num_attention_heads, 0.0);
        self.attention.resize(tokens, hidden);
        if keep == Keep::All {
            self.ffn_in.resize(tokens * ffn_width, 0.0);
        }
        self.output.resize(tokens, hidden);
    }
}

/// Activations of one forward pass over a packed batch of `T` tokens.
#[derive(Clone, Debug)]
pub struct Activations {
    keep: Keep,
    tokens: usize,
    pub(crate) embedding: NormActs,
    pub(crate) layers: Vec<LayerActs>,
    pub(crate) hidden: Vec<Vec<f32>>,
}

impl Activations {
    /// Empty buffers that grow at the first pass.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { keep, tokens: 0, embedding: NormActs::default(), layers: Vec::new(), hidden: Vec::new() }
    }

    /// Hidden states `[T, hidden]`: 0 is the embedding output, `l + 1` the output of layer `l`.
    #[must_use]
    pub fn hidden(&self, index: usize) -> &[f32] {
        &self.hidden[index]
    }

    /// The last layer's output, `[T, hidden]`.
    ///
    /// # Panics
    /// Before the first forward pass.
    #[must_use]
    pub fn last_hidden(&self) -> &[f32] {
        self.hidden.last().expect("a forward pass has run")
    }

    /// Number of hidden states: layers + 1.
    #[must_use]
    pub fn hidden_count(&self) -> usize {
        self.hidden.len()
    }

    /// Q and K of a layer, `[T, hidden]` each.
    ///
    /// # Panics
    /// If the pass did not keep them.
    #[must_use]
    pub fn query_key(&self, layer: usize) -> (&[f32], &[f32]) {
        assert!(self.keep != Keep::Hidden, "Q and K were not kept");
        (&self.layers[layer].query, &self.layers[layer].key)
    }

    /// Tokens `T` of the last pass.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The buffers that layer `l` works in.
    pub(crate) fn layer_slot(&self, layer: usize) -> usize {
        if self.keep == Keep::Hidden { 0 } else { layer }
    }

    pub(crate) fn keep(&self) -> Keep {
        self.keep
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.keep == Keep::All
    }

    /// Makes room for a batch; `ffn_width` are the floats that a layer keeps of a token's FFN.
    pub(crate) fn resize(&mut self, config: &Config, batch: &Batch, ffn_width: impl Fn(usize) -> usize) {
        let tokens = batch.tokens();
        let (hidden, layers) = (config.hidden_size, config.num_hidden_layers);
        self.tokens = tokens;
        self.embedding.resize(tokens, hidden);
        self.hidden.resize_with(layers + 1, Vec::new);
        for h in &mut self.hidden {
            h.resize(tokens * hidden, 0.0);
        }
        self.layers.resize_with(if self.keep == Keep::Hidden { 1 } else { layers }, LayerActs::default);
        for (l, layer) in self.layers.iter_mut().enumerate() {
            layer.resize(config, tokens, self.keep, ffn_width(l));
        }
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
    /// Gradients of Q, K, V and of the outputs of attention and FFN, `[T, hidden]` each, of the tokens at hand.
    pub(crate) hidden: [Vec<f32>; 5],
    /// Gradients of scale and shift of both norms of a layer, for each group: `[groups, 4, hidden]`.
    pub(crate) norms: Vec<f32>,
    /// FFN before the activation, or the gradient of that, of the tokens at hand.
    pub(crate) ffn: Vec<f32>,
    /// FFN after the activation, or the gradient of that, packed for the next map.
    pub(crate) ffn_packed: PackedRows,
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
