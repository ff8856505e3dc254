//! Products of packed operands, and the fused FFN, have the results of the separate steps.

use half::bf16;

use crate::base::{Number, Precision, Scratch, Write};
use crate::linear::ffn::{ActivatedGradient, backward_activated, forward_activated};
use crate::linear::forward::{Projection, forward, forward_each, forward_packed};
use crate::linear::input_gradient::{backward_input_packed, backward_input_rows};
use crate::linear::packed_factor::{Factor, PackedFactor};
use crate::linear::packed_input::PackedInput;
use crate::linear::packed_weight::{PackedFor, PackedWeight, WeightOperand};
use crate::linear::saved_input::saved_width;
use crate::linear::weight_gradient::{backward_weight, weight_gradient};
use crate::masks::{GradEpilogue, Weight};
use crate::ops::activation;
use crate::ops::activation::functions::Activation;
use crate::reference::{random, rounded, unless_miri};

/// A packed weight gives the bits `y` of [`forward`], and packed activations give the bits of the next layer's
/// [`forward`].
pub(super) fn check_packed(x: &[f32], weight: Weight<'_>, bias: &[f32], y: &[f32], scratch: &mut Scratch) {
    let packed = PackedWeight::new(weight, PackedFor::Forward, scratch.precision());
    let mut again = vec![9.0; y.len()];
    let layer = Projection { weight: WeightOperand::Packed(&packed), bias: Some(bias), output: (&mut again).into() };
    forward_each(x, [layer], scratch);
    assert_eq!(again, y);
    let mut in_bf16 = vec![bf16::NAN; y.len()];
    let output = in_bf16.as_mut_slice().into();
    forward_each(x, [Projection { weight: WeightOperand::Packed(&packed), bias: Some(bias), output }], scratch);
    assert!(in_bf16.iter().zip(y).all(|(a, b)| a.get() == rounded(*b, Precision::Bf16)), "the same values, rounded");
    // The three functions access memory in the same way; the GELUs take minutes in Miri.
    let activations = unless_miri(&[Activation::Gelu, Activation::GeluTanh, Activation::Relu][..], &[Activation::Relu]);
    for &activation in activations {
        check_fused(x, weight, &packed, bias, activation, y, scratch);
    }
}

/// [`forward_activated`] and [`backward_activated`] give the results of the separate steps; `u` is the layer's output
/// in f32, and the values of `weight` serve as the weight of the next layer, too.
fn check_fused(
    x: &[f32],
    weight: Weight<'_>,
    packed: &PackedWeight,
    bias: &[f32],
    activation: Activation,
    u: &[f32],
    scratch: &mut Scratch,
) {
    let (precision, rows) = (scratch.precision(), weight.rows);
    let u: Vec<f32> = u.iter().map(|&u| rounded(u, precision)).collect();
    let next = Weight { values: weight.values, rows: weight.cols, cols: rows, mask: None };
    let mut activated = vec![9.0; u.len()];
    activation::forward(activation, &u, &mut activated);
    let mut expected = vec![9.0; x.len()];
    forward(&activated, next, None, &mut expected, scratch);
    for operand in [WeightOperand::Plain(weight.into()), WeightOperand::Packed(packed)] {
        let mut saved = vec![9.0; u.len() / rows * saved_width(rows, precision)];
        for save in [None, Some(&mut saved)] {
            let mut y = PackedInput::default();
            forward_activated(x, operand, bias, activation, save.map(Vec::as_mut_slice), &mut y, scratch);
            let mut output = vec![9.0; x.len()];
            let layer =
                Projection { weight: WeightOperand::Plain(next.into()), bias: None, output: (&mut output).into() };
            forward_packed(&y, [layer], scratch);
            assert_matches(activation, precision, &output, &expected, "the next layer's output");
        }
        check_activated_gradient(x, weight, next, activation, &u, &saved, scratch);
    }
}

/// Fused results have the bits of the separate steps, except GELU in bf16 pairs: tables that are exact to bf16 replace
/// the function, and a rounded result may be the neighbouring number. The tables err by up to 1e-6 (the value) and 2e-6
/// (the slope), which products scale by a weight and a gradient: more than all of a result where every input is far below
/// 0.
fn assert_matches(activation: Activation, precision: Precision, fused: &[f32], separate: &[f32], name: &str) {
    if activation != Activation::Gelu || !precision.packs_bf16() {
        return assert_eq!(fused, separate, "{name}, {activation:?}");
    }
    let largest = separate.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
    for (fused, separate) in fused.iter().zip(separate) {
        let allowed = 4e-3 * largest + 1e-5;
        assert!((fused - separate).abs() <= allowed, "{name}: {fused}, not {separate}, of up to {largest}");
    }
}

/// [`backward_activated`] and the products of its outputs give the results of the separate steps. `dy` serves as the
/// gradient of the output of `next`.
fn check_activated_gradient(
    dy: &[f32],
    weight: Weight<'_>,
    next: Weight<'_>,
    activation: Activation,
    u: &[f32],
    saved: &[f32],
    scratch: &mut Scratch,
) {
    let precision = scratch.precision();
    let (tokens, n) = (u.len() / weight.rows, weight.rows);
    let [of_weight, of_next] = [weight, next].map(|w| PackedWeight::new(w, PackedFor::InputGradient, precision));
    let (mut du, mut y, mut dx) = (vec![9.0; u.len()], vec![9.0; u.len()], vec![9.0; dy.len()]);
    backward_input_packed(dy, &of_next, &mut du, Write::Store, scratch);
    activation::backward_with_output(activation, u, &mut du, &mut y);
    backward_input_packed(&du, &of_weight, &mut dx, Write::Store, scratch);

    let (mut rows, mut gradient, mut input) =
        (PackedInput::default(), PackedFactor::default(), PackedFactor::default());
    let one_group = || std::iter::once(tokens);
    let gradients = gradient.parts(Factor::OutputGradient, n, one_group(), precision);
    let inputs = input.parts(Factor::Input, n, one_group(), precision);
    let to = ActivatedGradient { rows: &mut rows, output_gradient: gradients.first(), input: inputs.first() };
    backward_activated(dy, &of_next, saved, activation, to, scratch);
    let mut fused = vec![9.0; dy.len()];
    backward_input_rows(&rows, &of_weight, &mut fused, Write::Store);
    assert_matches(activation, precision, &fused, &dx, "the input gradient");

    drop((gradients, inputs));
    let (width, mode) = (weight.cols, Write::Store);
    let other = random(tokens * width, 11);
    let pack_other = |factor| {
        let mut packed = PackedFactor::default();
        packed.parts(factor, width, one_group(), precision).iter_mut().for_each(|part| part.pack(&other));
        packed
    };
    let [mut fused, mut separate] = [(); 2].map(|()| vec![9.0; n * width]);
    weight_gradient(&gradient, &pack_other(Factor::Input), GradEpilogue::Dense, &mut fused, mode);
    backward_weight(&du, &other, n, width, GradEpilogue::Dense, &mut separate, mode, scratch);
    assert_matches(activation, precision, &fused, &separate, "the weight gradient from du");
    weight_gradient(&pack_other(Factor::OutputGradient), &input, GradEpilogue::Dense, &mut fused, mode);
    backward_weight(&other, &y, width, n, GradEpilogue::Dense, &mut separate, mode, scratch);
    assert_matches(activation, precision, &fused, &separate, "the weight gradient from y");
}
