//! [`GradEpilogue`]: the elementwise function of a weight gradient that a product applies to its output.

use crate::base::{Number, Values, kernel};
use crate::masks::bit_mask::BitMask;
use crate::masks::bits::mask_row;
use crate::masks::ranked::RankedMask;

/// The output of a weight-gradient product as a function of `G = dyᵀ x`, `[rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub enum GradEpilogue<'a> {
    /// `G`
    Dense,
    /// `G ∘ B`: dropped weights get no gradient.
    Masked(&'a BitMask),
    /// The elements of `G` that `B` keeps, a list in mask order.
    Survivors(&'a RankedMask),
    /// `G ∘ W`: the straight-through gradient of the scores that decide `B`, for kept and dropped weights alike.
    Score(Values<'a>),
}

impl GradEpilogue<'_> {
    /// # Panics
    /// If the mask or the weights of the epilogue are not `[rows, cols]`.
    pub(crate) fn assert_shape(&self, rows: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => assert_eq!((mask.rows(), mask.cols()), (rows, cols), "a mask of the weights' shape"),
            Self::Survivors(mask) => Self::Masked(mask.mask()).assert_shape(rows, cols),
            Self::Score(w) => assert_eq!(w.len(), rows * cols, "weights of the declared shape"),
        }
    }

    /// Number of output elements for a gradient `[rows, cols]`.
    pub(crate) fn len(&self, rows: usize, cols: usize) -> usize {
        if let Self::Survivors(mask) = self { mask.survivors() } else { rows * cols }
    }

    /// Applies the epilogue in place to `g`, columns `col..` of row `row` of a gradient with `cols` columns. `col` is a
    /// multiple of 8.
    ///
    /// # Panics
    /// If the epilogue is [`Self::Survivors`], which changes the number of elements.
    pub(crate) fn apply(&self, g: &mut [f32], row: usize, col: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => mask_row(&mask.row(row)[col / 8..], g),
            Self::Survivors(_) => unreachable!("survivors are gathered"),
            Self::Score(w) => multiply_elements(g, w.part(row * cols + col..row * cols + col + g.len())),
        }
    }
}

kernel! {
    /// `x = x ∘ factors`
    fn multiply_elements<FMA>(x: &mut [f32], factors: Values<'_>) {
        match factors {
            Values::F32(factors) => {
                for (x, factor) in x.iter_mut().zip(factors) {
                    *x *= factor;
                }
            }
            Values::Bf16(factors) => {
                for (x, factor) in x.iter_mut().zip(factors) {
                    *x *= factor.get();
                }
            }
        }
    }
}
