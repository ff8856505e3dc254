//! Weight gradients: `dW = epilogue(dyᵀ x)`.

use half::bf16;
use std::ops::Range;

use crate::base::{Scratch, Shared, Write, add_bf16, round, with_buffer};
use crate::gemm::{Init, Operand, Order, Panels, RightOperand, Side, is_one_portion, row_portions, row_product};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::gradient::{GradientOut, StoreGradient};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::survivors::GatherSurvivors;
use crate::linear::packed_factor::{Factor, PackedFactor};
use crate::linear::portions::row_count;
use crate::masks::{GradEpilogue, RankedMask, count_bits, gather_row};

/// `dW = epilogue(dyᵀ x)`: `dy` `[T, rows]`, `x` `[T, cols]`, `dw` `[rows, cols]` or the survivors.
pub fn backward_weight(
    dy: &[f32],
    x: &[f32],
    rows: usize,
    cols: usize,
    epilogue: GradEpilogue<'_>,
    dw: &mut [f32],
    mode: Write,
    scratch: &mut Scratch,
) {
    let tokens = row_count(dy.len(), rows, "output gradient");
    assert_eq!((dy.len(), x.len()), (tokens * rows, tokens * cols), "input of as many rows as the output gradient");
    let product = WeightProduct::new(rows, cols, epilogue, mode, dw.len());
    let (precision, buffer) = (scratch.precision, &mut scratch.panels);
    let x = Operand { precision, ..Operand::new(x, cols, Order::DepthRows) };
    let rhs = &mut if is_one_portion(cols, tokens) {
        let packed = buffer.get(Panels::len_in(precision, Side::Right, cols, tokens));
        RightOperand::Packed(Panels::pack_parallel(Side::Right, &x, 0..cols, tokens, packed))
    } else {
        RightOperand::Plain(x, buffer)
    };
    let dy = Operand { precision, ..Operand::new(dy, rows, Order::DepthRows) };
    for part in row_portions(rows, tokens, precision) {
        with_buffer(Panels::len_in(precision, Side::Left, part.len(), tokens), |packed| {
            let lhs = Panels::pack_parallel(Side::Left, &dy, part.clone(), tokens, packed);
            product.run(part, lhs, rhs, dw);
        });
    }
}

/// `dW = epilogue(dyᵀ x)` of packed factors, `dw` `[dy.width, x.width]` or the survivors. The same groups of tokens
/// packed `dy` and `x`.
pub fn weight_gradient(dy: &PackedFactor, x: &PackedFactor, epilogue: GradEpilogue<'_>, dw: &mut [f32], mode: Write) {
    let (lhs, mut rhs) = panels(dy, x);
    WeightProduct::new(dy.width, x.width, epilogue, mode, dw.len()).run(0..dy.width, lhs, &mut rhs, dw);
}

/// [`weight_gradient`], rounded to bf16; the epilogue is not [`GradEpilogue::Survivors`].
pub fn weight_gradient_bf16(
    dy: &PackedFactor,
    x: &PackedFactor,
    epilogue: GradEpilogue<'_>,
    dw: &mut [bf16],
    mode: Write,
) {
    let (lhs, mut rhs) = panels(dy, x);
    WeightProduct::new(dy.width, x.width, epilogue, mode, dw.len()).run_bf16(0..dy.width, lhs, &mut rhs, dw);
}

/// The operands of the product of two factors.
fn panels<'a>(dy: &'a PackedFactor, x: &'a PackedFactor) -> (Panels<'a>, RightOperand<'a>) {
    assert_eq!((dy.steps, dy.precision), (x.steps, x.precision), "factors of the same tokens");
    (dy.panels(Factor::OutputGradient), RightOperand::Packed(x.panels(Factor::Input)))
}

/// `dW = epilogue(G)` or `dW += epilogue(G)`, with `G = dyᵀ x` of `cols` columns.
#[derive(Clone, Copy)]
struct WeightProduct<'a> {
    cols: usize,
    epilogue: GradEpilogue<'a>,
    mode: Write,
}

impl<'a> WeightProduct<'a> {
    /// # Panics
    /// If the epilogue does not fit `G` `[rows, cols]`, or the output does not have `len` elements.
    fn new(rows: usize, cols: usize, epilogue: GradEpilogue<'a>, mode: Write, len: usize) -> Self {
        epilogue.assert_shape(rows, cols);
        assert_eq!(len, epilogue.len(rows, cols), "weight gradient of the declared shape");
        Self { cols, epilogue, mode }
    }

