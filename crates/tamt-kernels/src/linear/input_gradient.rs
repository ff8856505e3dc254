//! Input gradients: `dx = dy (W ∘ B)`.

use crate::base::{AlignedBuffer, Precision, Scratch, Write};
use crate::gemm::{DEEP, Init, Operand, Order, RightOperand, deep_product, row_product};
use crate::linear::packed_input::PackedInput;
use crate::linear::packed_weight::{PackedFor, PackedWeight, pack_compact};
use crate::linear::portions::{for_each_portion, row_count};
use crate::masks::WeightRef;

/// `dx = dy (W ∘ B)`: `dy` `[T, rows]`, `dx` `[T, cols]`.
///
/// A dense weight with more than `DEEP` rows (a vocabulary) is multiplied in chunks of rows.
pub fn backward_input<'a>(dy: &[f32], w: impl Into<WeightRef<'a>>, dx: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let w = w.into();
    w.assert_valid();
    let Scratch { precision, floats, panels, .. } = scratch;
    let dy = OutputGradient::new(dy, w.shape(), dx.len(), *precision);
    let rhs = match w {
        WeightRef::Dense(w) => {
            let rhs =
                Operand { mask: w.mask, precision: *precision, ..Operand::new(w.values, w.cols, Order::DepthRows) };
            if w.rows > DEEP {
                return deep_product((dy.tokens, w.cols, w.rows), &dy.operand, &rhs, dx, mode, floats);
            }
            RightOperand::Plain(rhs, panels)
        }
        WeightRef::Compact(w) => RightOperand::Packed(pack_compact(w, PackedFor::InputGradient, *precision, panels)),
    };
    dy.multiply(rhs, dx, mode, floats);
}

/// [`backward_input`] with a weight packed for [`PackedFor::InputGradient`].
pub fn backward_input_packed(dy: &[f32], w: &PackedWeight, dx: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let rhs = RightOperand::Packed(w.panels(PackedFor::InputGradient, scratch.precision));
    let dy = OutputGradient::new(dy, w.shape(), dx.len(), scratch.precision);
    dy.multiply(rhs, dx, mode, &mut scratch.floats);
}

/// [`backward_input_packed`] with an output gradient that is packed as well.
pub fn backward_input_rows(dy: &PackedInput, w: &PackedWeight, dx: &mut [f32], mode: Write) {
    assert_eq!((dy.rows * w.cols, dy.cols), (dx.len(), w.rows), "an output gradient of as many rows as the input's");
    let rhs = &mut RightOperand::Packed(w.panels(PackedFor::InputGradient, dy.precision));
    row_product(w.cols, 0..dy.rows, dy.panels(), rhs, dx, |strip| strip.multiply(init(mode)));
}

/// `dy` `[tokens, rows]` of a layer with the weight `[rows, cols]`.
struct OutputGradient<'a> {
    operand: Operand<'a>,
    tokens: usize,
    rows: usize,
    cols: usize,
}

impl<'a> OutputGradient<'a> {
    /// Checks `dy` against the weight's shape and the `dx_len` elements of the input gradient.
    fn new(dy: &'a [f32], (rows, cols): (usize, usize), dx_len: usize, precision: Precision) -> Self {
        let tokens = row_count(dx_len, cols, "input gradient");
        assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input's");
        let operand = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
        Self { operand, tokens, rows, cols }
    }

    /// `dx = dy W`, or `dx += dy W`.
    fn multiply(&self, mut w: RightOperand<'_>, dx: &mut [f32], mode: Write, buffer: &mut AlignedBuffer) {
        for_each_portion(&self.operand, self.tokens, self.rows, buffer, |part, lhs| {
            row_product(self.cols, part, lhs, &mut w, dx, |strip| strip.multiply(init(mode)));
        });
    }
}

fn init(mode: Write) -> Init<'static> {
    match mode {
        Write::Store => Init::Zero,
        Write::Add => Init::Accumulate,
    }
}
