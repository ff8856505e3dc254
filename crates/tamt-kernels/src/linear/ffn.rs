//! Operands that are packed once for several products.

use std::ops::Range;

use crate::base::buffer::with_buffer;
use crate::base::parallel::Shared;
use crate::base::precision::Precision;
use crate::base::prefetch::store_fence;
use crate::base::scratch::Scratch;
use crate::base::values::round_in_place;
use crate::gemm::block::Init;
use crate::gemm::operand::{Operand, Order};
use crate::gemm::product::{JOB_COLS, RightOperand, each_strip};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::activated::{Activated, ActivatedBack};
use crate::linear::packed_factor::PackedFactorPart;
use crate::linear::packed_input::{PackedInput, pack_rows};
use crate::linear::packed_weight::{PackedFor, PackedWeight, WeightOperand};
use crate::linear::portions::each_portion;
use crate::linear::portions::rows_of;
use crate::linear::saved_input::{SavedLayout, keep, saved_range, saved_row, saved_width};
use crate::ops::activation;
use crate::ops::activation::functions::Activation;

/// `y = f(x (W ∘ B)ᵀ + b)`, packed for the next layer: `x` `[T, cols]`, `bias` `[rows]`. What comes before the activation is rounded
/// to the precision of the product, and kept for [`backward_activated`] if that is wanted: `[T, saved_width(rows)]`, in an order
/// of its own.
pub fn forward_activated(
    x: &[f32],
    weight: WeightOperand<'_>,
    bias: &[f32],
    activation: Activation,
    kept: Option<&mut [f32]>,
    y: &mut PackedInput,
    scratch: &mut Scratch,
) {
    let precision = scratch.precision;
    let (rows, cols) = weight.shape();
    weight.assert_valid(precision);
    assert_eq!(bias.len(), rows, "a bias per output feature");
    let tokens = rows_of(x.len(), cols, "input");
    let kept_len = tokens * saved_width(rows, precision);
    assert!(kept.as_ref().is_none_or(|kept| kept.len() == kept_len), "what is kept has as many rows");
    let panels = y.begin(tokens, rows, precision);
    let is_kept = kept.is_some();
    let (kept, nothing) = (Shared::new(kept.unwrap_or_default()), Shared::new(&mut []));
    let x = Operand { precision, ..Operand::new(x, cols, Order::LaneRows) };
    each_portion(&x, tokens, cols, &mut scratch.floats, |part, lhs| {
        let mut rhs = weight.rhs(precision, &mut scratch.panels);
        each_strip(rows, part, lhs, &mut rhs, &nothing, |mut strip| {
            let columns: Range<usize> = strip.col..strip.col + strip.cols;
            #[cfg(target_arch = "x86_64")]
            if precision.packs_bf16() {
                let kept = is_kept.then(|| (kept, SavedLayout { rows: tokens, words: saved_width(rows, precision) }));
                let first = (strip.row, strip.col);
                let mut finish = Activated { activation, bias: &bias[columns], kept, panels, first };
                // SAFETY: the blocks of a product are disjoint, and so are their places.
                #[allow(unsafe_code)]
                return unsafe { strip.finish(&mut finish) };
            }
            strip.multiply_to_buffer(Init::Bias(&bias[columns.clone()]), |strip, first, block| {
                let row = strip.row + first;
                if is_kept {
                    let place = saved_range(rows, precision, row, block.len() / columns.len(), &columns);
                    // SAFETY: blocks are disjoint, and so are their places.
                    #[allow(unsafe_code)]
                    keep(block, columns.len(), precision, unsafe { kept.part(place) });
                } else if precision == Precision::Bf16 {
                    round_in_place(block);
                }
                activation::apply(activation, block);
                // SAFETY: the blocks of a product are disjoint.
                #[allow(unsafe_code)]
                unsafe {
                    pack_rows(&panels, row, block, columns.clone());
                }
            });
        });
    });
}

/// Where [`backward_activated`] leaves what it makes, `[T, n]` both.
#[derive(Debug)]
pub struct ActivatedGradient<'a> {
    /// `du`, for [`backward_input_rows`].
    pub rows: &'a mut PackedInput,
    /// `du`, for gradients of the weights of the layer before the activation, where they are wanted.
    pub output_gradient: Option<&'a PackedFactorPart<'a>>,
    /// `y`, for gradients of the weights of the layer after it, where they are wanted.
    pub input: Option<&'a PackedFactorPart<'a>>,
}

/// Back through the layer that follows an activation `y = f(u)`, and through the activation: `du = dy W ∘ f'(u)` and `y`, made
/// again. `dy` is the gradient of the layer's output, `[T, rows]` of its weight `[rows, n]`; `u` is what [`forward_activated`] kept.
pub fn backward_activated(
    dy: &[f32],
    weight: &PackedWeight,
    kept: &[f32],
    activation: Activation,
    to: ActivatedGradient<'_>,
    scratch: &mut Scratch,
) {
    let (precision, (rows, n)) = (scratch.precision, weight.shape());
    let tokens = rows_of(kept.len(), saved_width(n, precision), "what was kept");
    assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input");
    let ActivatedGradient { rows: packed, output_gradient, input } = to;
    let panels = packed.begin(tokens, n, precision);
    let both = activation::backward_part(activation);
    let nothing = Shared::new(&mut []);
    let dy = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
    each_portion(&dy, tokens, rows, &mut scratch.floats, |part, lhs| {
        let rhs = &mut RightOperand::Packed(weight.panels(PackedFor::InputGradient, precision));
        each_strip(n, part, lhs, rhs, &nothing, |mut strip| {
            let columns = strip.col..strip.col + strip.cols;
            #[cfg(target_arch = "x86_64")]
            if precision.packs_bf16() {
                let kept = (kept, SavedLayout { rows: tokens, words: saved_width(n, precision) });
                let first = (strip.row, strip.col);
                let pairs = Default::default();
                let mut finish = ActivatedBack { activation, kept, panels, output_gradient, input, first, pairs };
                // SAFETY: the blocks of a product are disjoint, and so are their places.
                #[allow(unsafe_code)]
                unsafe {
                    strip.finish(&mut finish);
                }
                return store_fence();
            }
            strip.multiply_to_buffer(Init::Zero, |strip, first, d| {
                let row = strip.row + first;
                let cols = columns.len();
                let u = &kept[saved_range(n, precision, row, d.len() / cols, &columns)];
                with_buffer(d.len(), |y| {
                    let mut before = [0.0; JOB_COLS.end];
                    let rows = d.len() / cols;
                    for (i, (d, y)) in d.chunks_exact_mut(cols).zip(y.chunks_exact_mut(cols)).enumerate() {
                        saved_row(u, rows, i, precision, &mut before[..cols]);
                        both(&before[..cols], d, y);
                    }
                    // SAFETY: the blocks of a product are disjoint.
                    #[allow(unsafe_code)]
                    unsafe {
                        pack_rows(&panels, row, d, columns.clone());
                        if let Some(part) = output_gradient {
                            part.pack_block(row, columns.start, d, columns.len());
                        }
                        if let Some(part) = input {
                            part.pack_block(row, columns.start, y, columns.len());
                        }
                    }
                });
            });
        });
    });
}
