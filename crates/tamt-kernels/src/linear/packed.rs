//! Operands that are packed once for several products.

use std::ops::Range;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::finish::{Activated, ActivatedBack, KeptLayout};
use super::tokens::{SharedPanels, TokensPart};
use super::{Layer, Scratch, WeightRef, Write, apply, check_layers, each_portion};
use crate::activation::{self, Activation};
use crate::dispatch::kernel;
#[cfg(target_arch = "x86_64")]
use crate::pack::end_of_writes_past_caches;
use crate::pack::{Operand, Order, PACK_LANES, Panels, Side};
use crate::parallel::{Buffer, Shared, with_buffer};
use crate::precision::{Precision, bf16_bits, round_in_place};
use crate::product::{JOB_COLS, Rhs, Start, each_strip, row_product};
use crate::sparse::CompactWeight;

/// The product that a weight matrix is packed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackedFor {
    /// `x (W ∘ B)ᵀ`
    #[default]
    Forward,
    /// `dy (W ∘ B)`
    InputGradient,
}

impl PackedFor {
    /// Lanes and steps of the depth of a matrix `[rows, cols]`, and what its rows are in the product.
    fn layout(self, (rows, cols): (usize, usize)) -> (usize, usize, Order) {
        match self {
            Self::Forward => (rows, cols, Order::LaneRows),
            Self::InputGradient => (cols, rows, Order::DepthRows),
        }
    }
}

/// A masked weight matrix as products read it: a copy, for weights that are multiplied by often before they change.
#[derive(Clone, Debug, Default)]
pub struct PackedWeight {
    panels: Buffer,
    rows: usize,
    cols: usize,
    product: PackedFor,
    precision: Precision,
}

impl PackedWeight {
    /// Packs `W ∘ B` for a product in `precision`.
    #[must_use]
    pub fn new<'a>(w: impl Into<WeightRef<'a>>, product: PackedFor, precision: Precision) -> Self {
        let mut new = Self::default();
        new.pack(w, product, precision);
        new
    }

    /// Packs another weight in its place.
    pub fn pack<'a>(&mut self, w: impl Into<WeightRef<'a>>, product: PackedFor, precision: Precision) {
        let w = w.into();
        w.assert_valid();
        ((self.rows, self.cols), self.product, self.precision) = (w.shape(), product, precision);
        match w {
            WeightRef::Whole(w) => {
                let (lanes, depth, order) = product.layout(self.shape());
                let operand = Operand { mask: w.mask, precision, ..Operand::new(w.values, w.cols, order) };
                let out = self.panels.get(Panels::len_in(precision, Side::Right, lanes, depth));
                Panels::pack_parallel(Side::Right, &operand, 0..lanes, depth, out);
            }
            WeightRef::Compact(w) => {
                pack_compact(w, product, precision, &mut self.panels);
            }
        }
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// The panels, if they were packed for this product.
    pub(super) fn panels(&self, product: PackedFor, precision: Precision) -> Panels<'_> {
        assert_eq!((self.product, self.precision), (product, precision), "weights packed for the product at hand");
        let (lanes, depth, _) = product.layout(self.shape());
        Panels::of(precision, Side::Right, lanes, depth, self.panels.as_slice())
    }
}

/// Packs a matrix without its zeros into a buffer: blocks of it, which the nearest cache holds, get them back on the way.
pub(super) fn pack_compact<'a>(
    w: &CompactWeight,
    product: PackedFor,
    precision: Precision,
    buffer: &'a mut Buffer,
) -> Panels<'a> {
    let (rows, cols) = (w.mask().rows(), w.mask().cols());
    let (lanes, depth, order) = product.layout((rows, cols));
    let out = buffer.get(Panels::len_in(precision, Side::Right, lanes, depth));
    let panels = SharedPanels { panels: Shared::new(out), side: Side::Right, lanes, depth, precision };
    // whole panels and words in every precision
    let (height, width) = match order {
        Order::LaneRows => (PACK_LANES, 128),
        Order::DepthRows => (32, 4 * PACK_LANES),
    };
    (0..rows.div_ceil(height)).into_par_iter().for_each(|block| {
        let rows = block * height..rows.min((block + 1) * height);
        for first in (0..cols).step_by(width) {
            let cols = first..cols.min(first + width);
            with_buffer(rows.len() * cols.len(), |block| {
                for (row, out) in rows.clone().zip(block.chunks_exact_mut(cols.len())) {
                    w.write_part(row, cols.clone(), out);
                }
                let operand = Operand { precision, ..Operand::new(&*block, cols.len(), order) };
                let (lanes, steps) = match order {
                    Order::LaneRows => (rows.clone(), cols.clone()),
                    Order::DepthRows => (cols.clone(), rows.clone()),
                };
                // SAFETY: blocks are disjoint.
                #[allow(unsafe_code)]
                unsafe {
                    panels.pack(&operand, lanes, steps);
                }
            });
        }
    });
    Panels::of(precision, Side::Right, lanes, depth, out)
}

