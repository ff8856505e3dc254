//! [`Weight`] and [`WeightRef`]: weight matrices as arguments of kernels.

use std::ops::Range;

use crate::base::{Values, prefetch};
use crate::masks::bit_mask::BitMask;
use crate::masks::compact::CompactWeight;

/// A weight matrix `[rows, cols]` = `[out features, in features]` (the layout of `PyTorch`) with an optional mask.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// The elements, row after row.
    pub values: Values<'a>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The elements that take part; `None` stands for all.
    pub mask: Option<&'a BitMask>,
}

/// A weight matrix, with or without the dropped elements.
#[derive(Clone, Copy, Debug)]
pub enum WeightRef<'a> {
    /// All elements.
    Dense(Weight<'a>),
    /// The survivors of the mask.
    Compact(&'a CompactWeight),
}

impl<'a> From<Weight<'a>> for WeightRef<'a> {
    fn from(weight: Weight<'a>) -> Self {
        Self::Dense(weight)
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
            Self::Dense(w) => (w.rows, w.cols),
            Self::Compact(w) => (w.mask().rows(), w.mask().cols()),
        }
    }

    /// The elements that take part; `None` stands for all.
    pub fn mask(self) -> Option<&'a BitMask> {
        match self {
            Self::Dense(w) => w.mask,
            Self::Compact(w) => Some(w.mask()),
        }
    }

    /// # Panics
    /// If the values or the mask are not of the declared shape.
    pub(crate) fn assert_valid(self) {
        let Self::Dense(w) = self else { return };
        assert_eq!(w.values.len(), w.rows * w.cols, "weights of the declared shape");
        if let Some(mask) = w.mask {
            assert_eq!((mask.rows(), mask.cols()), (w.rows, w.cols), "a mask of the weights' shape");
        }
    }

    /// Writes columns `cols` of a row; dropped elements are unspecified. `cols` starts at a multiple of 8, and ends at
    /// a multiple of 8 or at the row's end.
    pub(crate) fn write_part(self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        match self {
            Self::Dense(w) => w.values.part(row * w.cols + cols.start..row * w.cols + cols.end).write_to(out),
            Self::Compact(w) => w.write_part(row, cols, out),
        }
    }

    /// Prefetches a row and the row of its mask into L1.
    pub(crate) fn prefetch_row(self, row: usize) {
        match self {
            Self::Dense(w) => {
                w.values.part(row * w.cols..(row + 1) * w.cols).prefetch();
                w.mask.into_iter().for_each(|mask| prefetch(mask.row(row)));
            }
            Self::Compact(w) => w.prefetch_row(row),
        }
    }
}
