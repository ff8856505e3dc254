//! What a forward pass keeps of one layer, in the shape in which its backward pass reads it.

use std::ops::Range;

use half::bf16;
use tamt_kernels::linear;
use tamt_kernels::linear::Factor;
use tamt_kernels::ops::layer_norm::Kept;
use tamt_kernels::sparse::{TokenPanels, TokenPanelsPart, TokenPanelsView};
use tamt_kernels::{Precision, Values};

use crate::activations::{Keep, NormActs, NormPart, Rows};
use crate::batch::Group;
use crate::config::Config;
use crate::factors::{FactorBuffer, FactorPart};
use crate::linear_maps::FfnLayout;

/// Rows `[T, width]`, in f32, rounded to bf16, both, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptRows {
    rows: Vec<f32>,
    rounded: Vec<bf16>,
    /// Whether what reads rounded rows reads bf16; else they are widened for it.
    reads_bf16: bool,
}

/// A part of [`KeptRows`].
#[derive(Debug)]
pub(crate) struct KeptPart<'a> {
    rows: &'a mut [f32],
    rounded: &'a mut [bf16],
    reads_bf16: bool,
}

impl KeptRows {
    fn parts<'a>(
        &'a mut self,
        width: usize,
        tokens: impl Iterator<Item = usize> + Clone,
        rows: bool,
        rounded: bool,
        precision: Precision,
    ) -> std::vec::IntoIter<KeptPart<'a>> {
        let len = tokens.clone().sum::<usize>() * width;
        self.rows.resize(if rows { len } else { 0 }, 0.0);
        self.rounded.resize(if rounded { len } else { 0 }, bf16::ZERO);
        let (mut rows, mut rounded) = (Rows::new(&mut self.rows, width), Rows::new(&mut self.rounded, width));
        let reads_bf16 = precision.effective() == Precision::Bf16;
        self.reads_bf16 = reads_bf16;
        let part = |tokens| KeptPart { rows: rows.take(tokens), rounded: rounded.take(tokens), reads_bf16 };
        tokens.map(part).collect::<Vec<_>>().into_iter()
    }

    /// Some of the elements: as they were put, or as they were rounded.
    fn read<'a>(&'a self, elements: Range<usize>, buffer: &'a mut Vec<f32>) -> Values<'a> {
        if !self.rows.is_empty() {
            return Values::F32(&self.rows[elements]);
        }
        if self.reads_bf16 {
            return Values::Bf16(&self.rounded[elements]);
        }
        buffer.resize(elements.len(), 0.0);
        tamt_kernels::widen(&self.rounded[elements], buffer);
        Values::F32(buffer)
    }
}

impl KeptPart<'_> {
    /// Keeps rows that were rounded, if they are kept.
    pub(crate) fn put_bf16(&mut self, x: &[bf16]) {
        if !self.rounded.is_empty() {
            self.rounded.copy_from_slice(x);
        }
    }

    /// Whether the rows are kept in f32.
    pub(crate) fn keeps_f32(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Keeps rows, which become what is kept, unless what reads them rounds them so itself.
    pub(crate) fn put(&mut self, x: &mut [f32]) {
        if !self.rows.is_empty() {
            self.rows.copy_from_slice(x);
        }
        if !self.rounded.is_empty() {
            tamt_kernels::round(x, self.rounded);
            if !self.reads_bf16 {
                tamt_kernels::widen(self.rounded, x);
            }
        }
    }
}

/// An FFN before its activation in panels: in f32, rounded to bf16, or not.
#[derive(Clone, Debug, Default)]
struct KeptPanels {
    panels: FactorBuffer,
    rounded: Vec<bf16>,
    rounds: bool,
    /// Where what is rounded of each group ends.
    ends: Vec<usize>,
}

