use half::bf16;
use std::ops::Range;

use crate::base::buffer::AlignedBuffer;
use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::base::scratch::Scratch;
use crate::base::values::{ValuesMut, round};
use crate::gemm::block::Init;
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::Panels;
use crate::gemm::product::{RightOperand, Strip, each_strip, row_product};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::rounded::Rounded;
use crate::linear::packed_input::PackedInput;
use crate::linear::packed_weight::WeightOperand;
use crate::linear::portions::{each_portion, rows_of};
use crate::masks::weight::WeightRef;

/// `y = x (W ∘ B)ᵀ + b`: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]`.
pub fn forward<'a>(x: &[f32], w: impl Into<WeightRef<'a>>, bias: Option<&[f32]>, y: &mut [f32], scratch: &mut Scratch) {
    forward_each(x, [Projection { weight: WeightOperand::Plain(w.into()), bias, output: y.into() }], scratch);
}

/// A layer of several that [`forward_each`] applies to one input.
#[derive(Debug)]
pub struct Projection<'a> {
    /// `W` and `B`, `[rows, cols]`
    pub weight: WeightOperand<'a>,
    /// `b`, `[rows]`
    pub bias: Option<&'a [f32]>,
    /// `y`, `[T, rows]`
    pub output: ValuesMut<'a>,
}

/// [`forward`] of layers with the same input (Q, K and V), which is packed once. At least one of them has rows.
pub fn forward_each<const N: usize>(x: &[f32], mut layers: [Projection<'_>; N], scratch: &mut Scratch) {
    let precision = scratch.precision;
    let tokens = check_layers(&layers, precision);
    let cols = layers[0].weight.shape().1;
    assert_eq!(x.len(), tokens * cols, "input of as many rows as the output");
    let x = Operand { precision, ..Operand::new(x, cols, Order::LaneRows) };
    each_portion(&x, tokens, cols, &mut scratch.floats, |part, lhs| {
        for layer in &mut layers {
            apply(layer, part.clone(), lhs, &mut scratch.panels);
        }
    });
}

/// Checks that layers of one input fit each other; returns the rows of their outputs.
fn check_layers(layers: &[Projection<'_>], precision: Precision) -> usize {
    let (rows, cols) = layers[0].weight.shape();
    let tokens = rows_of(layers[0].output.len(), rows, "output");
    for Projection { weight, bias, output } in layers {
        weight.assert_valid(precision);
        assert_eq!(weight.shape().1, cols, "layers of the same input");
        assert_eq!(output.len(), tokens * weight.shape().0, "outputs of as many rows");
        assert!(bias.is_none_or(|bias| bias.len() == weight.shape().0), "a bias per output feature");
    }
    tokens
}

/// Rows `part` of a layer's output, from those of its input.
fn apply(layer: &mut Projection<'_>, part: Range<usize>, lhs: Panels<'_>, buffer: &mut AlignedBuffer) {
    let Projection { weight, bias, output } = layer;
    let (mut rhs, bias, rows) = (weight.rhs(lhs.precision(), buffer), *bias, weight.shape().0);
    match output {
        ValuesMut::F32(y) => row_product(rows, part, lhs, &mut rhs, y, |strip| {
            strip.multiply(bias_of(bias, &strip).map_or(Init::Zero, Init::Bias));
        }),
        ValuesMut::Bf16(y) => rounded_product(rows, part, lhs, &mut rhs, bias, y),
    }
}

/// A strip's part of a bias.
fn bias_of<'a>(bias: Option<&'a [f32]>, strip: &Strip<'_>) -> Option<&'a [f32]> {
    bias.map(|bias| &bias[strip.col..strip.col + strip.cols])
}

/// Rows `part` of a layer's output `[T, n]`, rounded.
fn rounded_product(
    n: usize,
    part: Range<usize>,
    lhs: Panels<'_>,
    rhs: &mut RightOperand<'_>,
    bias: Option<&[f32]>,
    y: &mut [bf16],
) {
    let (y, nothing) = (Shared::new(y), Shared::new(&mut []));
    each_strip(n, part, lhs, rhs, &nothing, |mut strip| {
        let bias = bias_of(bias, &strip);
        let (row, col, cols) = (strip.row, strip.col, strip.cols);
        #[cfg(target_arch = "x86_64")]
        if lhs.precision().packs_bf16() {
            let mut finish = Rounded { out: y, stride: n, first: (row, col), bias };
            // SAFETY: the strips of a product are disjoint.
            #[allow(unsafe_code)]
            return unsafe { strip.finish(&mut finish) };
        }
        strip.multiply_to_buffer(bias.map_or(Init::Zero, Init::Bias), |_, first, block| {
            for (i, values) in (row + first..).zip(block.chunks_exact(cols)) {
                let at = i * n + col;
                // SAFETY: the strips of a product are disjoint.
                #[allow(unsafe_code)]
                round(values, unsafe { y.part(at..at + cols) });
            }
        });
    });
}

/// [`super::forward_each`] of an input that is packed already.
pub fn forward_packed<const N: usize>(x: &PackedInput, mut layers: [Projection<'_>; N], scratch: &mut Scratch) {
    let tokens = check_layers(&layers, x.precision);
    assert_eq!(scratch.precision, x.precision, "an input packed in the precision of the product");
    assert_eq!((x.rows, x.cols), (tokens, layers[0].weight.shape().1), "input of as many rows as the output");
    for layer in &mut layers {
        apply(layer, 0..tokens, x.panels(), &mut scratch.panels);
    }
}
