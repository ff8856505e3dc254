//! Forward products: `y = x (W ∘ B)ᵀ + b`.

use half::bf16;
use std::ops::Range;

use crate::base::{AlignedBuffer, Precision, Scratch, Shared, ValuesMut, round};
use crate::gemm::{Init, Operand, Order, Panels, RightOperand, Strip, row_product};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::rounded::StoreRounded;
use crate::linear::packed_input::PackedInput;
use crate::linear::packed_weight::WeightOperand;
use crate::linear::portions::{for_each_portion, row_count};
use crate::masks::WeightRef;

/// `y = x (W ∘ B)ᵀ + b`: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]`.
pub fn forward<'a>(x: &[f32], w: impl Into<WeightRef<'a>>, bias: Option<&[f32]>, y: &mut [f32], scratch: &mut Scratch) {
    forward_each(x, [Projection { weight: WeightOperand::Plain(w.into()), bias, output: y.into() }], scratch);
}

/// One of the layers that [`forward_each`] applies to the same input.
#[derive(Debug)]
pub struct Projection<'a> {
    /// `W` and `B`, `[rows, cols]`
    pub weight: WeightOperand<'a>,
    /// `b`, `[rows]`
    pub bias: Option<&'a [f32]>,
    /// `y`, `[T, rows]`
    pub output: ValuesMut<'a>,
}

/// [`forward`] of several layers with the same input (Q, K and V), which is packed once. The first layer has rows.
pub fn forward_each<const N: usize>(x: &[f32], mut layers: [Projection<'_>; N], scratch: &mut Scratch) {
    let precision = scratch.precision;
    let tokens = check_layers(&layers, precision);
    let cols = layers[0].weight.shape().1;
    assert_eq!(x.len(), tokens * cols, "input of as many rows as the output");
    let x = Operand { precision, ..Operand::new(x, cols, Order::LaneRows) };
    for_each_portion(&x, tokens, cols, &mut scratch.floats, |part, lhs| {
        for layer in &mut layers {
            project(layer, part.clone(), lhs, &mut scratch.panels);
        }
    });
}

/// [`forward_each`] of a packed input.
pub fn forward_packed<const N: usize>(x: &PackedInput, mut layers: [Projection<'_>; N], scratch: &mut Scratch) {
    let tokens = check_layers(&layers, x.precision);
    assert_eq!(scratch.precision, x.precision, "an input packed in the precision of the product");
    assert_eq!((x.rows, x.cols), (tokens, layers[0].weight.shape().1), "input of as many rows as the output");
    for layer in &mut layers {
        project(layer, 0..tokens, x.panels(), &mut scratch.panels);
    }
}

/// Checks the shapes of layers with one input; returns the number of tokens.
fn check_layers(layers: &[Projection<'_>], precision: Precision) -> usize {
    let (rows, cols) = layers[0].weight.shape();
    let tokens = row_count(layers[0].output.len(), rows, "output");
    for Projection { weight, bias, output } in layers {
        weight.assert_valid(precision);
        assert_eq!(weight.shape().1, cols, "layers of the same input");
        assert_eq!(output.len(), tokens * weight.shape().0, "outputs of as many rows");
        assert!(bias.is_none_or(|bias| bias.len() == weight.shape().0), "a bias per output feature");
    }
    tokens
}

/// Rows `part` of a layer's output; `lhs` has the same rows of the input.
fn project(layer: &mut Projection<'_>, part: Range<usize>, lhs: Panels<'_>, buffer: &mut AlignedBuffer) {
    let Projection { weight, bias, output } = layer;
    let (mut rhs, bias, rows) = (weight.rhs(lhs.precision, buffer), *bias, weight.shape().0);
    match output {
        ValuesMut::F32(y) => row_product(rows, part, lhs, &mut rhs, y, |strip| {
            strip.multiply(strip_bias(bias, &strip).map_or(Init::Zero, Init::Bias));
        }),
        ValuesMut::Bf16(y) => bf16_product(rows, part, lhs, &mut rhs, bias, y),
    }
}

/// The elements of a bias for the columns of a strip.
fn strip_bias<'a>(bias: Option<&'a [f32]>, strip: &Strip<'_>) -> Option<&'a [f32]> {
    bias.map(|bias| &bias[strip.col..strip.col + strip.cols])
}

/// Rows `part` of an output `y` `[T, n]`, summed in f32 and rounded to bf16.
fn bf16_product(
    n: usize,
    part: Range<usize>,
    lhs: Panels<'_>,
    rhs: &mut RightOperand<'_>,
    bias: Option<&[f32]>,
    y: &mut [bf16],
) {
    let y = Shared::new(y);
    row_product(n, part, lhs, rhs, &mut [], |mut strip| {
        let bias = strip_bias(bias, &strip);
        let (row, col, cols) = (strip.row, strip.col, strip.cols);
        #[cfg(target_arch = "x86_64")]
        if lhs.precision.packs_bf16() {
            let mut epilogue = StoreRounded { out: y, stride: n, first: (row, col), bias };
            // SAFETY: AVX-512-BF16 is present: `packs_bf16` returned true. `bias` has the strip's columns:
            // `strip_bias`. Only this job writes the strip's elements of `y`: the strips of `row_product` are disjoint.
            return unsafe { strip.multiply_tiles(&mut epilogue) };
        }
        strip.multiply_to_buffer(bias.map_or(Init::Zero, Init::Bias), |_, first, block| {
            for (i, values) in (row + first..).zip(block.chunks_exact(cols)) {
                let at = i * n + col;
                // SAFETY: only this job accesses the strip's elements of `y`: the strips of `row_product` are disjoint.
                round(values, unsafe { y.part(at..at + cols) });
            }
        });
    });
}
