//! Linear layers with masked weights: `y = x (W ∘ B)ᵀ + b`.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::bits::{BitMask, count_bits, mask_row};
use crate::dispatch::{fetch, kernel};
use crate::pack::{Operand, Order, Panels, Side};
use crate::parallel::{Buffer, PARTIALS, Shared, reduction_chunk, with_buffer};
use crate::precision::{Number, Precision, Values, ValuesMut, round};
use crate::product::{DEEP, Rhs, Start, Strip, deep_product, each_strip, is_one_portion, row_portions, row_product};
use crate::sparse::{CompactWeight, RankedMask, gather_row};

#[cfg(target_arch = "x86_64")]
mod finish;
mod packed;
mod tokens;
#[cfg(target_arch = "x86_64")]
pub(crate) use finish::{Gradient, GradientOut, InPlace, Rounded, Survivors};
use packed::pack_compact;
pub use packed::{
    ActivatedGradient, Matrix, PackedFor, PackedRows, PackedWeight, backward_activated, backward_input_rows,
    forward_activated, forward_packed, kept_width,
};
pub use tokens::{Factor, PackedTokens, TokensPart, bias_gradient, weight_gradient, weight_gradient_bf16};

/// A weight matrix `[rows, cols]` = `[out features, in features]` (`PyTorch`'s layout), perhaps masked.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// The elements, row after row.
    pub values: Values<'a>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Which elements take part; all without a mask.
    pub mask: Option<&'a BitMask>,
}

/// A weight matrix, with the elements that its mask drops or without them.
#[derive(Clone, Copy, Debug)]
pub enum WeightRef<'a> {
    /// All elements.
    Whole(Weight<'a>),
    /// Those that the mask keeps.
    Compact(&'a CompactWeight),
}

impl<'a> From<Weight<'a>> for WeightRef<'a> {
    fn from(weight: Weight<'a>) -> Self {
        Self::Whole(weight)
    }
}

impl<'a> From<&'a CompactWeight> for WeightRef<'a> {
    fn from(weight: &'a CompactWeight) -> Self {
        Self::Compact(weight)
    }
}

impl<'a> WeightRef<'a> {
    /// `[out features, in features]`
    pub(crate) fn shape(self) -> (usize, usize) {
        match self {
            Self::Whole(w) => (w.rows, w.cols),
            Self::Compact(w) => (w.mask().rows(), w.mask().cols()),
        }
    }

    /// Which elements take part; all without a mask.
    #[must_use]
    pub fn mask(self) -> Option<&'a BitMask> {
        match self {
            Self::Whole(w) => w.mask,
            Self::Compact(w) => Some(w.mask()),
        }
    }

    pub(crate) fn assert_valid(self) {
        let Self::Whole(w) = self else { return };
        assert_eq!(w.values.len(), w.rows * w.cols, "weights of the declared shape");
        if let Some(mask) = w.mask {
            assert_eq!((mask.rows(), mask.cols()), (w.rows, w.cols), "a mask of the weights' shape");
        }
    }

    /// Writes some columns of a row, of which those that the mask drops are anything: they begin with a byte of the mask, and end with
    /// one or with the row.
    pub(crate) fn write_part(self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        match self {
            Self::Whole(w) => w.values.part(row * w.cols + cols.start..row * w.cols + cols.end).write_to(out),
            Self::Compact(w) => w.write_part(row, cols, out),
        }
    }

    /// Has a row brought into the caches, ahead of its use.
    pub(crate) fn fetch_row(self, row: usize) {
        match self {
            Self::Whole(w) => {
                w.values.part(row * w.cols..(row + 1) * w.cols).fetch();
                w.mask.into_iter().for_each(|mask| fetch(mask.row(row)));
            }
            Self::Compact(w) => w.fetch_row(row),
        }
    }
}

