//! Linear layers with masked weights: `y = x (W ∘ B)ᵀ + b`.

use rayon::prelude::*;

use crate::bits::{BitMask, mask_row};
use crate::dispatch::kernel;
use crate::pack::{Operand, Order};
use crate::parallel::{Buffer, PARTIALS, reduction_chunk, with_buffer};
use crate::product::{DEEP, PackedLhs, Start, deep_product, product};

/// A weight matrix `[rows, cols]` = `[out features, in features]` (`PyTorch`'s layout), perhaps masked.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// The elements, row after row.
    pub values: &'a [f32],
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Which elements take part; all without a mask.
    pub mask: Option<&'a BitMask>,
}

impl Weight<'_> {
    pub(crate) fn assert_valid(&self) {
        assert_eq!(self.values.len(), self.rows * self.cols, "weights of the declared shape");
        if let Some(mask) = self.mask {
            assert_eq!((mask.rows(), mask.cols()), (self.rows, self.cols), "a mask of the weights' shape");
        }
    }
}

/// Buffers that kernels reuse from call to call. One serves any number of calls, one at a time.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) floats: Buffer,
    pub(crate) sums: Vec<f64>,
    pub(crate) order: Vec<u32>,
}

/// What happens to the old content of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is overwritten.
    Store,
    /// The result is added to it.
    Add,
}

/// What a weight gradient `G = dyᵀ x` becomes on its way out.
#[derive(Clone, Copy, Debug)]
pub enum WeightGrad<'a> {
    /// `G`
    Dense,
    /// `G ∘ B`: dropped weights get no gradient.
    Masked(&'a BitMask),
    /// `G ∘ W`: the straight-through gradient of the scores that decide `B`, dropped weights included.
    Score(&'a [f32]),
}

impl WeightGrad<'_> {
    pub(crate) fn assert_shape(&self, rows: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => assert_eq!((mask.rows(), mask.cols()), (rows, cols), "a mask of the weights' shape"),
            Self::Score(w) => assert_eq!(w.len(), rows * cols, "weights of the declared shape"),
        }
    }

    /// Applies to columns `col..` of row `row` of a gradient with `cols` columns; `col` is a multiple of 8.
    pub(crate) fn apply(&self, g: &mut [f32], row: usize, col: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => mask_row(&mask.row(row)[col / 8..], g),
            Self::Score(w) => multiply_elements(g, &w[row * cols + col..][..g.len()]),
        }
    }
}

kernel! {
    fn multiply_elements<FMA>(x: &mut [f32], factor: &[f32]) {
        for (x, factor) in x.iter_mut().zip(factor) {
            *x *= factor;
        }
    }
}

kernel! {
    pub(crate) fn add_elements<FMA>(x: &mut [f32], summand: &[f32]) {
        for (x, summand) in x.iter_mut().zip(summand) {
            *x += summand;
        }
    }
}

/// Rows of an operand `[n, cols]` given as a flat slice.
fn rows_of(x: &[f32], cols: usize, what: &str) -> usize {
    if cols == 0 {
        return 0;
    }
    assert!(x.len().is_multiple_of(cols), "{what} of whole rows of {cols}");
    x.len() / cols
}

/// `y = x (W ∘ B)ᵀ + b`: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]`.
pub fn forward(x: &[f32], w: Weight<'_>, bias: Option<&[f32]>, y: &mut [f32], scratch: &mut Scratch) {
    w.assert_valid();
    let tokens = rows_of(y, w.rows, "output");
    assert_eq!(x.len(), tokens * w.cols, "input of as many rows as the output");
    if let Some(bias) = bias {
        assert_eq!(bias.len(), w.rows, "a bias per output feature");
    }
    let lhs = Operand::new(x, w.cols, Order::LaneRows);
    let rhs = Operand { mask: w.mask, ..Operand::new(w.values, w.cols, Order::LaneRows) };
    let packed = scratch.floats.get(PackedLhs::len(tokens, w.cols));
    product((tokens, w.rows, w.cols), &lhs, &rhs, y, packed, |strip| match bias {
        None => strip.multiply(Start::Zero),
        Some(bias) => strip.multiply(Start::Bias(&bias[strip.col..strip.col + strip.cols])),
    });
}