/// Where a group's part of [`KeptPanels`] is kept.
#[derive(Debug)]
pub(crate) enum PanelsToKeep<'a> {
    F32(TokenPanelsPart<'a>),
    Bf16(&'a mut [bf16]),
}

/// A group's part of [`KeptPanels`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum PanelsKept<'a> {
    F32(TokenPanelsView<'a>),
    Bf16(&'a [bf16]),
}

impl KeptPanels {
    fn parts<'a>(
        &'a mut self,
        width: usize,
        groups: &[Group],
        precision: Option<Precision>,
    ) -> std::vec::IntoIter<Option<PanelsToKeep<'a>>> {
        let rounds = precision == Some(Precision::Bf16);
        self.rounds = rounds;
        let len = |group: &Group| if rounds { TokenPanels::len(group.tokens.len(), width) } else { 0 };
        self.ends.clear();
        self.ends.extend(groups.iter().scan(0, |end, group| {
            *end += len(group);
            Some(*end)
        }));
        self.rounded.resize(self.ends.last().copied().unwrap_or(0), bf16::ZERO);
        let mut rounded = Rows::new(&mut self.rounded, 1);
        let panels = self.panels.parts(Factor::Input, width, groups, None, precision == Some(Precision::F32));
        let part = |(panels, group): (FactorPart<'a>, _)| match panels.panels {
            Some(panels) => Some(PanelsToKeep::F32(panels)),
            None => rounds.then(|| PanelsToKeep::Bf16(rounded.take(len(group)))),
        };
        panels.zip(groups).map(part).collect::<Vec<_>>().into_iter()
    }

    fn group(&self, index: usize) -> Option<PanelsKept<'_>> {
        if let Some(panels) = self.panels.panels() {
            return Some(PanelsKept::F32(panels.group(index)));
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.rounds.then(|| PanelsKept::Bf16(&self.rounded[start..self.ends[index]]))
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
    pub(crate) ffn_panels: Option<PanelsToKeep<'a>>,
    pub(crate) output: Kept<'a>,
}

/// What one transformer layer kept of some tokens.
#[derive(Debug)]
pub(crate) struct LayerPart<'a> {
    pub(crate) query: Values<'a>,
    pub(crate) key: Values<'a>,
    pub(crate) value: Values<'a>,
    /// Where it was kept in panels.
    pub(crate) context: Option<TokenPanelsView<'a>>,
    /// Where it was kept in panels.
    pub(crate) attention_output: Option<TokenPanelsView<'a>>,
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) attention: NormPart<'a>,
    pub(crate) ffn_in: &'a [f32],
    pub(crate) ffn_panels: Option<PanelsKept<'a>>,
    pub(crate) output: NormPart<'a>,
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
    ffn_panels: KeptPanels,
    output: NormActs,
}

/// How the maps of a layer want what is kept for them.
#[derive(Clone, Copy)]
pub(crate) struct KeptFor {
    pub(crate) precision: Precision,
    /// Whether the sparse kernel is to make the gradient of a matrix of Q, K and V, that of attention's output, or the FFN's first
    /// one.
    pub(crate) sparse: [bool; 3],
    pub(crate) ffn: FfnLayout,
}

impl LayerActs {
    /// Begins a pass over groups of tokens: where each of them keeps what is to be.
    pub(crate) fn begin(
        &mut self,
        config: &Config,
        groups: &[Group],
        keep: Keep,
        layer: KeptFor,
    ) -> Vec<LayerView<'_>> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let sizes = groups.iter().map(|group| group.tokens.len());
        let KeptFor { precision, sparse: [sparse_input, sparse_context, sparse_ffn_input], ffn } = layer;
        self.ffn_width = match ffn {
            FfnLayout::Packed => linear::saved_width(config.intermediate_size, precision),
            FfnLayout::Rows => config.intermediate_size,
            FfnLayout::Panels => 0,
        };
        let in_panels = (keep.all() && matches!(ffn, FfnLayout::Panels)).then_some(precision);
        let mut ffn_panels = self.ffn_panels.parts(config.intermediate_size, groups, in_panels);
        let rounds = precision == Precision::Bf16;
        let mut index = 0;
        let mut projections = self.projections.each_mut().map(|kept| {
            let rows = (keep.attention() && index < 2) || (keep.all() && !rounds);
            index += 1;
            kept.parts(hidden, sizes.clone(), rows, keep.all() && rounds && !rows, precision)
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

    /// Q and K of all tokens, which were kept in f32.
    pub(crate) fn query_key(&self) -> (&[f32], &[f32]) {
        let [query, key, _] = &self.projections;
        (&query.rows, &key.rows)
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
            ffn_panels: self.ffn_panels.group(group),
            output,
        }
    }
}