/// What a layer multiplies by.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Packed by each call.
    Plain(WeightRef<'a>),
    /// Packed before, for [`PackedFor::Forward`] in the precision of the product.
    Packed(&'a PackedWeight),
}

impl<'a> Matrix<'a> {
    /// `[out features, in features]`
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(w) => w.shape(),
            Self::Packed(w) => w.shape(),
        }
    }

    pub(super) fn assert_valid(&self, precision: Precision) {
        match self {
            Self::Plain(w) => w.assert_valid(),
            Self::Packed(w) => {
                let _ = w.panels(PackedFor::Forward, precision);
            }
        }
    }

    /// As the right operand of a forward product.
    pub(super) fn rhs<'b>(&self, precision: Precision, buffer: &'b mut Buffer) -> Rhs<'b>
    where
        'a: 'b,
    {
        match *self {
            Self::Plain(WeightRef::Whole(w)) => Rhs::Plain(
                Operand { mask: w.mask, precision, ..Operand::new(w.values, w.cols, Order::LaneRows) },
                buffer,
            ),
            Self::Plain(WeightRef::Compact(w)) => Rhs::Packed(pack_compact(w, PackedFor::Forward, precision, buffer)),
            Self::Packed(w) => Rhs::Packed(w.panels(PackedFor::Forward, precision)),
        }
    }
}

/// An input `[T, cols]` as forward products read it.
#[derive(Debug, Default)]
pub struct PackedRows {
    panels: Buffer,
    rows: usize,
    cols: usize,
    precision: Precision,
}

impl PackedRows {
    /// Makes room for `[rows, cols]`, of unspecified content.
    fn begin(&mut self, rows: usize, cols: usize, precision: Precision) -> SharedPanels<'_> {
        (self.rows, self.cols, self.precision) = (rows, cols, precision);
        let panels = Shared::new(self.panels.get(Panels::len_in(precision, Side::Left, rows, cols)));
        SharedPanels { panels, side: Side::Left, lanes: rows, depth: cols, precision }
    }

    fn panels(&self) -> Panels<'_> {
        Panels::of(self.precision, Side::Left, self.rows, self.cols, self.panels.as_slice())
    }
}

/// Packs a block of rows from row `row` on, which has their columns `cols`.
///
/// # Safety
/// No other block that overlaps this one is being packed.
#[allow(unsafe_code)]
unsafe fn pack_rows(panels: &SharedPanels<'_>, row: usize, block: &[f32], cols: Range<usize>) {
    let operand = Operand { precision: panels.precision, ..Operand::new(block, cols.len(), Order::LaneRows) };
    // SAFETY: the caller's.
    unsafe { panels.pack(&operand, row..row + block.len() / cols.len(), cols) };
}

/// Floats that [`forward_activated`] keeps of a token whose activation has `width` features.
#[must_use]
pub fn kept_width(width: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 => width,
        Precision::Bf16 => width.div_ceil(2),
    }
}

/// Columns of a block of what is kept, at most; every job has whole blocks.
const KEPT_COLS: usize = JOB_COLS.start;

/// What is kept of `rows` rows from row `row` on and of columns `cols`: blocks of rows one after the other, in each of them the
/// blocks of columns.
fn kept_place(width: usize, precision: Precision, row: usize, rows: usize, cols: &Range<usize>) -> Range<usize> {
    let start = row * kept_width(width, precision) + rows * kept_width(cols.start, precision);
    start..start + rows * kept_width(cols.len(), precision)
}