    /// Computes rows `part` of `dW`; `dy` has the same rows of `dyᵀ`.
    fn run(self, part: Range<usize>, dy: Panels<'_>, x: &mut RightOperand<'_>, dw: &mut [f32]) {
        let Self { cols, epilogue, mode } = self;
        if let GradEpilogue::Survivors(mask) = epilogue {
            return survivor_product(part, dy, x, mask, dw, mode);
        }
        #[cfg(target_arch = "x86_64")]
        if dy.precision.packs_bf16() {
            return self.run_tiles(part, dy, x, GradientOut::F32(Shared::new(dw)));
        }
        row_product(cols, part, dy, x, dw, |mut strip| {
            let (first, col) = (strip.row, strip.col);
            match (epilogue, mode) {
                (GradEpilogue::Dense, Write::Add) => strip.multiply(Init::Accumulate),
                (_, Write::Store) => {
                    strip.multiply(Init::Zero);
                    for i in 0..strip.rows {
                        epilogue.apply(strip.row_mut(i), first + i, col, cols);
                    }
                }
                (_, Write::Add) => strip.add_product(|i, g| epilogue.apply(g, first + i, col, cols)),
            }
        });
    }

    /// [`Self::run`] with an output in bf16: each strip is summed in f32 in a scratch block, and rounded once.
    fn run_bf16(self, part: Range<usize>, dy: Panels<'_>, x: &mut RightOperand<'_>, dw: &mut [bf16]) {
        let Self { cols, epilogue, mode } = self;
        assert!(!matches!(epilogue, GradEpilogue::Survivors(_)), "a gradient of all elements");
        let dw = Shared::new(dw);
        #[cfg(target_arch = "x86_64")]
        if dy.precision.packs_bf16() {
            return self.run_tiles(part, dy, x, GradientOut::Bf16(dw));
        }
        row_product(cols, part, dy, x, &mut [], |mut strip| {
            strip.multiply_to_buffer(Init::Zero, |strip, done, block| {
                for (row, values) in (strip.row + done..).zip(block.chunks_exact_mut(strip.cols)) {
                    epilogue.apply(values, row, strip.col, cols);
                    let first = row * cols + strip.col;
                    // SAFETY: only this job accesses the strip's elements of `dw`: the strips of `row_product` are
                    // disjoint.
                    let out = unsafe { dw.part(first..first + strip.cols) };
                    if mode == Write::Add {
                        add_bf16(values, out);
                    }
                    round(values, out);
                }
            });
        });
    }

    /// [`Self::run`] for panels of bf16 pairs and an epilogue that keeps the number of elements.
    #[cfg(target_arch = "x86_64")]
    fn run_tiles(self, part: Range<usize>, dy: Panels<'_>, x: &mut RightOperand<'_>, out: GradientOut<'_>) {
        let Self { cols, epilogue, mode } = self;
        row_product(cols, part, dy, x, &mut [], |strip| {
            let (first, add) = ((strip.row, strip.col), mode == Write::Add);
            let mut epilogue = StoreGradient { epilogue, cols, first, out, add };
            // SAFETY: AVX-512-BF16 is present: the callers check `packs_bf16`. The epilogue has the shape of `G`:
            // `WeightProduct::new`. Only this job writes the strip's elements of `out`: the strips of `row_product` are
            // disjoint.
            unsafe { strip.multiply_tiles(&mut epilogue) };
        });
    }
}

/// Rows `part` of the survivors of `G = dyᵀ x`: each strip is summed in scratch, and gathered from L1 or L2.
fn survivor_product(
    part: Range<usize>,
    dy: Panels<'_>,
    x: &mut RightOperand<'_>,
    mask: &RankedMask,
    survivors: &mut [f32],
    mode: Write,
) {
    let survivors = Shared::new(survivors);
    #[cfg(target_arch = "x86_64")]
    if dy.precision.packs_bf16() {
        return row_product(mask.mask().cols(), part, dy, x, &mut [], |strip| {
            let (rows, col) = (strip.row..strip.row + strip.rows, strip.col);
            // SAFETY: AVX-512-BF16 is present: `packs_bf16` returned true. Only this job writes the strip's survivors:
            // the strips of `row_product` are disjoint.
            unsafe {
                match mode {
                    Write::Store => {
                        strip.multiply_tiles(&mut GatherSurvivors::<false>::new(mask, rows, col, survivors));
                    }
                    Write::Add => strip.multiply_tiles(&mut GatherSurvivors::<true>::new(mask, rows, col, survivors)),
                }
            }
        });
    }
    row_product(mask.mask().cols(), part, dy, x, &mut [], |mut strip| {
        let (from, to) = (strip.col / 8, (strip.col + strip.cols).div_ceil(8));
        strip.multiply_to_buffer(Init::Zero, |strip, done, block| {
            for (row, values) in (strip.row + done..).zip(block.chunks_exact(strip.cols)) {
                let (at, bits) = (mask.of_row_from(row, strip.col).start, &mask.mask().row(row)[from..to]);
                // SAFETY: only this job accesses the strip's survivors: the strips of `row_product` are disjoint, and
                // so are the ranges of their survivors.
                let survivors = unsafe { survivors.part(at..at + count_bits(bits)) };
                gather_row(bits, values, survivors, mode);
            }
        });
    });
}
