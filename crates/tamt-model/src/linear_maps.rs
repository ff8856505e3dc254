//! Linear maps of a layer, forward and backward, by the dense or the sparse kernel as the pass says.

use tamt_kernels::ValuesMut;
use tamt_kernels::linear::WeightOperand;
use tamt_kernels::sparse;
use tamt_kernels::sparse::{GradLayout, SparseWeight, TokenPanels, TokenPanelsView};
use tamt_kernels::{Scratch, Write, linear};

use crate::encoder::Pass;
use crate::grads::{GradKind, Grads, Taken, epilogue};
use crate::model::{Dense, Layer, Model};
use crate::prepared::SparseBuffers;

/// What the maps of a layer work in.
pub(crate) struct MapBuffers<'a> {
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) sparse: &'a mut SparseBuffers,
}

/// In what shape an FFN's inner activations are.
#[derive(Clone, Copy)]
pub(crate) enum FfnLayout {
    /// Both maps are dense: packed for the next one, and kept as [`linear::forward_activated`] keeps them.
    Packed,
    /// One map is sparse.
    Rows,
    /// Both are sparse: from one product to the next in panels, which activation functions do not see.
    Panels,
}

impl<'a> Pass<'a> {
    /// The matrix as the sparse kernel reads it, where that is to multiply by it.
    pub(crate) fn sparse(&self, dense: Dense) -> Option<&'a SparseWeight> {
        let weight = self.prepared?.sparse(dense.weight).or_else(|| self.made?.sparse(dense.weight))?;
        debug_assert!(
            self.masks.and_then(|masks| masks.get(dense.weight)).is_none_or(|mask| mask == weight.mask()),
            "sparse weights that followed their mask"
        );
        Some(weight)
    }

    /// How the FFN of a layer is computed.
    pub(crate) fn ffn_layout(&self, layer: &Layer) -> FfnLayout {
        match [layer.intermediate, layer.output].map(|dense| self.is_sparse(dense)) {
            [false, false] => FfnLayout::Packed,
            [true, true] => FfnLayout::Panels,
            _ => FfnLayout::Rows,
        }
    }

    /// Both matrices of an FFN in [`FfnLayout::Panels`].
    pub(crate) fn both_sparse(&self, layer: &Layer) -> [&'a SparseWeight; 2] {
        [layer.intermediate, layer.output].map(|dense| self.sparse(dense).expect("a matrix that is ready"))
    }

    /// Whether no matrix of the layers has to be packed for a forward pass.
    pub(crate) fn has_all_prepared(&self, model: &Model) -> bool {
        self.prepared.is_some_and(|prepared| model.layer_matrices().all(|id| prepared.has(id)))
    }

    /// Whether the sparse kernel is to multiply by the matrix.
    pub(crate) fn is_sparse(&self, dense: Dense) -> bool {
        self.prepared.is_some_and(|prepared| prepared.is_sparse(dense.weight))
    }

    /// Whether the sparse kernel is to make the gradient of the matrix, and to read its factors in panels: of scores the dense one
    /// makes it.
    pub(crate) fn has_sparse_gradient(&self, dense: Dense) -> bool {
        self.prepared.is_some_and(|prepared| prepared.sparse(dense.weight).is_some())
    }
}

impl Model {
    /// The matrix as the dense kernel is to read it.
    pub(crate) fn matrix<'a>(&'a self, dense: Dense, pass: Pass<'a>) -> WeightOperand<'a> {
        let prepared = pass.prepared.and_then(|prepared| prepared.dense(dense.weight));
        match prepared.or_else(|| pass.made?.packed(dense.weight)) {
            Some(packed) => WeightOperand::Packed(packed),
            None => WeightOperand::Plain(self.params.weight(dense.weight, pass.masks)),
        }
    }

