//! The gradients of a layer: those of one group of sequences, and `dW = dyᵀ x` over all groups, from packed factors.

use rayon::prelude::*;
use tamt_kernels::linear::Factor;
use tamt_kernels::sparse::{GradLayout, SparseWeight};
use tamt_kernels::{Precision, Write, linear, sparse};

use crate::batch::SequenceGroup;
use crate::grads::{GradKind, Gradient, Grads, OwnedGradient, epilogue};
use crate::model::{Dense, Layer, Model};
use crate::packed_factor::{FactorBuffer, FactorLayout, FactorSlot};
use crate::pass::Pass;
use crate::saved_layer::{SavedAttention, SavedFfn, SavedLayer};

/// Linear layers of a transformer layer, in the order of [`Layer::dense`].
const LINEARS: usize = 6;

/// Distinct inputs of the linear layers: the layer's input, the context, the FFN's input, the FFN's activation.
const INPUTS: usize = 4;
pub(crate) const ACTIVATION_INPUT: usize = 3;

/// The input of each linear layer.
const INPUT_OF: [usize; LINEARS] = [0, 0, 0, 1, 2, ACTIVATION_INPUT];

/// How the gradients of a linear layer's weight and bias are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GradientPath<'a> {
    /// Neither is trained.
    None,
    /// The bias's alone, from the dense kernel's packed `dy`.
    Bias,
    /// By the dense kernel.
    Dense,
    /// By the sparse kernel, from panels in f32.
    Sparse(&'a SparseWeight),
}

impl<'a> GradientPath<'a> {
    /// The paths of a layer's linear layers.
    pub(crate) fn of_layer(layer: &Layer, pass: Pass<'a>, grads: &Grads) -> [Self; LINEARS] {
        layer.dense().map(|dense| match (grads.kind(dense.weight), pass.sparse_gradient(dense)) {
            (Some(GradKind::Weight | GradKind::Survivors), Some(sparse)) => Self::Sparse(sparse),
            (Some(_), _) => Self::Dense,
            (None, _) if grads.contains(dense.bias) => Self::Bias,
            (None, _) => Self::None,
        })
    }
}

/// Packed factors of the weight gradients of a layer.
#[derive(Debug, Default)]
pub(crate) struct LayerFactors {
    /// `dy` of each linear layer.
    output_gradients: [FactorBuffer; LINEARS],
    /// Each distinct `x` that the forward pass did not pack.
    inputs: [FactorBuffer; INPUTS],
}

/// A group's slots in [`LayerFactors`].
#[derive(Debug)]
pub(crate) struct FactorSlots<'a> {
    /// `dy` of each linear layer.
    pub(crate) output_gradients: [FactorSlot<'a>; LINEARS],
    /// Each distinct `x`.
    pub(crate) inputs: [FactorSlot<'a>; INPUTS],
}

impl FactorSlots<'_> {
    /// Packs the layer's input `x`, and the context and the FFN's input that the forward pass saved in panels;
    /// `buffer` holds unpacked rows.
    pub(crate) fn pack_inputs(
        &mut self,
        x: &[f32],
        attention: &SavedAttention<'_>,
        ffn: &SavedFfn<'_>,
        buffer: &mut Vec<f32>,
    ) {
        let [layer_input, context, ffn_input, _] = &mut self.inputs;
        layer_input.pack(x);
        for (slot, saved) in [(context, attention.context), (ffn_input, ffn.input)] {
            if let Some(panels) = saved {
                slot.pack_from_panels(panels, buffer);
            }
        }
    }
}

/// A group's share of `dγ` and `dβ`, `[hidden]` each, and whether to store or to add.
pub(crate) type NormShare<'a> = (&'a mut [f32], &'a mut [f32], Write);

/// Gradients that a layer's backward pass reads and leaves for a group of `T` tokens.
#[derive(Debug)]
pub(crate) struct LayerGradients<'a> {
    /// The gradient of the layer's output, then of its input, `[T, hidden]`.
    pub(crate) flow: &'a mut [f32],
    /// The objective's own gradients of Q and K, `[T, hidden]` each.
    pub(crate) query_key: Option<(&'a [f32], &'a [f32])>,
    pub(crate) factors: FactorSlots<'a>,
    /// `dγ` and `dβ` of the attention's `LayerNorm`, if trained.
    pub(crate) attention_norm: Option<NormShare<'a>>,
    /// `dγ` and `dβ` of the FFN's `LayerNorm`, if trained.
    pub(crate) output_norm: Option<NormShare<'a>>,
}

/// The factor of each distinct input that the forward pass saved.
fn saved_inputs(saved: &SavedLayer) -> [Option<&FactorBuffer>; INPUTS] {
    [Some(&saved.input), Some(&saved.context), Some(&saved.ffn_input), None]
}

