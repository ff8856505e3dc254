//! What a forward pass keeps, and the scratch that both passes share. Sized on first use and then reused.

use std::ops::Range;

use half::bf16;
use tamt_kernels::Precision;
use tamt_kernels::layer_norm::Kept;
use tamt_kernels::linear::{self, Factor, PackedRows, Scratch};
use tamt_kernels::sparse::PanelsView;

use crate::batch::{Batch, Group};
use crate::config::Config;
use crate::factors::{FactorBuffer, FactorPart};
use crate::linear_maps::FfnLayout;

/// How much a forward pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything the backward pass needs.
    All,
    /// The same, and Q and K of every layer in f32.
    AllAndAttention,
    /// The hidden states of every layer only.
    Hidden,
    /// The hidden states, and Q and K of every layer (for attention distillation).
    HiddenAndAttention,
}

impl Keep {
    /// Whether a backward pass may follow.
    pub(crate) fn all(self) -> bool {
        matches!(self, Self::All | Self::AllAndAttention)
    }

    /// Whether Q and K can be read.
    fn attention(self) -> bool {
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

/// Rows `[T, width]`, in f32, rounded to bf16, both, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptRows {
    rows: Vec<f32>,
    rounded: Vec<bf16>,
}

/// A part of [`KeptRows`].
#[derive(Debug)]
pub(crate) struct KeptPart<'a> {
    rows: &'a mut [f32],
    rounded: &'a mut [bf16],
}

impl KeptRows {
    fn parts<'a>(
        &'a mut self,
        width: usize,
        tokens: impl Iterator<Item = usize> + Clone,
        rows: bool,
        rounded: bool,
    ) -> std::vec::IntoIter<KeptPart<'a>> {
        let len = tokens.clone().sum::<usize>() * width;
        self.rows.resize(if rows { len } else { 0 }, 0.0);
        self.rounded.resize(if rounded { len } else { 0 }, bf16::ZERO);
        let (mut rows, mut rounded) = (Rows::new(&mut self.rows, width), Rows::new(&mut self.rounded, width));
        let part = |tokens| KeptPart { rows: rows.take(tokens), rounded: rounded.take(tokens) };
        tokens.map(part).collect::<Vec<_>>().into_iter()
    }

    /// Some of the elements: as they were put, or as they were rounded.
    fn read<'a>(&'a self, elements: Range<usize>, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        if !self.rows.is_empty() {
            return &self.rows[elements];
        }
        buffer.resize(elements.len(), 0.0);
        tamt_kernels::widen(&self.rounded[elements], buffer);
        buffer
    }
}

impl KeptPart<'_> {
    pub(crate) fn put(&mut self, x: &[f32]) {
        if !self.rows.is_empty() {
            self.rows.copy_from_slice(x);
        }
        if !self.rounded.is_empty() {
            tamt_kernels::round(x, self.rounded);
        }
    }
}

/// Where a layer keeps what it wants to of some tokens.
#[derive(Debug)]
pub(crate) struct LayerView<'a> {
    /// Q, K and V.
    pub(crate) projections: [KeptPart<'a>; 3],
    pub(crate) input: FactorPart<'a>,
    pub(crate) context: FactorPart<'a>,
    pub(crate) attention_output: FactorPart<'a>,
    /// What only a backward pass needs.
    pub(crate) rest: Option<RestView<'a>>,
}

/// Part of a [`LayerView`].
#[derive(Debug)]
pub(crate) struct RestView<'a> {
    pub(crate) log_sum_exp: &'a mut [f32],
    pub(crate) attention: Kept<'a>,
    pub(crate) ffn_in: &'a mut [f32],
    pub(crate) ffn_panels: FactorPart<'a>,
    pub(crate) output: Kept<'a>,
}

/// What one transformer layer kept of some tokens.
#[derive(Debug)]
pub(crate) struct LayerPart<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    /// Where it was kept in panels.
    pub(crate) context: Option<PanelsView<'a>>,
    /// Where it was kept in panels.
    pub(crate) attention_output: Option<PanelsView<'a>>,
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) attention: NormPart<'a>,
    pub(crate) ffn_in: &'a [f32],
    pub(crate) ffn_panels: Option<PanelsView<'a>>,
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
    /// Q, K and V: beside products in bf16, which would round them themselves, rounded.
    projections: [KeptRows; 3],
    /// The layer's input, where the sparse kernel multiplies by it: in panels.
    pub(crate) input: FactorBuffer,
    /// The context and attention's output are read again by the gradients of the maps that they are inputs of alone.
    pub(crate) context: FactorBuffer,
    pub(crate) attention_output: FactorBuffer,
    log_sum_exp: Vec<f32>,
    attention: NormActs,
    /// FFN before the activation: `[T, ffn_width]`, as [`linear::forward_activated`] keeps it, or in rows where one of its maps is
    /// sparse.
    ffn_in: Vec<f32>,
    ffn_width: usize,
    /// The same where both of its maps are sparse: in panels.
    ffn_panels: FactorBuffer,
    output: NormActs,
}

/// How the maps of a layer want what is kept for them.
#[derive(Clone, Copy)]
pub(crate) struct KeptFor<'a> {
    pub(crate) precision: Precision,
    /// Whether the sparse kernel is to multiply by a matrix of Q, K and V, that of attention's output, or the FFN's first one.
    pub(crate) sparse: [bool; 3],
    pub(crate) ffn: FfnLayout<'a>,
}