    /// Applies maps to one input: `y = x (W ∘ B)ᵀ + b` for each; `panels` are the input's, where it is in panels already. A sparse map's
    /// output is in f32.
    pub(crate) fn maps_forward<const N: usize>(
        &self,
        x: &[f32],
        panels: Option<TokenPanelsView<'_>>,
        maps: [(Dense, ValuesMut<'_>); N],
        pass: Pass<'_>,
        buffers: &mut MapBuffers<'_>,
    ) {
        let MapBuffers { scratch, sparse } = buffers;
        let bias = |dense: Dense| Some(self.params.get(dense.bias));
        if maps.iter().all(|(dense, _)| !pass.is_sparse(*dense)) {
            let layers = maps.map(|(dense, output)| linear::Projection {
                weight: self.matrix(dense, pass),
                bias: bias(dense),
                output,
            });
            return linear::forward_each(x, layers, scratch);
        }
        let panels = panels.unwrap_or_else(|| sparse.input.pack(x, self.params.matrix_shape(maps[0].0.weight)[1]));
        for (dense, output) in maps {
            match (pass.sparse(dense), output) {
                (Some(weight), ValuesMut::F32(y)) => sparse::forward(panels, weight, bias(dense), y),
                (Some(_), ValuesMut::Bf16(_)) => unreachable!("outputs of sparse maps are in f32"),
                (None, output) => {
                    let layer = linear::Projection { weight: self.matrix(dense, pass), bias: bias(dense), output };
                    linear::forward_each(x, [layer], scratch);
                }
            }
        }
    }

    /// `dx (+)= dy (W ∘ B)` of a layer whose matrices are packed for input gradients; `panels` as in [`Model::maps_forward`].
    pub(crate) fn map_input_gradient(
        &self,
        dense: Dense,
        dy: &[f32],
        panels: Option<TokenPanelsView<'_>>,
        dx: &mut [f32],
        mode: Write,
        pass: Pass<'_>,
        buffers: &mut MapBuffers<'_>,
    ) {
        let MapBuffers { scratch, sparse } = buffers;
        if let Some(weight) = pass.sparse(dense) {
            let panels = panels.unwrap_or_else(|| sparse.gradient.pack(dy, weight.rows()));
            sparse::backward_input(panels, weight, dx, mode);
        } else if let Some(packed) = pass.made.and_then(|made| made.packed(dense.weight)) {
            linear::backward_input_packed(dy, packed, dx, mode, scratch);
        } else {
            linear::backward_input(dy, self.params.weight(dense.weight, pass.masks), dx, mode, scratch);
        }
    }

    /// Gradients by the sparse kernel of a map's weights and of its bias, from those of its output and from its input.
    pub(crate) fn sparse_weight_gradients(
        &self,
        dense: Dense,
        dy: &TokenPanels,
        x: &TokenPanels,
        pass: Pass<'_>,
        weight: &mut Option<Taken>,
        bias: &mut Option<Taken>,
    ) {
        let bias = bias.as_mut().map(|Taken { gradient, mode, .. }| (gradient.values_mut(), *mode));
        if let (Some(matrix), Some(Taken { gradient, mode, kind, .. })) = (pass.sparse(dense), weight) {
            let layout = if *kind == GradKind::Survivors { GradLayout::Survivors } else { GradLayout::Dense };
            sparse::backward_weight_and_bias(dy, x, matrix, layout, (gradient.values_mut(), *mode), bias);
        } else if let Some((bias, mode)) = bias {
            sparse::bias_gradient(dy, bias, mode);
        }
    }

    /// Applies a map of a head.
    pub(crate) fn dense_forward(&self, dense: Dense, x: &[f32], pass: Pass<'_>, y: &mut [f32], scratch: &mut Scratch) {
        let bias = self.params.get(dense.bias);
        linear::forward(x, self.params.weight(dense.weight, pass.masks), Some(bias), y, scratch);
    }

    /// Gradients of the weight (or score) and bias of a map of a head, where they are trainable.
    pub(crate) fn dense_grads(
        &self,
        dense: Dense,
        dy: &[f32],
        x: &[f32],
        pass: Pass<'_>,
        grads: &mut Grads,
        scratch: &mut Scratch,
    ) {
        if let Some((slot, mode, kind)) = grads.slot(dense.weight) {
            let [rows, cols] = self.params.matrix_shape(dense.weight);
            let epilogue = epilogue(kind, dense.weight, &self.params, pass.masks);
            linear::backward_weight(dy, x, rows, cols, epilogue, slot, mode, scratch);
        }
        if let Some((slot, mode, _)) = grads.slot(dense.bias) {
            linear::backward_bias(dy, slot, mode, scratch);
        }
    }
}
