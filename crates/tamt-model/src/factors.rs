//! What gradients of a layer's weights are made of: the gradients of its maps' outputs and their inputs, left by the jobs of the
//! backward pass as the product of each reads them.

use tamt_kernels::Precision;
use tamt_kernels::linear::{self, Factor, PackedTokens, TokensPart};

use crate::activations::{LayerActs, LayerPart, Rows};
use crate::batch::Group;
use crate::encoder::Pass;
use crate::grads::{GradKind, Gradient, Grads, epilogue};
use crate::linear_maps::MapBuffers;
use crate::model::{Dense, Model};

/// Maps of a layer, in the order of [`crate::model::Layer::dense`].
pub(crate) const MAPS: usize = 6;
pub(crate) const QUERY: usize = 0;
pub(crate) const KEY: usize = 1;
pub(crate) const VALUE: usize = 2;
pub(crate) const ATTENTION_OUTPUT: usize = 3;
pub(crate) const INTERMEDIATE: usize = 4;
pub(crate) const OUTPUT: usize = 5;

/// Which input a map has: the layer's, the context, attention's output or the FFN after the activation.
const INPUT_OF: [usize; MAPS] = [0, 0, 0, 1, 2, 3];
pub(crate) const FFN_INPUT: usize = 3;

/// How the gradients of a map's weight and bias are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Made {
    /// Neither is trained.
    #[default]
    Not,
    /// The bias's alone, by the dense kernel's factors.
    Bias,
    /// Both by the dense kernel's factors.
    Dense,
    /// By the sparse kernel, from rows in f32.
    Sparse,
}

/// One factor of weight gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct FactorBuffer {
    packed: PackedTokens,
    rows: Vec<f32>,
}

impl FactorBuffer {
    /// Begins a factor `[T, width]`: a part for each group, to be packed in a precision, left in rows, both or neither.
    pub(crate) fn parts(
        &mut self,
        factor: Factor,
        width: usize,
        groups: &[Group],
        packed: Option<Precision>,
        rows: bool,
    ) -> std::vec::IntoIter<FactorPart<'_>> {
        let tokens = groups.iter().map(|group| group.tokens.len());
        let panels = packed.map(|precision| self.packed.parts(factor, width, tokens.clone(), precision));
        let mut panels = panels.unwrap_or_default().into_iter();
        self.rows.resize(if rows { tokens.clone().sum::<usize>() * width } else { 0 }, 0.0);
        let mut floats = Rows::new(&mut self.rows, width);
        let part = |tokens| FactorPart { packed: panels.next(), rows: rows.then(|| floats.take(tokens)) };
        tokens.map(part).collect::<Vec<_>>().into_iter()
    }

    /// The rows, if it was left in rows.
    pub(crate) fn rows(&self) -> Option<&[f32]> {
        (!self.rows.is_empty()).then_some(&self.rows)
    }
}

/// Factors of the weight gradients of a layer.
#[derive(Debug, Default)]
pub(crate) struct LayerFactors {
    made: [Made; MAPS],
    output_gradients: [FactorBuffer; MAPS],
    inputs: [FactorBuffer; MAPS - 2],
}

/// A group's part of a factor, as far as it is wanted.
#[derive(Debug, Default)]
pub(crate) struct FactorPart<'a> {
    pub(crate) packed: Option<TokensPart<'a>>,
    rows: Option<&'a mut [f32]>,
}

impl FactorPart<'_> {
    /// Leaves the group's rows.
    pub(crate) fn put(&mut self, x: &[f32]) {
        if let Some(packed) = &mut self.packed {
            packed.pack(x);
        }
        if let Some(rows) = &mut self.rows {
            rows.copy_from_slice(x);
        }
    }
}

/// A group's parts of the factors of a layer.
#[derive(Debug)]
pub(crate) struct FactorParts<'a> {
    /// Gradients of the outputs of the layer's maps.
    pub(crate) output_gradients: [FactorPart<'a>; MAPS],
    /// Inputs of its maps.
    pub(crate) inputs: [FactorPart<'a>; MAPS - 2],
}

impl FactorParts<'_> {
    /// Packs the inputs that the forward pass kept in rows, as far as they are wanted so; `input` is the layer's.
    pub(crate) fn put_kept(&mut self, input: &[f32], kept: &LayerPart<'_>) {
        for (part, x) in self.inputs.iter_mut().zip([Some(input), kept.context, kept.attention_output]) {
            if let Some(x) = x {
                part.put(x);
            }
        }
    }
}

