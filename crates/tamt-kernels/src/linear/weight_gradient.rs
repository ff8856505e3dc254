use half::bf16;
use std::ops::Range;

use crate::base::buffer::with_buffer;
use crate::base::parallel::Shared;
use crate::base::scratch::Scratch;
use crate::base::sums::{Write, add_bf16};
use crate::base::values::round;
use crate::gemm::block::Init;
use crate::gemm::layout::Side;
use crate::gemm::operand::{Operand, Order};
use crate::gemm::panels::Panels;
use crate::gemm::product::{RightOperand, Strip, each_strip, is_one_portion, row_portions, row_product};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::gradient::{Gradient, GradientOut};
#[cfg(target_arch = "x86_64")]
use crate::linear::epilogue::survivors::Survivors;
use crate::linear::packed_factor::{Factor, PackedFactor};
use crate::linear::portions::rows_of;
use crate::masks::bits::count_bits;
use crate::masks::gather::gather_row;
use crate::masks::grad_epilogue::GradEpilogue;
use crate::masks::ranked::RankedMask;

/// `dW = epilogue(dyᵀ x)`: `dy` `[T, rows]`, `x` `[T, cols]`, `dw` `[rows, cols]`.
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
    let tokens = rows_of(dy.len(), rows, "output gradient");
    assert_eq!(x.len(), tokens * cols, "input of as many rows as the output gradient");
    let (precision, buffer) = (scratch.precision, &mut scratch.panels);
    let x = Operand { precision, ..Operand::new(x, cols, Order::DepthRows) };
    if is_one_portion(cols, tokens) {
        let packed = buffer.get(Panels::len_in(precision, Side::Right, cols, tokens));
        let x = Panels::pack_parallel(Side::Right, &x, 0..cols, tokens, packed);
        return plain_weight_product((rows, cols, tokens), dy, &mut RightOperand::Packed(x), epilogue, dw, mode);
    }
    plain_weight_product((rows, cols, tokens), dy, &mut RightOperand::Plain(x, buffer), epilogue, dw, mode);
}

/// `dW = epilogue(dyᵀ x)` with `x` as `rhs` gives it.
fn plain_weight_product(
    (rows, cols, tokens): (usize, usize, usize),
    dy: &[f32],
    rhs: &mut RightOperand<'_>,
    epilogue: GradEpilogue<'_>,
    dw: &mut [f32],
    mode: Write,
) {
    assert_eq!(dy.len(), rows * tokens, "output gradient of as many rows as the input");
    epilogue.assert_shape(rows, cols);
    assert_eq!(dw.len(), epilogue.len(rows, cols), "weight gradient of the declared shape");
    let precision = rhs.precision();
    let dy = Operand { precision, ..Operand::new(dy, rows, Order::DepthRows) };
    for part in row_portions(rows, tokens, precision) {
        with_buffer(Panels::len_in(precision, Side::Left, part.len(), tokens), |packed| {
            let lhs = Panels::pack_parallel(Side::Left, &dy, part.clone(), tokens, packed);
            weight_product(cols, part, lhs, rhs, epilogue, dw, mode);
        });
    }
}

