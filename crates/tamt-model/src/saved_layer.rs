//! Saved activations of one transformer layer, in the layouts that its backward pass reads.

use std::ops::Range;

use half::bf16;
use tamt_kernels::linear::{Factor, saved_width};
use tamt_kernels::ops::layer_norm::SavedStatistics;
use tamt_kernels::sparse::{TokenPanels, TokenPanelsPart, TokenPanelsView};
use tamt_kernels::{Precision, Values};

use crate::batch::{SequenceGroup, cut, group_rows};
use crate::packed_factor::{FactorBuffer, FactorLayout, FactorSlot};
use crate::plan::{FfnPlan, LayerPlan};
use crate::saved_norm::{NormView, SavedNorm};

/// How much a forward pass saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// Everything that the backward pass needs.
    All,
    /// Everything that the backward pass needs, and Q and K of every layer in f32 (for attention distillation).
    AllAndAttention,
    /// The hidden states of every layer.
    Hidden,
    /// The hidden states of the last layer.
    Last,
    /// The hidden states, and Q and K of every layer in f32.
    HiddenAndAttention,
}

impl Save {
    /// Whether a backward pass may follow.
    pub(crate) fn all(self) -> bool {
        matches!(self, Self::All | Self::AllAndAttention)
    }

    /// Whether Q and K can be read.
    pub(crate) fn attention(self) -> bool {
        matches!(self, Self::AllAndAttention | Self::HiddenAndAttention)
    }
}

/// Q, K or V `[T, hidden]`: in f32, in bf16 or not saved.
#[derive(Clone, Debug, Default)]
struct SavedRows {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    /// Whether attention reads bf16; otherwise the bf16 rows are widened for it.
    reads_bf16: bool,
}

/// A group's slot in [`SavedRows`].
#[derive(Debug, Default)]
pub(crate) struct RowsSlot<'a> {
    f32: &'a mut [f32],
    bf16: &'a mut [bf16],
    reads_bf16: bool,
}

impl SavedRows {
    fn begin(
        &mut self,
        width: usize,
        groups: &[SequenceGroup],
        saved_as: Option<Precision>,
        reads_bf16: bool,
    ) -> impl Iterator<Item = RowsSlot<'_>> {
        let len = token_count(groups) * width;
        self.f32.resize(if saved_as == Some(Precision::F32) { len } else { 0 }, 0.0);
        self.bf16.resize(if saved_as == Some(Precision::Bf16) { len } else { 0 }, bf16::ZERO);
        self.reads_bf16 = reads_bf16;
        let slots = group_rows(groups, &mut self.f32, width).zip(group_rows(groups, &mut self.bf16, width));
        slots.map(move |(f32, bf16)| RowsSlot { f32, bf16, reads_bf16 })
    }

    /// Some elements as attention reads them; `buffer` holds widened elements.
    fn read<'a>(&'a self, elements: Range<usize>, buffer: &'a mut Vec<f32>) -> Values<'a> {
        if !self.f32.is_empty() {
            return Values::F32(&self.f32[elements]);
        }
        if self.reads_bf16 {
            return Values::Bf16(&self.bf16[elements]);
        }
        buffer.resize(elements.len(), 0.0);
        tamt_kernels::widen(&self.bf16[elements], buffer);
        Values::F32(buffer)
    }
}

impl RowsSlot<'_> {
    /// Whether the rows are saved in f32.
    pub(crate) fn is_f32(&self) -> bool {
        !self.f32.is_empty()
    }

    /// Saves rows in bf16, if rows are saved.
    pub(crate) fn save_bf16(&mut self, x: &[bf16]) {
        if !self.bf16.is_empty() {
            self.bf16.copy_from_slice(x);
        }
    }

    /// Saves `x`. If attention reads f32, `x` is overwritten with the rounded values, so that forward and backward
    /// agree.
    pub(crate) fn save(&mut self, x: &mut [f32]) {
        if !self.f32.is_empty() {
            self.f32.copy_from_slice(x);
        }
        if !self.bf16.is_empty() {
            tamt_kernels::round(x, self.bf16);
            if !self.reads_bf16 {
                tamt_kernels::widen(self.bf16, x);
            }
        }
    }
}

/// The input of an FFN's activation function, `[T, intermediate]`, in one of three storages: [`PreActivation`].
#[derive(Clone, Debug, Default)]
struct SavedPreActivation {
    rows: Vec<f32>,
    panels: TokenPanels,
    rounded: Vec<bf16>,
}