kernel! {
    /// Rounds columns `from..from + cols` of rows of `stride` to bf16 and keeps them in words: the first half of a row is low, the
    /// second one high.
    fn keep_rounded<FMA>(x: &mut [f32], stride: usize, from: usize, cols: usize, kept: &mut [f32]) {
        let half = cols.div_ceil(2);
        for (row, words) in x.chunks_exact_mut(stride).zip(kept.chunks_exact_mut(half)) {
            let (low, high) = row[from..from + cols].split_at_mut(half);
            for (word, (low, high)) in words.iter_mut().zip(low.iter_mut().zip(high.iter_mut())) {
                let (low_bits, high_bits) = (bf16_bits(*low), bf16_bits(*high) << 16);
                *word = f32::from_bits(low_bits | high_bits);
                (*low, *high) = (f32::from_bits(low_bits << 16), f32::from_bits(high_bits));
            }
            if high.len() < half {
                let bits = bf16_bits(low[half - 1]);
                (words[half - 1], low[half - 1]) = (f32::from_bits(bits), f32::from_bits(bits << 16));
            }
        }
    }
}

/// Rounds a block of rows of `cols` to the precision, and keeps it.
fn keep(x: &mut [f32], cols: usize, precision: Precision, mut kept: &mut [f32]) {
    let rows = x.len() / cols;
    for from in (0..cols).step_by(KEPT_COLS) {
        let some = KEPT_COLS.min(cols - from);
        let (block, rest) = std::mem::take(&mut kept).split_at_mut(rows * kept_width(some, precision));
        kept = rest;
        match precision {
            Precision::Bf16 => keep_rounded(x, cols, from, some, block),
            Precision::F32 => {
                for (row, kept) in x.chunks_exact(cols).zip(block.chunks_exact_mut(some)) {
                    kept.copy_from_slice(&row[from..from + some]);
                }
            }
        }
    }
}

/// Row `i` of what [`keep`] kept of `rows` rows.
fn kept_row(kept: &[f32], rows: usize, i: usize, precision: Precision, row: &mut [f32]) {
    let mut first = 0;
    for row in row.chunks_mut(KEPT_COLS) {
        let width = kept_width(row.len(), precision);
        let words = &kept[first + i * width..][..width];
        match precision {
            Precision::F32 => row.copy_from_slice(words),
            Precision::Bf16 => halves(words, row),
        }
        first += rows * width;
    }
}

kernel! {
    /// The low halves of words, then the high ones.
    fn halves<FMA>(words: &[f32], row: &mut [f32]) {
        let (low, high) = row.split_at_mut(words.len());
        for (low, word) in low.iter_mut().zip(words) {
            *low = f32::from_bits(word.to_bits() << 16);
        }
        for (high, word) in high.iter_mut().zip(words) {
            *high = f32::from_bits(word.to_bits() & 0xffff_0000);
        }
    }
}