impl LayerActs {
    /// Begins a pass over groups of tokens: where each of them keeps what is to be.
    pub(crate) fn begin(
        &mut self,
        config: &Config,
        groups: &[Group],
        keep: Keep,
        layer: KeptFor<'_>,
    ) -> Vec<LayerView<'_>> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let sizes = groups.iter().map(|group| group.tokens.len());
        let KeptFor { precision, sparse: [sparse_input, sparse_context, sparse_ffn_input], ffn } = layer;
        self.ffn_width = match ffn {
            FfnLayout::Packed => linear::kept_width(config.intermediate_size, precision),
            FfnLayout::Rows => config.intermediate_size,
            FfnLayout::Panels { .. } => 0,
        };
        let in_panels = keep.all() && matches!(ffn, FfnLayout::Panels { .. });
        let mut ffn_panels = self.ffn_panels.parts(Factor::Input, config.intermediate_size, groups, None, in_panels);
        let rounds = precision == Precision::Bf16;
        let mut index = 0;
        let mut projections = self.projections.each_mut().map(|kept| {
            let rows = (keep.attention() && index < 2) || (keep.all() && !rounds);
            index += 1;
            kept.parts(hidden, sizes.clone(), rows, keep.all() && rounds && !rows)
        });
        // what is not in panels is packed for the dense kernel; the layer's input is a hidden state, which is there
        let inputs = [
            (&mut self.input, sparse_input, false),
            (&mut self.context, sparse_context, !sparse_context),
            (&mut self.attention_output, sparse_ffn_input, !sparse_ffn_input),
        ];
        let mut inputs = inputs.map(|(buffer, panels, packed)| {
            let packed = (keep.all() && packed).then_some(precision);
            buffer.parts(Factor::Input, hidden, groups, packed, keep.all() && panels)
        });
        let tokens = if keep.all() { sizes.clone().sum() } else { 0 };
        self.log_sum_exp.resize(tokens * heads, 0.0);
        self.attention.resize(tokens, hidden);
        self.ffn_in.resize(tokens * self.ffn_width, 0.0);
        self.output.resize(tokens, hidden);
        let mut log_sum_exp = Rows::new(&mut self.log_sum_exp, heads);
        let mut ffn_in = Rows::new(&mut self.ffn_in, self.ffn_width);
        let mut norms = [&mut self.attention, &mut self.output]
            .map(|norm| (Rows::new(&mut norm.sum, hidden), Rows::new(&mut norm.mean, 1), Rows::new(&mut norm.rstd, 1)));
        let view = |tokens| {
            let mut inputs = inputs.each_mut().map(|parts| parts.next().expect("a part for each group"));
            let [input, context, attention_output] = inputs.each_mut().map(std::mem::take);
            let mut rest = || {
                let [attention, output] = norms.each_mut().map(|(sum, mean, rstd)| Kept {
                    sum: Some(sum.take(tokens)),
                    mean: mean.take(tokens),
                    rstd: rstd.take(tokens),
                });
                RestView {
                    log_sum_exp: log_sum_exp.take(tokens),
                    attention,
                    ffn_in: ffn_in.take(tokens),
                    ffn_panels: ffn_panels.next().expect("a part for each group"),
                    output,
                }
            };
            LayerView {
                projections: projections.each_mut().map(|parts| parts.next().expect("a part for each group")),
                input,
                context,
                attention_output,
                rest: keep.all().then(&mut rest),
            }
        };
        sizes.map(view).collect()
    }

    /// What was kept of a group of tokens; `buffers` are for Q, K and V.
    pub(crate) fn part<'a>(
        &'a self,
        config: &Config,
        group: usize,
        tokens: &Range<usize>,
        buffers: &'a mut [Vec<f32>; 3],
    ) -> LayerPart<'a> {
        let rows = |width: usize| tokens.start * width..tokens.end * width;
        let hidden = rows(config.hidden_size);
        let [attention, output] = [&self.attention, &self.output].map(|norm| NormPart {
            sum: &norm.sum[hidden.clone()],
            mean: &norm.mean[tokens.clone()],
            rstd: &norm.rstd[tokens.clone()],
        });
        let mut buffers = buffers.iter_mut();
        let [query, key, value] = self
            .projections
            .each_ref()
            .map(|kept| kept.read(hidden.clone(), buffers.next().expect("a buffer for each of three")));
        let [context, attention_output] =
            [&self.context, &self.attention_output].map(|input| input.panels().map(|panels| panels.group(group)));
        LayerPart {
            query,
            key,
            value,
            context,
            attention_output,
            log_sum_exp: &self.log_sum_exp[rows(config.num_attention_heads)],
            attention,
            ffn_in: &self.ffn_in[rows(self.ffn_width)],
            ffn_panels: self.ffn_panels.panels().map(|panels| panels.group(group)),
            output,
        }
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
        assert!(self.keep.attention(), "Q and K were not kept");
        let [query, key, _] = &self.layers[layer].projections;
        (&query.rows, &key.rows)
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
        self.embedding.resize(tokens, hidden);
        self.hidden.resize_with(layers + 1, Vec::new);
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
    /// Q, K and V as they were kept.
    pub(crate) projections: [Vec<f32>; 3],
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