impl LayerFactors {
    /// Makes room for the factors of a layer; returns the slots of each group.
    pub(crate) fn begin(
        &mut self,
        model: &Model,
        layer: &Layer,
        paths: &[GradientPath<'_>; LINEARS],
        saved: &SavedLayer,
        groups: &[SequenceGroup],
        precision: Precision,
    ) -> Vec<FactorSlots<'_>> {
        let shapes = layer.dense().map(|dense| model.params.matrix_shape(dense.weight));
        let mut numbers = 0..LINEARS;
        let mut output_gradients = self.output_gradients.each_mut().map(|dy| {
            let i = numbers.next().unwrap_or_default();
            let packed = matches!(paths[i], GradientPath::Dense | GradientPath::Bias).then_some(precision);
            let layout = FactorLayout { packed, panels: matches!(paths[i], GradientPath::Sparse(_)) };
            dy.begin(Factor::OutputGradient, shapes[i][0], groups, layout)
        });
        let saved = saved_inputs(saved);
        let mut numbers = 0..INPUTS;
        let mut inputs = self.inputs.each_mut().map(|x| {
            let input = numbers.next().unwrap_or_default();
            let readers = (0..LINEARS).filter(|&i| INPUT_OF[i] == input);
            let width = readers.clone().map(|i| shapes[i][1]).next().unwrap_or(0);
            let is_packed = saved[input].and_then(FactorBuffer::packed).is_some();
            let packed =
                (!is_packed && readers.clone().any(|i| matches!(paths[i], GradientPath::Dense))).then_some(precision);
            // The forward pass saves the panels of every input but the activation's.
            let panels =
                input == ACTIVATION_INPUT && readers.clone().any(|i| matches!(paths[i], GradientPath::Sparse(_)));
            x.begin(Factor::Input, width, groups, FactorLayout { packed, panels })
        });
        let slots = |_| FactorSlots {
            output_gradients: output_gradients.each_mut().map(|slots| slots.next().unwrap_or_default()),
            inputs: inputs.each_mut().map(|slots| slots.next().unwrap_or_default()),
        };
        groups.iter().map(slots).collect()
    }

    /// Computes the gradients of the weights (or scores) and biases of a layer's linear layers, where trainable.
    pub(crate) fn weight_gradients(
        &self,
        model: &Model,
        layer: &Layer,
        paths: &[GradientPath<'_>; LINEARS],
        saved: &SavedLayer,
        pass: Pass<'_>,
        grads: &mut Grads,
    ) {
        let saved = saved_inputs(saved);
        let trained = (0..LINEARS).filter(|&i| !matches!(paths[i], GradientPath::None));
        let mut jobs: Vec<_> = trained
            .map(|i| {
                let dense = layer.dense()[i];
                let (dy, x) = (&self.output_gradients[i], &self.inputs[INPUT_OF[i]]);
                let factors = Factors { dy, x, saved_x: saved[INPUT_OF[i]] };
                (paths[i], dense, factors, grads.take(dense.weight), grads.take(dense.bias))
            })
            .collect();
        // In parallel: the last parts of a single gradient would leave threads idle.
        jobs.par_iter_mut().with_max_len(1).for_each(|(path, dense, factors, weight, bias)| match path {
            GradientPath::Sparse(matrix) => factors.sparse_gradients(model, *dense, matrix, weight, bias),
            _ => factors.dense_gradients(model, *dense, pass, weight, bias),
        });
        for (.., weight, bias) in jobs {
            [weight, bias].into_iter().flatten().for_each(|owned| grads.restore(owned));
        }
    }
}

/// The factors of one weight gradient.
struct Factors<'a> {
    dy: &'a FactorBuffer,
    /// `x` from the backward pass.
    x: &'a FactorBuffer,
    /// `x` from the forward pass.
    saved_x: Option<&'a FactorBuffer>,
}

impl Factors<'_> {
    /// `dW = dyᵀ x` by the dense kernel, and `db`, the column sums of `dy`.
    fn dense_gradients(
        &self,
        model: &Model,
        dense: Dense,
        pass: Pass<'_>,
        weight: &mut Option<OwnedGradient>,
        bias: &mut Option<OwnedGradient>,
    ) {
        let dy = self.dy.packed().expect("`begin` has dy packed for this path");
        if let Some(OwnedGradient { gradient, mode, kind, .. }) = weight {
            let x = self.saved_x.and_then(FactorBuffer::packed).or(self.x.packed());
            let x = x.expect("`begin` has x packed for this path");
            let epilogue = epilogue(*kind, dense.weight, &model.params, pass.masks);
            match gradient {
                Gradient::All(slot) => linear::weight_gradient(dy, x, epilogue, slot, *mode),
                Gradient::Bf16(slot) => linear::weight_gradient_bf16(dy, x, epilogue, slot, *mode),
                Gradient::Rows(_) => unreachable!("only word embeddings have rows"),
            }
        }
        if let Some(OwnedGradient { gradient, mode, .. }) = bias {
            linear::bias_gradient(dy, gradient.values_mut(), *mode);
        }
    }

    /// `dW ∘ B = (dyᵀ x) ∘ B` by the sparse kernel, and `db`.
    fn sparse_gradients(
        &self,
        model: &Model,
        dense: Dense,
        matrix: &SparseWeight,
        weight: &mut Option<OwnedGradient>,
        bias: &mut Option<OwnedGradient>,
    ) {
        let x = self.saved_x.and_then(FactorBuffer::panels).or(self.x.panels());
        let (dy, x) = self.dy.panels().zip(x).expect("`begin` has dy and x in panels for this path");
        let Some(weight) = weight else { return };
        let is_compact = matches!(model.params.weight(dense.weight, None), tamt_kernels::masks::WeightRef::Compact(_));
        let layout = if is_compact { GradLayout::Survivors } else { GradLayout::Dense };
        let bias = bias.as_mut().map(|OwnedGradient { gradient, mode, .. }| (gradient.values_mut(), *mode));
        sparse::backward_weight_and_bias(dy, x, matrix, layout, (weight.gradient.values_mut(), weight.mode), bias);
    }
}
