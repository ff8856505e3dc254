use crate::base::buffer::AlignedBuffer;
use crate::base::scratch::Scratch;
use crate::base::sums::Write;
use crate::gemm::block::Init;
use crate::gemm::deep::{DEEP, deep_product};
use crate::gemm::operand::{Operand, Order};
use crate::gemm::product::{RightOperand, row_product};
use crate::linear::packed_input::PackedInput;
use crate::linear::packed_weight::{PackedFor, PackedWeight, pack_compact};
use crate::linear::portions::{each_portion, rows_of};
use crate::masks::weight::WeightRef;

/// `dx = dy (W ∘ B)`: `dy` `[T, rows]`, `dx` `[T, cols]`.
pub fn backward_input<'a>(dy: &[f32], w: impl Into<WeightRef<'a>>, dx: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let w = w.into();
    w.assert_valid();
    let (precision, (rows, cols)) = (scratch.precision, w.shape());
    let tokens = rows_of(dx.len(), cols, "input gradient");
    assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input's");
    let lhs = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
    let rhs = match w {
        WeightRef::Dense(w) => {
            let rhs = Operand { mask: w.mask, precision, ..Operand::new(w.values, cols, Order::DepthRows) };
            if rows > DEEP {
                return deep_product((tokens, cols, rows), &lhs, &rhs, dx, mode, &mut scratch.floats);
            }
            &mut RightOperand::Plain(rhs, &mut scratch.panels)
        }
        WeightRef::Compact(w) => {
            &mut RightOperand::Packed(pack_compact(w, PackedFor::InputGradient, precision, &mut scratch.panels))
        }
    };
    input_product(tokens, &lhs, rows, cols, rhs, dx, mode, &mut scratch.floats);
}

/// [`backward_input`] by a weight that was packed for it.
pub fn backward_input_packed(dy: &[f32], w: &PackedWeight, dx: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let (precision, (rows, cols)) = (scratch.precision, w.shape());
    let tokens = rows_of(dx.len(), cols, "input gradient");
    assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input's");
    let lhs = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
    let rhs = &mut RightOperand::Packed(w.panels(PackedFor::InputGradient, precision));
    input_product(tokens, &lhs, rows, cols, rhs, dx, mode, &mut scratch.floats);
}

/// `dx (+)= dy W`, `dy` `[tokens, rows]`.
fn input_product(
    tokens: usize,
    dy: &Operand<'_>,
    rows: usize,
    cols: usize,
    w: &mut RightOperand<'_>,
    dx: &mut [f32],
    mode: Write,
    buffer: &mut AlignedBuffer,
) {
    let start = if mode == Write::Add { Init::Accumulate } else { Init::Zero };
    each_portion(dy, tokens, rows, buffer, |part, lhs| {
        row_product(cols, part, lhs, w, dx, |strip| strip.multiply(start));
    });
}

/// [`super::backward_input_packed`] of a gradient that is packed as well.
pub fn backward_input_rows(dy: &PackedInput, w: &PackedWeight, dx: &mut [f32], mode: Write) {
    assert_eq!((dy.rows * w.cols, dy.cols), (dx.len(), w.rows), "an output gradient of as many rows as the input's");
    let start = if mode == Write::Add { Init::Accumulate } else { Init::Zero };
    let rhs = &mut RightOperand::Packed(w.panels(PackedFor::InputGradient, dy.precision));
    row_product(w.cols, 0..dy.rows, dy.panels(), rhs, dx, |strip| strip.multiply(start));
}
