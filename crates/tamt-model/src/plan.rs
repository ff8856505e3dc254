//! The plan of a transformer layer in one pass: the kernel, the layout and the precision of each matrix, resolved once.

use std::borrow::Cow;

use rayon::prelude::*;
use tamt_kernels::Precision;
use tamt_kernels::linear::{PackedFor, PackedWeight};
use tamt_kernels::ops::attention::AttentionShape;
use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::sparse::{PreparedFor, SparseWeight};

use crate::batch::SequenceGroup;
use crate::config::Config;
use crate::model::{ATTENTION_OUTPUT, Dense, INTERMEDIATE, Model, Norm, OUTPUT, QUERY, VALUE};
use crate::pass::{DropoutSite, Pass};
use crate::prepared::LinearWeight;

/// A linear layer `y = x (W ∘ B)ᵀ + b`; its masked matrix is in the layout of the kernel that multiplies by it.
#[derive(Clone, Debug)]
pub(crate) struct Linear<'a, W = LinearWeight<'a>> {
    pub(crate) weight: W,
    pub(crate) bias: Cow<'a, [f32]>,
}

pub(crate) type DenseLinear<'a> = Linear<'a, &'a PackedWeight>;
pub(crate) type SparseLinear<'a> = Linear<'a, &'a SparseWeight>;

/// `y = (s - mean) rstd γ + β`, `rstd = 1 / sqrt(variance + eps)` (`torch.nn.LayerNorm`).
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm<'a> {
    pub(crate) gamma: Cow<'a, [f32]>,
    pub(crate) beta: Cow<'a, [f32]>,
    pub(crate) eps: f32,
}

impl<'a> LayerNorm<'a> {
    pub(crate) fn new(model: &'a Model, norm: Norm) -> Self {
        let (gamma, beta) = (model.params.get(norm.weight), model.params.get(norm.bias));
        Self { gamma, beta, eps: model.config.layer_norm_eps }
    }
}