/// `dx = dy (W ∘ B)`: `dy` `[T, rows]`, `dx` `[T, cols]`.
pub fn backward_input(dy: &[f32], w: Weight<'_>, dx: &mut [f32], mode: Write, scratch: &mut Scratch) {
    w.assert_valid();
    let tokens = rows_of(dx, w.cols, "input gradient");
    assert_eq!(dy.len(), tokens * w.rows, "output gradient of as many rows as the input's");
    let lhs = Operand::new(dy, w.rows, Order::LaneRows);
    let rhs = Operand { mask: w.mask, ..Operand::new(w.values, w.cols, Order::DepthRows) };
    if w.rows > DEEP {
        return deep_product((tokens, w.cols, w.rows), &lhs, &rhs, dx, mode, &mut scratch.floats);
    }
    let start = if mode == Write::Add { Start::Sum } else { Start::Zero };
    let packed = scratch.floats.get(PackedLhs::len(tokens, w.rows));
    product((tokens, w.cols, w.rows), &lhs, &rhs, dx, packed, |strip| strip.multiply(start));
}

/// `dW = epilogue(dyᵀ x)`: `dy` `[T, rows]`, `x` `[T, cols]`, `dw` `[rows, cols]`.
pub fn backward_weight(
    dy: &[f32],
    x: &[f32],
    rows: usize,
    cols: usize,
    epilogue: WeightGrad<'_>,
    dw: &mut [f32],
    mode: Write,
) {
    assert_eq!(dw.len(), rows * cols, "weight gradient of the declared shape");
    epilogue.assert_shape(rows, cols);
    let tokens = rows_of(dy, rows, "output gradient");
    assert_eq!(x.len(), tokens * cols, "input of as many rows as the output gradient");
    let lhs = Operand::new(dy, rows, Order::DepthRows);
    let rhs = Operand::new(x, cols, Order::DepthRows);
    with_buffer(PackedLhs::len(rows, tokens), |packed| {
        product((rows, cols, tokens), &lhs, &rhs, dw, packed, |mut strip| match (epilogue, mode) {
            (WeightGrad::Dense, Write::Add) => strip.multiply(Start::Sum),
            (_, Write::Store) => {
                strip.multiply(Start::Zero);
                let (first, col) = (strip.row, strip.col);
                for i in 0..strip.rows {
                    epilogue.apply(strip.row_mut(i), first + i, col, cols);
                }
            }
            (_, Write::Add) => {
                let (first, col) = (strip.row, strip.col);
                strip.add_product(|i, g| epilogue.apply(g, first + i, col, cols));
            }
        });
    });
}

/// `db = Σ_t dy[t]`: `dy` `[T, n]`, `db` `[n]`. Sums over chunks of tokens, then over the chunks in order.
pub fn backward_bias(dy: &[f32], db: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let cols = db.len();
    let tokens = rows_of(dy, cols, "output gradient");
    let partials = scratch.floats.get(PARTIALS * cols);
    let chunk = reduction_chunk(tokens, 32);
    let used = tokens.div_ceil(chunk);
    partials.par_chunks_mut(cols.max(1)).zip(dy.par_chunks((chunk * cols).max(1))).for_each(|(sum, dy)| {
        sum.fill(0.0);
        for row in dy.chunks_exact(cols) {
            add_elements(sum, row);
        }
    });
    add_partials(&partials[..used * cols], db, mode);
}

/// `out (+)= Σ_c partials[c]`, in order; `partials` is `[chunks, out.len()]`.
pub(crate) fn add_partials(partials: &[f32], out: &mut [f32], mode: Write) {
    let cols = out.len().max(1);
    let size = 512;
    out.par_chunks_mut(size).enumerate().for_each(|(job, out)| {
        if mode == Write::Store {
            out.fill(0.0);
        }
        for partial in partials.chunks_exact(cols) {
            add_elements(out, &partial[job * size..][..out.len()]);
        }
    });
}

#[cfg(test)]
mod tests;