/// Buffers that kernels reuse from call to call, and the precision that they compute products in. One serves any number of
/// calls, one at a time.
#[derive(Debug, Default)]
pub struct Scratch {
    precision: Precision,
    pub(crate) floats: Buffer,
    pub(crate) panels: Buffer,
    pub(crate) sums: Vec<f64>,
    pub(crate) order: Vec<u32>,
}

impl Scratch {
    /// Empty buffers for products in this precision; [`Scratch::default`] is for f32.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// What the operands of products are rounded to.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }
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
    /// The elements of `G` that `B` keeps, in its order and without gaps.
    Survivors(&'a RankedMask),
    /// `G ∘ W`: the straight-through gradient of the scores that decide `B`, dropped weights included.
    Score(Values<'a>),
}

impl WeightGrad<'_> {
    pub(crate) fn assert_shape(&self, rows: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => assert_eq!((mask.rows(), mask.cols()), (rows, cols), "a mask of the weights' shape"),
            Self::Survivors(mask) => Self::Masked(mask.mask()).assert_shape(rows, cols),
            Self::Score(w) => assert_eq!(w.len(), rows * cols, "weights of the declared shape"),
        }
    }

    /// Elements of what a gradient `[rows, cols]` becomes.
    fn len(&self, rows: usize, cols: usize) -> usize {
        if let Self::Survivors(mask) = self { mask.survivors() } else { rows * cols }
    }

