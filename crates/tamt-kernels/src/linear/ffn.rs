//! The fused FFN: a linear layer with its activation, packed for the next layer, and the way back through both.
//!
//! `u = x (W ∘ B)ᵀ + b`, `y = f(u)`, and the next layer multiplies `y`. The product's epilogue applies the activation
//! to each block of `u` in L1 or L2 and packs `y`. The backward pass recomputes `y` from the saved `u`.

#[cfg(target_arch = "x86_64")]
use crate::base::store_fence;
use crate::base::{Precision, Scratch, Shared, round_in_place, with_buffer};
use crate::gemm::{Init, JOB_COLS, Operand, Order, RightOperand, SharedPanels, Strip, row_product};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::activated::{ActivationBackward, ActivationForward, SavedLayout, TokenPairs};
use crate::linear::packed_factor::{Factor, PackedFactorPart};
use crate::linear::packed_input::{PackedInput, pack_rows};
use crate::linear::packed_weight::{PackedFor, PackedWeight, WeightOperand};
use crate::linear::portions::{for_each_portion, row_count};
use crate::linear::saved_input::{load_row, save_block, saved_range, saved_width};
use crate::ops::activation;
use crate::ops::activation::functions::Activation;

/// `y = f(u)` of `u = x (W ∘ B)ᵀ + b`, packed for the next layer: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]`.
///
/// `u` is rounded to the precision of the product. `saved` `[T, saved_width(rows)]` receives `u` for
/// [`backward_activated`], in a private order.
pub fn forward_activated(
    x: &[f32],
    weight: WeightOperand<'_>,
    bias: &[f32],
    activation: Activation,
    saved: Option<&mut [f32]>,
    y: &mut PackedInput,
    scratch: &mut Scratch,
) {
    let precision = scratch.precision;
    let (rows, cols) = weight.shape();
    weight.assert_valid(precision);
    assert_eq!(bias.len(), rows, "a bias per output feature");
    let tokens = row_count(x.len(), cols, "input");
    let saved_len = tokens * saved_width(rows, precision);
    assert!(
        saved.as_ref().is_none_or(|saved| saved.len() == saved_len),
        "saved activations of as many rows as the input"
    );
    let layer = FusedForward { activation, bias, saved: saved.map(Shared::new), y: y.begin(tokens, rows, precision) };
    let x = Operand { precision, ..Operand::new(x, cols, Order::LaneRows) };
    for_each_portion(&x, tokens, cols, &mut scratch.floats, |part, lhs| {
        let mut rhs = weight.rhs(precision, &mut scratch.panels);
        row_product(rows, part, lhs, &mut rhs, &mut [], |strip| layer.apply(strip));
    });
}

/// The epilogue of [`forward_activated`].
struct FusedForward<'a> {
    activation: Activation,
    bias: &'a [f32],
    saved: Option<Shared<'a, f32>>,
    /// Panels of `y` `[T, rows]`.
    y: SharedPanels<'a>,
}

impl FusedForward<'_> {
    /// Computes a strip of `u`, saves `u` and packs `f(u)`.
    fn apply(&self, mut strip: Strip<'_>) {
        let &Self { activation, saved, y, .. } = self;
        let (precision, width) = (y.precision, y.depth);
        let columns = strip.col..strip.col + strip.cols;
        let bias = &self.bias[columns.clone()];
        #[cfg(target_arch = "x86_64")]
        if precision.packs_bf16() {
            let saved = saved.map(|saved| (saved, SavedLayout::new(y.lanes, width)));
            let first = (strip.row, strip.col);
            let mut epilogue = ActivationForward { activation, bias, saved, panels: y, first };
            // SAFETY: AVX-512-BF16 is present: `packs_bf16` returned true. Only this job writes the strip's words of
            // `saved` and `y`: the strips of `row_product` are disjoint.
            return unsafe { strip.multiply_tiles(&mut epilogue) };
        }
        strip.multiply_to_buffer(Init::Bias(bias), |strip, first, u| {
            let row = strip.row + first;
            if let Some(saved) = saved {
                let range = saved_range(width, precision, row, u.len() / columns.len(), &columns);
                // SAFETY: only this job accesses the block's range: the strips of `row_product` are disjoint, and
                // `saved_range` maps disjoint blocks to disjoint ranges.
                save_block(u, columns.len(), precision, unsafe { saved.part(range) });
            } else if precision == Precision::Bf16 {
                round_in_place(u);
            }
            activation::apply(activation, u);
            // SAFETY: only this job accesses the strip's words of `y`: the strips of `row_product` are disjoint.
            unsafe { pack_rows(&y, row, u, columns.clone()) };
        });
    }
}