/// `y = f(x (W ∘ B)ᵀ + b)`, packed for the next layer: `x` `[T, cols]`, `bias` `[rows]`. What comes before the activation is rounded
/// to the precision of the product, and kept for [`backward_activated`] if that is wanted: `[T, kept_width(rows)]`, in an order
/// of its own.
pub fn forward_activated(
    x: &[f32],
    weight: Matrix<'_>,
    bias: &[f32],
    activation: Activation,
    kept: Option<&mut [f32]>,
    y: &mut PackedRows,
    scratch: &mut Scratch,
) {
    let precision = scratch.precision;
    let (rows, cols) = weight.shape();
    weight.assert_valid(precision);
    assert_eq!(bias.len(), rows, "a bias per output feature");
    let tokens = super::rows_of(x.len(), cols, "input");
    let kept_len = tokens * kept_width(rows, precision);
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
            if precision.by_tiles() {
                let kept = is_kept.then(|| (kept, KeptLayout { rows: tokens, words: kept_width(rows, precision) }));
                let first = (strip.row, strip.col);
                let mut finish = Activated { activation, bias: &bias[columns], kept, panels, first };
                // SAFETY: the blocks of a product are disjoint, and so are their places.
                #[allow(unsafe_code)]
                return unsafe { strip.finish(&mut finish) };
            }
            strip.multiply_aside(Start::Bias(&bias[columns.clone()]), |strip, first, block| {
                let row = strip.row + first;
                if is_kept {
                    let place = kept_place(rows, precision, row, block.len() / columns.len(), &columns);
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

/// [`super::forward_each`] of an input that is packed already.
pub fn forward_packed<const N: usize>(x: &PackedRows, mut layers: [Layer<'_>; N], scratch: &mut Scratch) {
    let tokens = check_layers(&layers, x.precision);
    assert_eq!(scratch.precision, x.precision, "an input packed in the precision of the product");
    assert_eq!((x.rows, x.cols), (tokens, layers[0].weight.shape().1), "input of as many rows as the output");
    for layer in &mut layers {
        apply(layer, 0..tokens, x.panels(), &mut scratch.panels);
    }
}

/// Where [`backward_activated`] leaves what it makes, `[T, n]` both.
#[derive(Debug)]
pub struct ActivatedGradient<'a> {
    /// `du`, for [`backward_input_rows`].
    pub rows: &'a mut PackedRows,
    /// `du`, for gradients of the weights of the layer before the activation, where they are wanted.
    pub output_gradient: Option<&'a TokensPart<'a>>,
    /// `y`, for gradients of the weights of the layer after it, where they are wanted.
    pub input: Option<&'a TokensPart<'a>>,
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
    let tokens = super::rows_of(kept.len(), kept_width(n, precision), "what was kept");
    assert_eq!(dy.len(), tokens * rows, "output gradient of as many rows as the input");
    let ActivatedGradient { rows: packed, output_gradient, input } = to;
    let panels = packed.begin(tokens, n, precision);
    let both = activation::backward_part(activation);
    let nothing = Shared::new(&mut []);
    let dy = Operand { precision, ..Operand::new(dy, rows, Order::LaneRows) };
    each_portion(&dy, tokens, rows, &mut scratch.floats, |part, lhs| {
        let rhs = &mut Rhs::Packed(weight.panels(PackedFor::InputGradient, precision));
        each_strip(n, part, lhs, rhs, &nothing, |mut strip| {
            let columns = strip.col..strip.col + strip.cols;
            #[cfg(target_arch = "x86_64")]
            if precision.by_tiles() {
                let kept = (kept, KeptLayout { rows: tokens, words: kept_width(n, precision) });
                let first = (strip.row, strip.col);
                let pairs = Default::default();
                let mut finish = ActivatedBack { activation, kept, panels, output_gradient, input, first, pairs };
                // SAFETY: the blocks of a product are disjoint, and so are their places.
                #[allow(unsafe_code)]
                unsafe {
                    strip.finish(&mut finish);
                }
                return end_of_writes_past_caches();
            }
            strip.multiply_aside(Start::Zero, |strip, first, d| {
                let row = strip.row + first;
                let cols = columns.len();
                let u = &kept[kept_place(n, precision, row, d.len() / cols, &columns)];
                with_buffer(d.len(), |y| {
                    let mut before = [0.0; JOB_COLS.end];
                    let rows = d.len() / cols;
                    for (i, (d, y)) in d.chunks_exact_mut(cols).zip(y.chunks_exact_mut(cols)).enumerate() {
                        kept_row(u, rows, i, precision, &mut before[..cols]);
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

/// [`super::backward_input_packed`] of a gradient that is packed as well.
pub fn backward_input_rows(dy: &PackedRows, w: &PackedWeight, dx: &mut [f32], mode: Write) {
    assert_eq!((dy.rows * w.cols, dy.cols), (dx.len(), w.rows), "an output gradient of as many rows as the input's");
    let start = if mode == Write::Add { Start::Sum } else { Start::Zero };
    let rhs = &mut Rhs::Packed(w.panels(PackedFor::InputGradient, dy.precision));
    row_product(w.cols, 0..dy.rows, dy.panels(), rhs, dx, |strip| strip.multiply(start));
}