impl LayerFactors {
    /// Begins a layer's factors, and gives each group its parts.
    pub(crate) fn parts(
        &mut self,
        model: &Model,
        layer: usize,
        kept: &LayerActs,
        groups: &[Group],
        pass: Pass<'_>,
        grads: &Grads,
        precision: Precision,
    ) -> Vec<FactorParts<'_>> {
        let maps = model.layers[layer].dense();
        self.made = maps.map(|dense| match (grads.kind(dense.weight), grads.wants(dense.bias)) {
            (Some(kind), _) if kind != GradKind::Score && pass.is_sparse(dense) => Made::Sparse,
            (Some(_), _) => Made::Dense,
            (None, true) => Made::Bias,
            (None, false) => Made::Not,
        });
        let of_map = |wanted: Made, input: usize| (0..MAPS).any(|i| INPUT_OF[i] == input && self.made[i] == wanted);
        // what the forward pass packed is there, and so are rows of all inputs but the FFN's
        let is_packed = [None, Some(&kept.context), Some(&kept.attention_output), None]
            .map(|input| input.is_some_and(|input| input.rows().is_none()));
        let inputs: [_; MAPS - 2] = std::array::from_fn(|i| {
            (of_map(Made::Dense, i) && !is_packed[i], of_map(Made::Sparse, i) && i == FFN_INPUT)
        });
        let shape = |dense: Dense| model.params.matrix_shape(dense.weight);
        let mut index = 0;
        let mut output_gradients = self.output_gradients.each_mut().map(|buffer| {
            let (made, width) = (self.made[index], shape(maps[index])[0]);
            index += 1;
            let packed = matches!(made, Made::Dense | Made::Bias);
            buffer.parts(Factor::OutputGradient, width, groups, packed.then_some(precision), made == Made::Sparse)
        });
        let mut index = 0;
        let mut input_parts = self.inputs.each_mut().map(|buffer| {
            let (packed, rows) = inputs[index];
            let map = INPUT_OF.iter().position(|&input| input == index).expect("each input is a map's");
            index += 1;
            buffer.parts(Factor::Input, shape(maps[map])[1], groups, packed.then_some(precision), rows)
        });
        let part = |_| FactorParts {
            output_gradients: output_gradients.each_mut().map(|parts| parts.next().expect("a part for each group")),
            inputs: input_parts.each_mut().map(|parts| parts.next().expect("a part for each group")),
        };
        groups.iter().map(part).collect()
    }
}

impl Model {
    /// Gradients of the weights (or scores) and biases of a layer's maps, where they are trainable, from the factors that were
    /// left, the layer's `input` and what the forward pass `kept`, of all tokens.
    pub(crate) fn weight_gradients(
        &self,
        layer: usize,
        factors: &LayerFactors,
        input: &[f32],
        kept: &LayerActs,
        pass: Pass<'_>,
        grads: &mut Grads,
        buffers: &mut MapBuffers<'_>,
    ) {
        // Q, K and V share theirs
        let mut sparse_input = None;
        for (i, dense) in self.layers[layer].dense().into_iter().enumerate() {
            let (dy, x) = (&factors.output_gradients[i], &factors.inputs[INPUT_OF[i]]);
            let kept = [None, Some(&kept.context), Some(&kept.attention_output), None][INPUT_OF[i]];
            match factors.made[i] {
                Made::Not => {}
                Made::Sparse => {
                    if sparse_input.replace(INPUT_OF[i]) != Some(INPUT_OF[i]) {
                        let rows = match (INPUT_OF[i], kept) {
                            (FFN_INPUT, _) => &x.rows,
                            (_, Some(kept)) => &*kept.rows,
                            (_, None) => input,
                        };
                        buffers.sparse.input.pack(rows, self.params.matrix_shape(dense.weight)[1]);
                    }
                    self.sparse_weight_gradients(dense, &dy.rows, pass, grads, buffers);
                }
                Made::Dense | Made::Bias => {
                    if let Some((gradient, mode, kind)) = grads.gradient(dense.weight) {
                        let epilogue = epilogue(kind, self.params.weight(dense.weight, pass.masks));
                        let x = kept.filter(|kept| kept.rows().is_none()).unwrap_or(x);
                        let (dy, x) = (&dy.packed, &x.packed);
                        match gradient {
                            Gradient::All(slot) => linear::weight_gradient(dy, x, epilogue, slot, mode),
                            Gradient::Rounded(slot) => linear::weight_gradient_rounded(dy, x, epilogue, slot, mode),
                            Gradient::Rows(_) => unreachable!("no table"),
                        }
                    }
                    if let Some((slot, mode, _)) = grads.slot(dense.bias) {
                        linear::bias_gradient(&dy.packed, slot, mode);
                    }
                }
            }
        }
    }
}