/// A group's slot in [`SavedPreActivation`].
#[derive(Debug, Default)]
pub(crate) enum PreActivationSlot<'a> {
    #[default]
    None,
    Rows(&'a mut [f32]),
    Panels(TokenPanelsPart<'a>),
    RoundedPanels(&'a mut [bf16]),
}

/// A group's part of [`SavedPreActivation`], to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PreActivation<'a> {
    /// In the layout of the fused kernel, or row-major.
    Rows(&'a [f32]),
    Panels(TokenPanelsView<'a>),
    RoundedPanels(&'a [bf16]),
}

impl SavedPreActivation {
    /// The slots of each group; none if nothing is saved.
    fn begin(&mut self, plan: &LayerPlan<'_>, groups: &[SequenceGroup], save: bool) -> Vec<PreActivationSlot<'_>> {
        let (width, row_width) = (plan.config.intermediate_size, Self::row_width(plan));
        let panel_len = |group: &SequenceGroup| TokenPanels::len(group.tokens.len(), width);
        let (is_panels, rounds) = (matches!(plan.ffn, FfnPlan::Panels(_)), plan.precision == Precision::Bf16);
        let rounded_len = if save && is_panels && rounds { groups.iter().map(panel_len).sum() } else { 0 };
        self.rows.resize(if save && !is_panels { token_count(groups) * row_width } else { 0 }, 0.0);
        self.rounded.resize(rounded_len, bf16::ZERO);
        let rows = group_rows(groups, &mut self.rows, row_width);
        let rounded = cut(&mut self.rounded, groups.iter().map(panel_len));
        match (is_panels, rounds) {
            _ if !save => Vec::new(),
            (false, _) => rows.map(PreActivationSlot::Rows).collect(),
            (true, true) => rounded.map(PreActivationSlot::RoundedPanels).collect(),
            (true, false) => {
                let parts = self.panels.parts(width, groups.iter().map(|group| group.tokens.len()));
                parts.into_iter().map(PreActivationSlot::Panels).collect()
            }
        }
    }

    fn group(&self, plan: &LayerPlan<'_>, groups: &[SequenceGroup], index: usize) -> PreActivation<'_> {
        let (tokens, row_width) = (&groups[index].tokens, Self::row_width(plan));
        match (&plan.ffn, plan.precision) {
            (FfnPlan::Panels(_), Precision::F32) => PreActivation::Panels(self.panels.group(index)),
            (FfnPlan::Panels(_), Precision::Bf16) => {
                let len = |group: &SequenceGroup| TokenPanels::len(group.tokens.len(), plan.config.intermediate_size);
                let start = groups[..index].iter().map(len).sum();
                PreActivation::RoundedPanels(&self.rounded[start..][..len(&groups[index])])
            }
            _ => PreActivation::Rows(&self.rows[tokens.start * row_width..tokens.end * row_width]),
        }
    }

    /// Floats of a token in rows.
    fn row_width(plan: &LayerPlan<'_>) -> usize {
        match plan.ffn {
            FfnPlan::Packed(_) => saved_width(plan.config.intermediate_size, plan.precision),
            FfnPlan::Rows(_) | FfnPlan::Panels(_) => plan.config.intermediate_size,
        }
    }
}

fn token_count(groups: &[SequenceGroup]) -> usize {
    groups.iter().map(|group| group.tokens.len()).sum()
}

/// A group's slots for the saved activations of the attention sub-layer.
#[derive(Debug)]
pub(crate) struct AttentionSlots<'a> {
    pub(crate) input: FactorSlot<'a>,
    /// Q, K and V.
    pub(crate) projections: [RowsSlot<'a>; 3],
    pub(crate) log_sum_exp: Option<&'a mut [f32]>,
    pub(crate) context: FactorSlot<'a>,
    pub(crate) norm: Option<SavedStatistics<'a>>,
}

/// A group's slots for the saved activations of the FFN sub-layer.
#[derive(Debug)]
pub(crate) struct FfnSlots<'a> {
    pub(crate) input: FactorSlot<'a>,
    pub(crate) pre_activation: PreActivationSlot<'a>,
    pub(crate) norm: Option<SavedStatistics<'a>>,
}

/// A group's slots for the saved activations of a layer.
#[derive(Debug)]
pub(crate) struct LayerSlots<'a> {
    pub(crate) attention: AttentionSlots<'a>,
    pub(crate) ffn: FfnSlots<'a>,
}

/// A group's saved activations of the attention sub-layer, to read.
#[derive(Debug)]
pub(crate) struct SavedAttention<'a> {
    /// Q, K and V.
    pub(crate) projections: [Values<'a>; 3],
    /// In panels, if the sparse kernel computes the gradient of the attention output's weights.
    pub(crate) context: Option<TokenPanelsView<'a>>,
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) norm: NormView<'a>,
}

/// A group's saved activations of the FFN sub-layer, to read.
#[derive(Debug)]
pub(crate) struct SavedFfn<'a> {
    /// In panels, if the sparse kernel computes the gradient of the first matrix's weights.
    pub(crate) input: Option<TokenPanelsView<'a>>,
    pub(crate) pre_activation: PreActivation<'a>,
    pub(crate) norm: NormView<'a>,
}

/// Saved activations of one transformer layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct SavedLayer {
    /// Q, K and V: in bf16 if products are in bf16, since these round them anyway.
    projections: [SavedRows; 3],
    /// The layer's input, in panels for the sparse kernel; the dense kernel packs the hidden state anew.
    pub(crate) input: FactorBuffer,
    /// Only weight gradients read the context and the FFN's input, so both are saved as packed factors.
    pub(crate) context: FactorBuffer,
    pub(crate) ffn_input: FactorBuffer,
    log_sum_exp: Vec<f32>,
    attention_norm: SavedNorm,
    pre_activation: SavedPreActivation,
    output_norm: SavedNorm,
}

impl SavedLayer {
    /// Makes room for a batch; returns the slots of each group.
    pub(crate) fn begin(&mut self, plan: &LayerPlan<'_>, groups: &[SequenceGroup], save: Save) -> Vec<LayerSlots<'_>> {
        let (hidden, heads) = (plan.config.hidden_size, plan.config.num_attention_heads);
        let (precision, all) = (plan.precision, save.all());
        let reads_bf16 = precision.effective() == Precision::Bf16;
        let saved_as = all.then_some(precision);
        let query_key = if save.attention() { Some(Precision::F32) } else { saved_as };
        let [query, key, value] = self.projections.each_mut();
        let mut projections = [(query, query_key), (key, query_key), (value, saved_as)]
            .map(|(saved, saved_as)| saved.begin(hidden, groups, saved_as, reads_bf16));
        let [sparse_input, sparse_context, sparse_ffn_input] = plan.sparse_factors;
        let mut inputs = [
            (&mut self.input, false, sparse_input),
            (&mut self.context, !sparse_context, sparse_context),
            (&mut self.ffn_input, !sparse_ffn_input, sparse_ffn_input),
        ]
        .map(|(buffer, packed, panels)| {
            let layout = FactorLayout { packed: (all && packed).then_some(precision), panels: all && panels };
            buffer.begin(Factor::Input, hidden, groups, layout)
        });
        let mut pre_activation = self.pre_activation.begin(plan, groups, all).into_iter();
        let tokens = if all { token_count(groups) } else { 0 };
        self.log_sum_exp.resize(tokens * heads, 0.0);
        let mut log_sum_exp = group_rows(groups, &mut self.log_sum_exp, heads);
        let mut norms = [&mut self.attention_norm, &mut self.output_norm].map(|norm| {
            norm.resize(tokens, hidden);
            norm.slots(groups, hidden)
        });
        let slots = |_| {
            let [input, context, ffn_input] = inputs.each_mut().map(|slots| slots.next().unwrap_or_default());
            let [attention_norm, output_norm] = norms.each_mut().map(|norm| norm.next().filter(|_| all));
            LayerSlots {
                attention: AttentionSlots {
                    input,
                    projections: projections.each_mut().map(|slots| slots.next().unwrap_or_default()),
                    log_sum_exp: log_sum_exp.next().filter(|_| all),
                    context,
                    norm: attention_norm,
                },
                ffn: FfnSlots {
                    input: ffn_input,
                    pre_activation: pre_activation.next().unwrap_or_default(),
                    norm: output_norm,
                },
            }
        };
        groups.iter().map(slots).collect()
    }

    /// Q and K of all tokens, if saved in f32.
    pub(crate) fn query_key(&self) -> (&[f32], &[f32]) {
        let [query, key, _] = &self.projections;
        (&query.f32, &key.f32)
    }

    /// The saved activations of the group with this index; `buffers` hold Q, K and V if they are widened.
    pub(crate) fn group<'a>(
        &'a self,
        plan: &LayerPlan<'_>,
        groups: &[SequenceGroup],
        index: usize,
        buffers: &'a mut [Vec<f32>; 3],
    ) -> (SavedAttention<'a>, SavedFfn<'a>) {
        let (hidden, heads) = (plan.config.hidden_size, plan.config.num_attention_heads);
        let tokens = &groups[index].tokens;
        let elements = tokens.start * hidden..tokens.end * hidden;
        let [query, key, value] = &self.projections;
        let [query_buffer, key_buffer, value_buffer] = buffers;
        let panels = |input: &'a FactorBuffer| input.panels().map(|panels| panels.group(index));
        let attention = SavedAttention {
            projections: [
                query.read(elements.clone(), query_buffer),
                key.read(elements.clone(), key_buffer),
                value.read(elements, value_buffer),
            ],
            context: panels(&self.context),
            log_sum_exp: &self.log_sum_exp[tokens.start * heads..tokens.end * heads],
            norm: self.attention_norm.tokens(tokens, hidden),
        };
        let ffn = SavedFfn {
            input: panels(&self.ffn_input),
            pre_activation: self.pre_activation.group(plan, groups, index),
            norm: self.output_norm.tokens(tokens, hidden),
        };
        (attention, ffn)
    }
}