/// Rows `part` of `dW = epilogue(dyᵀ x)`, which `dy` has, of `cols` columns.
fn weight_product(
    cols: usize,
    part: Range<usize>,
    dy: Panels<'_>,
    x: &mut RightOperand<'_>,
    epilogue: GradEpilogue<'_>,
    dw: &mut [f32],
    mode: Write,
) {
    if let GradEpilogue::Survivors(mask) = epilogue {
        return survivor_product(part, dy, x, mask, dw, mode);
    }
    #[cfg(target_arch = "x86_64")]
    if dy.precision().packs_bf16() {
        let dw = Shared::new(dw);
        return gradient_squares(cols, part, dy, x, epilogue, mode, |_| GradientOut::F32(dw));
    }
    row_product(cols, part, dy, x, dw, |mut strip: Strip<'_>| {
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

/// [`weight_product`] by tiles: each square goes where `out` says for its strip.
#[cfg(target_arch = "x86_64")]
fn gradient_squares<'a>(
    cols: usize,
    part: Range<usize>,
    dy: Panels<'_>,
    x: &mut RightOperand<'_>,
    epilogue: GradEpilogue<'a>,
    mode: Write,
    out: impl Fn(&Strip<'_>) -> GradientOut<'a> + Sync,
) {
    let nothing = Shared::new(&mut []);
    each_strip(cols, part, dy, x, &nothing, |strip| {
        let (first, add) = ((strip.row, strip.col), mode == Write::Add);
        let mut finish = Gradient { epilogue, cols, first, out: out(&strip), add };
        // SAFETY: the strips of a product are disjoint, and so is what becomes of them.
        #[allow(unsafe_code)]
        unsafe {
            strip.finish(&mut finish);
        }
    });
}

/// [`weight_product`] of survivors: each block is made beside, and gathered while it is in the nearest caches.
fn survivor_product(
    part: Range<usize>,
    dy: Panels<'_>,
    x: &mut RightOperand<'_>,
    mask: &RankedMask,
    survivors: &mut [f32],
    mode: Write,
) {
    let (survivors, nothing) = (Shared::new(survivors), Shared::new(&mut []));
    #[cfg(target_arch = "x86_64")]
    if dy.precision().packs_bf16() {
        return each_strip(mask.mask().cols(), part, dy, x, &nothing, |strip| {
            let (rows, col) = (strip.row..strip.row + strip.rows, strip.col);
            // SAFETY: the strips of a product are disjoint, and so are their survivors.
            #[allow(unsafe_code)]
            unsafe {
                match mode {
                    Write::Store => strip.finish(&mut Survivors::<false>::new(mask, rows, col, survivors)),
                    Write::Add => strip.finish(&mut Survivors::<true>::new(mask, rows, col, survivors)),
                }
            }
        });
    }
    each_strip(mask.mask().cols(), part, dy, x, &nothing, |mut strip| {
        let (from, to) = (strip.col / 8, (strip.col + strip.cols).div_ceil(8));
        strip.multiply_to_buffer(Init::Zero, |strip, done, block| {
            for (row, values) in (strip.row + done..).zip(block.chunks_exact(strip.cols)) {
                let (at, bits) = (mask.of_row_from(row, strip.col).start, &mask.mask().row(row)[from..to]);
                // SAFETY: the blocks of a product are disjoint, and so are their survivors.
                #[allow(unsafe_code)]
                let survivors = unsafe { survivors.part(at..at + count_bits(bits)) };
                gather_row(bits, values, survivors, mode);
            }
        });
    });
}

/// `dW = epilogue(dyᵀ x)` in bf16, of as many elements as `G`: each block is made beside, in f32.
fn bf16_weight_product(
    (rows, cols): (usize, usize),
    dy: Panels<'_>,
    x: &mut RightOperand<'_>,
    epilogue: GradEpilogue<'_>,
    dw: &mut [bf16],
    mode: Write,
) {
    assert!(!matches!(epilogue, GradEpilogue::Survivors(_)), "a gradient of all elements");
    let (dw, nothing) = (Shared::new(dw), Shared::new(&mut []));
    #[cfg(target_arch = "x86_64")]
    if dy.precision().packs_bf16() {
        return gradient_squares(cols, 0..rows, dy, x, epilogue, mode, |_| GradientOut::Bf16(dw));
    }
    each_strip(cols, 0..rows, dy, x, &nothing, |mut strip| {
        strip.multiply_to_buffer(Init::Zero, |strip, done, block| {
            for (row, values) in (strip.row + done..).zip(block.chunks_exact_mut(strip.cols)) {
                epilogue.apply(values, row, strip.col, cols);
                let first = row * cols + strip.col;
                // SAFETY: the blocks of a product are disjoint.
                #[allow(unsafe_code)]
                let out = unsafe { dw.part(first..first + strip.cols) };
                if mode == Write::Add {
                    add_bf16(values, out);
                }
                round(values, out);
            }
        });
    });
}

/// `dW = epilogue(dyᵀ x)`, `dw` `[rows, cols]`: `dy` was packed in rows of `rows`, `x` of `cols`, by the same groups.
pub fn weight_gradient(dy: &PackedFactor, x: &PackedFactor, epilogue: GradEpilogue<'_>, dw: &mut [f32], mode: Write) {
    assert_factors(dy, x, epilogue, dw.len());
    let rhs = &mut RightOperand::Packed(x.panels(Factor::Input));
    weight_product(x.width, 0..dy.width, dy.panels(Factor::OutputGradient), rhs, epilogue, dw, mode);
}

/// [`weight_gradient`], rounded.
pub fn weight_gradient_bf16(
    dy: &PackedFactor,
    x: &PackedFactor,
    epilogue: GradEpilogue<'_>,
    dw: &mut [bf16],
    mode: Write,
) {
    assert_factors(dy, x, epilogue, dw.len());
    let rhs = &mut RightOperand::Packed(x.panels(Factor::Input));
    bf16_weight_product((dy.width, x.width), dy.panels(Factor::OutputGradient), rhs, epilogue, dw, mode);
}

fn assert_factors(dy: &PackedFactor, x: &PackedFactor, epilogue: GradEpilogue<'_>, len: usize) {
    assert_eq!((dy.steps, dy.precision), (x.steps, x.precision), "factors of the same tokens");
    epilogue.assert_shape(dy.width, x.width);
    assert_eq!(len, epilogue.len(dy.width, x.width), "weight gradient of the declared shape");
}