    /// Applies to columns `col..` of row `row` of a gradient with `cols` columns; `col` is a multiple of 8.
    pub(crate) fn apply(&self, g: &mut [f32], row: usize, col: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => mask_row(&mask.row(row)[col / 8..], g),
            Self::Survivors(_) => unreachable!("survivors are gathered"),
            Self::Score(w) => match w.part(row * cols + col..row * cols + col + g.len()) {
                Values::F32(w) => multiply_elements(g, w),
                Values::Bf16(w) => multiply_bf16(g, w),
            },
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
    fn multiply_bf16<FMA>(x: &mut [f32], factor: &[bf16]) {
        for (x, factor) in x.iter_mut().zip(factor) {
            *x *= factor.get();
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

/// Rows of an operand `[n, cols]` given as a flat slice of `len` elements.
fn rows_of(len: usize, cols: usize, what: &str) -> usize {
    if cols == 0 {
        return 0;
    }
    assert!(len.is_multiple_of(cols), "{what} of whole rows of {cols}");
    len / cols
}

/// `y = x (W ∘ B)ᵀ + b`: `x` `[T, cols]`, `bias` `[rows]`, `y` `[T, rows]`.
pub fn forward<'a>(x: &[f32], w: impl Into<WeightRef<'a>>, bias: Option<&[f32]>, y: &mut [f32], scratch: &mut Scratch) {
    forward_each(x, [Layer { weight: Matrix::Plain(w.into()), bias, output: y.into() }], scratch);
}

/// A layer of several that [`forward_each`] applies to one input.
#[derive(Debug)]
pub struct Layer<'a> {
    /// `W` and `B`, `[rows, cols]`
    pub weight: Matrix<'a>,
    /// `b`, `[rows]`
    pub bias: Option<&'a [f32]>,
    /// `y`, `[T, rows]`
    pub output: ValuesMut<'a>,
}

/// [`forward`] of layers with the same input (Q, K and V), which is packed once. At least one of them has rows.
pub fn forward_each<const N: usize>(x: &[f32], mut layers: [Layer<'_>; N], scratch: &mut Scratch) {
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

/// Packs rows of a left operand `[rows, depth]`, a portion at a time.
fn each_portion(
    lhs: &Operand<'_>,
    rows: usize,
    depth: usize,
    buffer: &mut Buffer,
    mut product: impl FnMut(Range<usize>, Panels<'_>),
) {
    for part in row_portions(rows, depth, lhs.precision) {
        let packed = buffer.get(Panels::len_in(lhs.precision, Side::Left, part.len(), depth));
        let lhs = Panels::pack_parallel(Side::Left, lhs, part.clone(), depth, packed);
        product(part, lhs);
    }
}

/// Checks that layers of one input fit each other; returns the rows of their outputs.
fn check_layers(layers: &[Layer<'_>], precision: Precision) -> usize {
    let (rows, cols) = layers[0].weight.shape();
    let tokens = rows_of(layers[0].output.len(), rows, "output");
    for Layer { weight, bias, output } in layers {
        weight.assert_valid(precision);
        assert_eq!(weight.shape().1, cols, "layers of the same input");
        assert_eq!(output.len(), tokens * weight.shape().0, "outputs of as many rows");
        assert!(bias.is_none_or(|bias| bias.len() == weight.shape().0), "a bias per output feature");
    }
    tokens
}

/// Rows `part` of a layer's output, from those of its input.
fn apply(layer: &mut Layer<'_>, part: Range<usize>, lhs: Panels<'_>, buffer: &mut Buffer) {
    let Layer { weight, bias, output } = layer;
    let (mut rhs, bias, rows) = (weight.rhs(lhs.precision(), buffer), *bias, weight.shape().0);
    match output {
        ValuesMut::F32(y) => row_product(rows, part, lhs, &mut rhs, y, |strip| {
            strip.multiply(bias_of(bias, &strip).map_or(Start::Zero, Start::Bias));
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
    rhs: &mut Rhs<'_>,
    bias: Option<&[f32]>,
    y: &mut [bf16],
) {
    let (y, nothing) = (Shared::new(y), Shared::new(&mut []));
    each_strip(n, part, lhs, rhs, &nothing, |mut strip| {
        let bias = bias_of(bias, &strip);
        let (row, col, cols) = (strip.row, strip.col, strip.cols);
        #[cfg(target_arch = "x86_64")]
        if lhs.precision().by_tiles() {
            let mut finish = Rounded { out: y, stride: n, first: (row, col), bias };
            // SAFETY: the strips of a product are disjoint.
            #[allow(unsafe_code)]
            return unsafe { strip.finish(&mut finish) };
        }
        strip.multiply_aside(bias.map_or(Start::Zero, Start::Bias), |_, first, block| {
            for (i, values) in (row + first..).zip(block.chunks_exact(cols)) {
                let at = i * n + col;
                // SAFETY: the strips of a product are disjoint.
                #[allow(unsafe_code)]
                round(values, unsafe { y.part(at..at + cols) });
            }
        });
    });
}

/// `dx = dy (W ∘ B)`: `dy` `[T, rows]`, `dx` `[T, cols]`.
pub fn backward_input<'a>(dy: &[f32], w: impl Into<WeightRef<'a>>, dx: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let w = w.into();
    w.assert_valid();
    let (precision, (rows, cols)) = (scratch.precision, w.shape());
    let tokens = rows_of(dx.len(), cols, "input gradient");
    assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input's");
    let lhs = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
    let rhs = match w {
        WeightRef::Whole(w) => {
            let rhs = Operand { mask: w.mask, precision, ..Operand::new(w.values, cols, Order::DepthRows) };
            if rows > DEEP {
                return deep_product((tokens, cols, rows), &lhs, &rhs, dx, mode, &mut scratch.floats);
            }
            &mut Rhs::Plain(rhs, &mut scratch.panels)
        }
        WeightRef::Compact(w) => {
            &mut Rhs::Packed(pack_compact(w, PackedFor::InputGradient, precision, &mut scratch.panels))
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
    let rhs = &mut Rhs::Packed(w.panels(PackedFor::InputGradient, precision));
    input_product(tokens, &lhs, rows, cols, rhs, dx, mode, &mut scratch.floats);
}

/// `dx (+)= dy W`, `dy` `[tokens, rows]`.
fn input_product(
    tokens: usize,
    dy: &Operand<'_>,
    rows: usize,
    cols: usize,
    w: &mut Rhs<'_>,
    dx: &mut [f32],
    mode: Write,
    buffer: &mut Buffer,
) {
    let start = if mode == Write::Add { Start::Sum } else { Start::Zero };
    each_portion(dy, tokens, rows, buffer, |part, lhs| {
        row_product(cols, part, lhs, w, dx, |strip| strip.multiply(start));
    });
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
    scratch: &mut Scratch,
) {
    let tokens = rows_of(dy.len(), rows, "output gradient");
    assert_eq!(x.len(), tokens * cols, "input of as many rows as the output gradient");
    let (precision, buffer) = (scratch.precision, &mut scratch.panels);
    let x = Operand { precision, ..Operand::new(x, cols, Order::DepthRows) };
    if is_one_portion(cols, tokens) {
        let packed = buffer.get(Panels::len_in(precision, Side::Right, cols, tokens));
        let x = Panels::pack_parallel(Side::Right, &x, 0..cols, tokens, packed);
        return plain_weight_product((rows, cols, tokens), dy, &mut Rhs::Packed(x), epilogue, dw, mode);
    }
    plain_weight_product((rows, cols, tokens), dy, &mut Rhs::Plain(x, buffer), epilogue, dw, mode);
}

/// `dW = epilogue(dyᵀ x)` with `x` as `rhs` gives it.
fn plain_weight_product(
    (rows, cols, tokens): (usize, usize, usize),
    dy: &[f32],
    rhs: &mut Rhs<'_>,
    epilogue: WeightGrad<'_>,
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
    x: &mut Rhs<'_>,
    epilogue: WeightGrad<'_>,
    dw: &mut [f32],
    mode: Write,
) {
    if let WeightGrad::Survivors(mask) = epilogue {
        return survivor_product(part, dy, x, mask, dw, mode);
    }
    #[cfg(target_arch = "x86_64")]
    if dy.precision().by_tiles() {
        let dw = Shared::new(dw);
        return gradient_squares(cols, part, dy, x, epilogue, mode, |_| GradientOut::F32(dw));
    }
    row_product(cols, part, dy, x, dw, |mut strip: Strip<'_>| {
        let (first, col) = (strip.row, strip.col);
        match (epilogue, mode) {
            (WeightGrad::Dense, Write::Add) => strip.multiply(Start::Sum),
            (_, Write::Store) => {
                strip.multiply(Start::Zero);
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
    x: &mut Rhs<'_>,
    epilogue: WeightGrad<'a>,
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
    x: &mut Rhs<'_>,
    mask: &RankedMask,
    survivors: &mut [f32],
    mode: Write,
) {
    let (survivors, nothing) = (Shared::new(survivors), Shared::new(&mut []));
    #[cfg(target_arch = "x86_64")]
    if dy.precision().by_tiles() {
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
        strip.multiply_aside(Start::Zero, |strip, done, block| {
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
    x: &mut Rhs<'_>,
    epilogue: WeightGrad<'_>,
    dw: &mut [bf16],
    mode: Write,
) {
    assert!(!matches!(epilogue, WeightGrad::Survivors(_)), "a gradient of all elements");
    let (dw, nothing) = (Shared::new(dw), Shared::new(&mut []));
    #[cfg(target_arch = "x86_64")]
    if dy.precision().by_tiles() {
        return gradient_squares(cols, 0..rows, dy, x, epilogue, mode, |_| GradientOut::Bf16(dw));
    }
    each_strip(cols, 0..rows, dy, x, &nothing, |mut strip| {
        strip.multiply_aside(Start::Zero, |strip, done, block| {
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

kernel! {
    fn add_bf16<FMA>(x: &mut [f32], summand: &[bf16]) {
        for (x, summand) in x.iter_mut().zip(summand) {
            *x += summand.get();
        }
    }
}

/// `db = Σ_t dy[t]`: `dy` `[T, n]`, `db` `[n]`. Sums over chunks of tokens, then over the chunks in order.
pub fn backward_bias(dy: &[f32], db: &mut [f32], mode: Write, scratch: &mut Scratch) {
    let cols = db.len();
    let tokens = rows_of(dy.len(), cols, "output gradient");
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
