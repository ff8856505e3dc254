//! Operands that are packed once for several products.

use std::ops::Range;

use super::{Layer, Scratch, Weight, apply, check_layers, each_portion};
use crate::activation::{self, Activation};
use crate::pack::{Operand, Order, Panels, Side};
use crate::parallel::{Buffer, Shared};
use crate::precision::Precision;
use crate::product::{Rhs, Start, each_strip};

/// The product that a weight matrix is packed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackedFor {
    /// `x (W ∘ B)ᵀ`
    #[default]
    Forward,
    /// `dy (W ∘ B)`
    InputGradient,
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
    pub fn new(w: Weight<'_>, product: PackedFor, precision: Precision) -> Self {
        let mut new = Self::default();
        new.pack(w, product, precision);
        new
    }

    /// Packs another weight in its place.
    pub fn pack(&mut self, w: Weight<'_>, product: PackedFor, precision: Precision) {
        w.assert_valid();
        (self.rows, self.cols, self.product, self.precision) = (w.rows, w.cols, product, precision);
        let (lanes, depth, order) = self.layout();
        let operand = Operand { mask: w.mask, precision, ..Operand::new(w.values, w.cols, order) };
        let out = self.panels.get(Panels::len_in(precision, Side::Right, lanes, depth));
        Panels::pack_parallel(Side::Right, &operand, 0..lanes, depth, out);
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Lanes, steps of the depth, and what a row of the matrix is in the product.
    fn layout(&self) -> (usize, usize, Order) {
        match self.product {
            PackedFor::Forward => (self.rows, self.cols, Order::LaneRows),
            PackedFor::InputGradient => (self.cols, self.rows, Order::DepthRows),
        }
    }

    /// The panels, if they were packed for this product.
    pub(super) fn panels(&self, product: PackedFor, precision: Precision) -> Panels<'_> {
        assert_eq!((self.product, self.precision), (product, precision), "weights packed for the product at hand");
        let (lanes, depth, _) = self.layout();
        Panels::of(precision, Side::Right, lanes, depth, self.panels.as_slice())
    }
}

/// What a layer multiplies by.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// Packed by each call.
    Plain(Weight<'a>),
    /// Packed before, for [`PackedFor::Forward`] in the precision of the product.
    Packed(&'a PackedWeight),
}

impl<'a> Matrix<'a> {
    /// `[out features, in features]`
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(w) => (w.rows, w.cols),
            Self::Packed(w) => (w.rows, w.cols),
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
            Self::Plain(w) => Rhs::Plain(
                Operand { mask: w.mask, precision, ..Operand::new(w.values, w.cols, Order::LaneRows) },
                buffer,
            ),
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
    fn panels(&self) -> Panels<'_> {
        Panels::of(self.precision, Side::Left, self.rows, self.cols, self.panels.as_slice())
    }
}

/// A block `[rows, cols]` of an operand, packed into its place among panels that several jobs write.
///
/// The block begins with a panel and with a whole word, and either ends so or where the operand ends.
fn pack_block(
    panels: &Shared<'_, f32>,
    (lanes, depth): (usize, usize),
    precision: Precision,
    row: usize,
    col: usize,
    block: &[f32],
    cols: usize,
) {
    let (width, padded) = (Side::Left.width(precision), Side::Left.padded(lanes, precision));
    let rows = block.len() / cols;
    let operand = Operand { precision, ..Operand::new(block, cols, Order::LaneRows) };
    let mut from = col;
    while from < col + cols {
        let begin = from / precision.depth_block() * precision.depth_block();
        let end = depth.min(begin + precision.depth_block());
        let to = end.min(col + cols);
        let words = precision.words(end - begin);
        for first in (0..rows).step_by(width) {
            let at = precision.words(begin) * padded + (row + first) * words + precision.words(from - begin) * width;
            let lanes = first..rows.min(first + width);
            let len = Panels::len_in(precision, Side::Left, lanes.len(), to - from);
            // SAFETY: the blocks of a product are disjoint, and so are their places.
            #[allow(unsafe_code)]
            let out = unsafe { panels.part(at..at + len) };
            Panels::pack(Side::Left, &operand, lanes, from - col..to - col, out);
        }
        from = to;
    }
}

/// `y = f(x (W ∘ B)ᵀ + b)`, packed for the next layer: `x` `[T, cols]`, `bias` `[rows]`. `kept`, if wanted, is what comes
/// before the activation, `[T, rows]`.
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
    let tokens = super::rows_of(x, cols, "input");
    assert!(kept.as_ref().is_none_or(|kept| kept.len() == tokens * rows), "what is kept has as many rows");
    (y.rows, y.cols, y.precision) = (tokens, rows, precision);
    let panels = Shared::new(y.panels.get(Panels::len_in(precision, Side::Left, tokens, rows)));
    let keep = kept.is_some();
    let kept = Shared::new(kept.unwrap_or_default());
    let x = Operand { precision, ..Operand::new(x, cols, Order::LaneRows) };
    each_portion(&x, tokens, cols, &mut scratch.floats, |part, lhs| {
        let mut rhs = weight.rhs(precision, &mut scratch.panels);
        each_strip(rows, part, lhs, &mut rhs, &kept, |mut strip| {
            let columns: Range<usize> = strip.col..strip.col + strip.cols;
            strip.multiply_aside(Start::Bias(&bias[columns.clone()]), |strip, first, block| {
                if keep {
                    for (i, row) in block.chunks_exact(columns.len()).enumerate() {
                        strip.row_mut(first + i).copy_from_slice(row);
                    }
                }
                activation::apply(activation, block);
                let row = strip.row + first;
                pack_block(&panels, (tokens, rows), precision, row, columns.start, block, columns.len());
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