/// The two linear layers of an FFN, by the layout of the activations between them.
#[derive(Debug)]
pub(crate) enum FfnPlan<'a> {
    /// Both dense: the fused kernel packs the activation for the second product.
    Packed([DenseLinear<'a>; 2]),
    /// Both sparse: panels from product to product.
    Panels([SparseLinear<'a>; 2]),
    /// One of each: rows.
    Rows([Linear<'a>; 2]),
}

/// A transformer layer in one forward or backward pass.
#[derive(Debug)]
pub(crate) struct LayerPlan<'a> {
    pub(crate) config: &'a Config,
    /// Number of the layer, from 0.
    pub(crate) layer: usize,
    pass: Pass<'a>,
    pub(crate) precision: Precision,
    /// Whether the sparse kernel computes a weight gradient from the layer's input, the context, or the FFN's input.
    pub(crate) sparse_factors: [bool; 3],
    /// Q, K and V.
    pub(crate) projections: [Linear<'a>; 3],
    pub(crate) attention_output: Linear<'a>,
    pub(crate) attention_norm: LayerNorm<'a>,
    pub(crate) ffn: FfnPlan<'a>,
    pub(crate) output_norm: LayerNorm<'a>,
}

impl<'a> LayerPlan<'a> {
    /// The plan of a forward pass through layer `l`, if all matrices are prepared.
    pub(crate) fn prepared(model: &'a Model, l: usize, pass: Pass<'a>, precision: Precision) -> Option<Self> {
        let prepared = pass.prepared?;
        let weight = |dense: Dense| prepared.weight(dense.weight, PackedFor::Forward);
        let weights: Option<Vec<_>> = model.layers[l].dense().into_iter().map(weight).collect();
        Some(Self::new(model, l, pass, precision, &weights?))
    }

    /// The plan of a pass through layer `l`; packs the matrices that are not prepared for `product` into `buffers`.
    pub(crate) fn pack(
        model: &'a Model,
        l: usize,
        pass: Pass<'a>,
        product: PackedFor,
        precision: Precision,
        buffers: &'a mut WeightBuffers,
    ) -> Self {
        // In parallel: the last parts of a single matrix would leave threads idle.
        let weights = buffers.0.par_iter_mut().zip(model.layers[l].dense()).with_max_len(1).map(|(buffer, dense)| {
            let prepared = pass.prepared.and_then(|prepared| prepared.weight(dense.weight, product));
            prepared.unwrap_or_else(|| buffer.pack(model, dense, pass, product, precision))
        });
        let weights: Vec<_> = weights.collect();
        Self::new(model, l, pass, precision, &weights)
    }

    /// `weights` are in the order of [`crate::model::Layer::dense`].
    fn new(model: &'a Model, l: usize, pass: Pass<'a>, precision: Precision, weights: &[LinearWeight<'a>]) -> Self {
        let layer = &model.layers[l];
        let is_sparse = |dense: &Dense| pass.sparse_gradient(*dense).is_some();
        let projections = &layer.dense()[QUERY..=VALUE];
        let linear = |i: usize| {
            let dense = layer.dense()[i];
            if let (LinearWeight::Sparse(weight), Some(masks)) = (weights[i], pass.masks) {
                debug_assert!(
                    masks.get(dense.weight).is_none_or(|mask| mask == weight.mask()),
                    "a sparse weight prepared under its mask"
                );
            }
            Linear { weight: weights[i], bias: model.params.get(dense.bias) }
        };
        let (intermediate, output) = (linear(INTERMEDIATE), linear(OUTPUT));
        let ffn = match (intermediate.weight, output.weight) {
            (LinearWeight::Dense(first), LinearWeight::Dense(second)) => {
                FfnPlan::Packed([intermediate.with_weight(first), output.with_weight(second)])
            }
            (LinearWeight::Sparse(first), LinearWeight::Sparse(second)) => {
                FfnPlan::Panels([intermediate.with_weight(first), output.with_weight(second)])
            }
            _ => FfnPlan::Rows([intermediate, output]),
        };
        Self {
            config: &model.config,
            layer: l,
            pass,
            precision,
            sparse_factors: [
                projections.iter().any(is_sparse),
                is_sparse(&layer.attention_output),
                is_sparse(&layer.intermediate),
            ],
            projections: std::array::from_fn(linear),
            attention_output: linear(ATTENTION_OUTPUT),
            attention_norm: LayerNorm::new(model, layer.attention_norm),
            ffn,
            output_norm: LayerNorm::new(model, layer.output_norm),
        }
    }

    /// Dropout of the attention probabilities.
    pub(crate) fn probability_dropout(&self) -> Option<Dropout> {
        self.pass.dropout(DropoutSite::AttentionProbabilities(self.layer), 0)
    }

    /// Dropout of a group's elements `[tokens, hidden]` at a site.
    pub(crate) fn dropout(&self, site: fn(usize) -> DropoutSite, group: &SequenceGroup) -> Option<Dropout> {
        self.pass.dropout(site(self.layer), group.tokens.start * self.config.hidden_size)
    }

    /// The shape of a group in attention.
    pub(crate) fn attention_shape<'b>(&self, group: &'b SequenceGroup) -> AttentionShape<'b> {
        let heads = self.config.num_attention_heads;
        let head_dim = self.config.hidden_size / heads;
        AttentionShape { bounds: &group.bounds, heads, head_dim, first_sequence: group.first_sequence }
    }
}

impl<'a> Linear<'a> {
    fn with_weight<W>(self, weight: W) -> Linear<'a, W> {
        Linear { weight, bias: self.bias }
    }
}

/// Buffers for the matrices that a pass packs for one layer.
#[derive(Debug, Default)]
pub(crate) struct WeightBuffers([WeightBuffer; 6]);

/// A buffer for one matrix.
#[derive(Debug, Default)]
struct WeightBuffer {
    packed: PackedWeight,
    sparse: SparseWeight,
}

impl WeightBuffer {
    fn pack(
        &mut self,
        model: &Model,
        dense: Dense,
        pass: Pass<'_>,
        product: PackedFor,
        precision: Precision,
    ) -> LinearWeight<'_> {
        let weight = model.params.weight(dense.weight, pass.masks);
        if pass.prepared.is_some_and(|prepared| prepared.is_sparse(dense.weight)) {
            let product = match product {
                PackedFor::Forward => PreparedFor::Forward,
                PackedFor::InputGradient => PreparedFor::InputGradient,
            };
            self.sparse.prepare(weight, product, precision);
            LinearWeight::Sparse(&self.sparse)
        } else {
            self.packed.pack(weight, product, precision);
            LinearWeight::Dense(&self.packed)
        }
    }
}
