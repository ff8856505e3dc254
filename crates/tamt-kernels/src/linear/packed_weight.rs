//! [`PackedWeight`]: a masked weight packed once for many products, and [`WeightOperand`]: packed or to be packed.

use rayon::prelude::*;

use crate::base::{AlignedBuffer, Precision, Shared, with_buffer};
use crate::gemm::{Operand, Order, PACK_LANES, Panels, RightOperand, SharedPanels, Side};
use crate::masks::{CompactWeight, WeightRef};

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
    /// Lanes, depth and [`Order`] of a weight `[rows, cols]` as the right operand of the product.
    fn layout(self, (rows, cols): (usize, usize)) -> (usize, usize, Order) {
        match self {
            Self::Forward => (rows, cols, Order::LaneRows),
            Self::InputGradient => (cols, rows, Order::DepthRows),
        }
    }
}

/// A masked weight matrix in panels: a copy that saves packing when several products read the same values.
#[derive(Clone, Debug, Default)]
pub struct PackedWeight {
    panels: AlignedBuffer,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    product: PackedFor,
    precision: Precision,
}

impl PackedWeight {
    /// Packs `W ∘ B` for a product in `precision`.
    pub fn new<'a>(w: impl Into<WeightRef<'a>>, product: PackedFor, precision: Precision) -> Self {
        let mut new = Self::default();
        new.pack(w, product, precision);
        new
    }

    /// Replaces the panels by `W ∘ B` of another weight, and reuses the allocation.
    pub fn pack<'a>(&mut self, w: impl Into<WeightRef<'a>>, product: PackedFor, precision: Precision) {
        let w = w.into();
        w.assert_valid();
        ((self.rows, self.cols), self.product, self.precision) = (w.shape(), product, precision);
        match w {
            WeightRef::Dense(w) => {
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

    /// The panels.
    ///
    /// # Panics
    /// If the weight was packed for another product or precision.
    pub(super) fn panels(&self, product: PackedFor, precision: Precision) -> Panels<'_> {
        assert_eq!((self.product, self.precision), (product, precision), "weights packed for the product at hand");
        let (lanes, depth, _) = product.layout(self.shape());
        Panels::of(precision, Side::Right, lanes, depth, self.panels.as_slice())
    }
}

/// Packs a compact weight into `buffer`: each block is expanded to a dense scratch block in L1, and packed from there.
pub(crate) fn pack_compact<'a>(
    w: &CompactWeight,
    product: PackedFor,
    precision: Precision,
    buffer: &'a mut AlignedBuffer,
) -> Panels<'a> {
    let (rows, cols) = (w.mask().rows(), w.mask().cols());
    let (lanes, depth, order) = product.layout((rows, cols));
    let out = buffer.get(Panels::len_in(precision, Side::Right, lanes, depth));
    let panels = SharedPanels { panels: Shared::new(out), side: Side::Right, lanes, depth, precision };
    // blocks of whole panels and words in every precision
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
                // SAFETY: no other job writes the words of the block: the blocks are disjoint, and of whole panels and
                // words.
                unsafe { panels.pack(&operand, lanes, steps) };
            });
        }
    });
    Panels::of(precision, Side::Right, lanes, depth, out)
}

/// The weight of a forward product.
#[derive(Clone, Copy, Debug)]
pub enum WeightOperand<'a> {
    /// Each call packs the weight.
    Plain(WeightRef<'a>),
    /// A weight packed for [`PackedFor::Forward`] in the precision of the product.
    Packed(&'a PackedWeight),
}

impl<'a> WeightOperand<'a> {
    /// `[out features, in features]`
    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(w) => w.shape(),
            Self::Packed(w) => w.shape(),
        }
    }

    /// # Panics
    /// If the weight's shapes disagree, or the weight was packed for another product or precision.
    pub(super) fn assert_valid(&self, precision: Precision) {
        match self {
            Self::Plain(w) => w.assert_valid(),
            Self::Packed(w) => {
                let _ = w.panels(PackedFor::Forward, precision);
            }
        }
    }

    /// The weight as the right operand of a forward product; `buffer` receives the panels of a [`Self::Plain`] weight.
    pub(super) fn rhs<'b>(&self, precision: Precision, buffer: &'b mut AlignedBuffer) -> RightOperand<'b>
    where
        'a: 'b,
    {
        match *self {
            Self::Plain(WeightRef::Dense(w)) => RightOperand::Plain(
                Operand { mask: w.mask, precision, ..Operand::new(w.values, w.cols, Order::LaneRows) },
                buffer,
            ),
            Self::Plain(WeightRef::Compact(w)) => {
                RightOperand::Packed(pack_compact(w, PackedFor::Forward, precision, buffer))
            }
            Self::Packed(w) => RightOperand::Packed(w.panels(PackedFor::Forward, precision)),
        }
    }
}