/// The outputs of [`backward_activated`], each `[T, n]`.
///
/// The parts belong to two factors, and no other call packs the same parts at the same time.
#[derive(Debug)]
pub struct ActivatedGradient<'a> {
    /// `du`, for [`backward_input_rows`](crate::linear::backward_input_rows).
    pub rows: &'a mut PackedInput,
    /// `du`, for the weight gradient of the layer before the activation.
    pub output_gradient: Option<&'a PackedFactorPart<'a>>,
    /// `y`, for the weight gradient of the layer after the activation.
    pub input: Option<&'a PackedFactorPart<'a>>,
}

/// The backward pass of a layer and the activation `y = f(u)` before the layer: `du = dy W ∘ f'(u)`, and `y` again.
///
/// `dy` `[T, rows]` is the gradient of the layer's output, `weight` is `[rows, n]`, and `saved` is `u` `[T, n]` from
/// [`forward_activated`].
pub fn backward_activated(
    dy: &[f32],
    weight: &PackedWeight,
    saved: &[f32],
    activation: Activation,
    to: ActivatedGradient<'_>,
    scratch: &mut Scratch,
) {
    let (precision, (rows, n)) = (scratch.precision, weight.shape());
    let tokens = row_count(saved.len(), saved_width(n, precision), "saved activations");
    assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input");
    let ActivatedGradient { rows: du, output_gradient, input } = to;
    for (factor, part) in [(Factor::OutputGradient, output_gradient), (Factor::Input, input)] {
        part.into_iter().for_each(|part| part.assert_holds(factor, tokens, n, precision));
    }
    let layer = FusedBackward { activation, saved, du: du.begin(tokens, n, precision), output_gradient, input };
    let dy = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
    for_each_portion(&dy, tokens, rows, &mut scratch.floats, |part, lhs| {
        let rhs = &mut RightOperand::Packed(weight.panels(PackedFor::InputGradient, precision));
        row_product(n, part, lhs, rhs, &mut [], |strip| layer.apply(strip));
    });
}

/// The epilogue of [`backward_activated`].
struct FusedBackward<'a> {
    activation: Activation,
    /// `u`
    saved: &'a [f32],
    /// Panels of `du` `[T, n]`.
    du: SharedPanels<'a>,
    output_gradient: Option<&'a PackedFactorPart<'a>>,
    input: Option<&'a PackedFactorPart<'a>>,
}

impl FusedBackward<'_> {
    /// Computes a strip of `dy W`, multiplies by `f'(u)`, and packs `du` and `y`.
    fn apply(&self, mut strip: Strip<'_>) {
        let &Self { activation, saved, du, output_gradient, input } = self;
        let (precision, n, cols) = (du.precision, du.depth, strip.cols);
        let columns = strip.col..strip.col + cols;
        #[cfg(target_arch = "x86_64")]
        if precision.packs_bf16() {
            let saved = (saved, SavedLayout::new(du.lanes, n));
            let (first, pairs) = ((strip.row, strip.col), TokenPairs::default());
            let mut epilogue =
                ActivationBackward { activation, saved, panels: du, output_gradient, input, first, pairs };
            // SAFETY: AVX-512-BF16 is present: `packs_bf16` returned true. Only this job writes the strip's words of
            // `du` and of the factors: the strips of `row_product` are disjoint.
            unsafe { strip.multiply_tiles(&mut epilogue) };
            return store_fence();
        }
        let both = activation::backward_part(activation);
        strip.multiply_to_buffer(Init::Zero, |strip, first, d| {
            let (row, rows) = (strip.row + first, d.len() / cols);
            let saved = &saved[saved_range(n, precision, row, rows, &columns)];
            with_buffer(d.len(), |y| {
                let mut u = [0.0; JOB_COLS.end];
                for (i, (d, y)) in d.chunks_exact_mut(cols).zip(y.chunks_exact_mut(cols)).enumerate() {
                    load_row(saved, rows, i, precision, &mut u[..cols]);
                    both(&u[..cols], d, y);
                }
                // SAFETY: only this job accesses the strip's words of `du` and of the factors: the strips of
                // `row_product` are disjoint.
                unsafe {
                    pack_rows(&du, row, d, columns.clone());
                    if let Some(part) = output_gradient {
                        part.pack_block(row, columns.start, d, cols);
                    }
                    if let Some(part) = input {
                        part.pack_block(row, columns.start, y, cols);
                    }
                }
            });
        });
    }
}
