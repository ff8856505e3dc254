//! What gradients of a layer's weights are made of: the gradients of its maps' outputs and their inputs, left by the jobs of the
//! backward pass as the product of each reads them.

use rayon::prelude::*;
use tamt_kernels::Precision;
use tamt_kernels::linear;
use tamt_kernels::linear::{Factor, PackedFactor, PackedFactorPart};
use tamt_kernels::sparse::{TokenPanels, TokenPanelsPart, TokenPanelsView};

use crate::batch::Group;
use crate::encoder::Pass;
use crate::grads::{GradKind, Gradient, Grads, Taken, epilogue};
use crate::kept::{LayerActs, LayerPart};
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
    /// By the sparse kernel, from panels in f32.
    Sparse,
}

/// One factor of weight gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct FactorBuffer {
    packed: PackedFactor,
    panels: TokenPanels,
    /// Whether it was last packed, and whether it was left in panels.
    is_packed: bool,
    in_panels: bool,
}

impl FactorBuffer {
    /// Begins a factor `[T, width]`: a part for each group, to be packed for the dense kernel in a precision, for the sparse one in
    /// panels, for both or neither.
    pub(crate) fn parts(
        &mut self,
        factor: Factor,
        width: usize,
        groups: &[Group],
        packed: Option<Precision>,
        panels: bool,
    ) -> std::vec::IntoIter<FactorPart<'_>> {
        let tokens = groups.iter().map(|group| group.tokens.len());
        (self.is_packed, self.in_panels) = (packed.is_some(), panels);
        let packed = packed.map(|precision| self.packed.parts(factor, width, tokens.clone(), precision));
        let mut packed = packed.unwrap_or_default().into_iter();
        let panels = panels.then(|| self.panels.parts(width, tokens.clone()));
        let mut panels = panels.unwrap_or_default().into_iter();
        let part = |_| FactorPart { packed: packed.next(), panels: panels.next() };
        groups.iter().map(part).collect::<Vec<_>>().into_iter()
    }

    /// What was packed, if it was.
    fn packed(&self) -> Option<&PackedFactor> {
        self.is_packed.then_some(&self.packed)
    }

    /// The panels, if it was left in panels.
    pub(crate) fn panels(&self) -> Option<&TokenPanels> {
        self.in_panels.then_some(&self.panels)
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
    pub(crate) packed: Option<PackedFactorPart<'a>>,
    pub(crate) panels: Option<TokenPanelsPart<'a>>,
}

impl FactorPart<'_> {
    /// Packs what is in panels already for the dense kernel, if that is wanted; `buffer` is for its rows.
    pub(crate) fn put_panels(&mut self, panels: TokenPanelsView<'_>, buffer: &mut Vec<f32>) {
        if let Some(packed) = &mut self.packed {
            buffer.resize(panels.tokens() * panels.cols(), 0.0);
            panels.unpack(buffer);
            packed.pack(buffer);
        }
    }

    /// Leaves the group's rows.
    pub(crate) fn put(&mut self, x: &[f32]) {
        if let Some(packed) = &mut self.packed {
            packed.pack(x);
        }
        if let Some(panels) = &mut self.panels {
            panels.pack(x);
        }
    }

    /// What was left in panels.
    pub(crate) fn view(&self) -> Option<TokenPanelsView<'_>> {
        self.panels.as_ref().map(TokenPanelsPart::view)
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
    /// Packs the layer's `input`, and the inputs that the forward pass kept in panels, as far as they are wanted so; `buffer` is for
    /// their rows.
    pub(crate) fn put_kept(&mut self, input: &[f32], kept: &LayerPart<'_>, buffer: &mut Vec<f32>) {
        let [of_projections, of_context, of_ffn, _] = &mut self.inputs;
        of_projections.put(input);
        for (part, kept) in [(of_context, kept.context), (of_ffn, kept.attention_output)] {
            if let Some(kept) = kept {
                part.put_panels(kept, buffer);
            }
        }
    }
}

/// What the forward pass left of each input.
fn kept_inputs(kept: &LayerActs) -> [Option<&FactorBuffer>; MAPS - 2] {
    [Some(&kept.input), Some(&kept.context), Some(&kept.attention_output), None]
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
            (Some(kind), _) if kind != GradKind::Score && pass.has_sparse_gradient(dense) => Made::Sparse,
            (Some(_), _) => Made::Dense,
            (None, true) => Made::Bias,
            (None, false) => Made::Not,
        });
        let of_map = |wanted: Made, input: usize| (0..MAPS).any(|i| INPUT_OF[i] == input && self.made[i] == wanted);
        // what the forward pass packed is there, and so are panels of all inputs but the FFN's
        let is_packed = kept_inputs(kept).map(|input| input.is_some_and(|input| input.is_packed));
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
            let (packed, panels) = inputs[index];
            let map = INPUT_OF.iter().position(|&input| input == index).expect("each input is a map's");
            index += 1;
            buffer.parts(Factor::Input, shape(maps[map])[1], groups, packed.then_some(precision), panels)
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
    /// left and what the forward pass `kept`.
    pub(crate) fn weight_gradients(
        &self,
        layer: usize,
        factors: &LayerFactors,
        kept: &LayerActs,
        pass: Pass<'_>,
        grads: &mut Grads,
    ) {
        // side by side: one alone has too few parts for an even end
        let maps = self.layers[layer].dense().into_iter().enumerate();
        let mut gradients: Vec<_> = maps
            .filter(|&(i, _)| factors.made[i] != Made::Not)
            .map(|(i, dense)| (i, dense, grads.take(dense.weight), grads.take(dense.bias)))
            .collect();
        gradients.par_iter_mut().with_max_len(1).for_each(|(i, dense, weight, bias)| {
            let (dy, x) = (&factors.output_gradients[*i], &factors.inputs[INPUT_OF[*i]]);
            let kept = kept_inputs(kept)[INPUT_OF[*i]];
            if factors.made[*i] == Made::Sparse {
                return self.sparse_weight_gradients(*dense, &dy.panels, &kept.unwrap_or(x).panels, pass, weight, bias);
            }
            if let Some(Taken { gradient, mode, kind, .. }) = weight {
                let epilogue = epilogue(*kind, dense.weight, &self.params, pass.masks);
                let (dy, x) = (&dy.packed, kept.and_then(FactorBuffer::packed).unwrap_or(&x.packed));
                match gradient {
                    Gradient::All(slot) => linear::weight_gradient(dy, x, epilogue, slot, *mode),
                    Gradient::Bf16(slot) => linear::weight_gradient_bf16(dy, x, epilogue, slot, *mode),
                    Gradient::Rows(_) => unreachable!("no table"),
                }
            }
            if let Some(Taken { gradient, mode, .. }) = bias {
                linear::bias_gradient(&dy.packed, gradient.values_mut(), *mode);
            }
        });
        for (_, _, weight, bias) in gradients {
            [weight, bias].into_iter().flatten().for_each(|taken| grads.put_back(taken));
        }
    }
}
