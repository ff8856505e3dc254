use half::bf16;

use crate::base::dispatch::kernel;
use crate::base::values::{Number, Values};
use crate::masks::bit_mask::BitMask;
use crate::masks::bits::mask_row;
use crate::masks::ranked::RankedMask;

/// What a weight gradient `G = dyᵀ x` becomes on its way out.
#[derive(Clone, Copy, Debug)]
pub enum GradEpilogue<'a> {
    /// `G`
    Dense,
    /// `G ∘ B`: dropped weights get no gradient.
    Masked(&'a BitMask),
    /// The elements of `G` that `B` keeps, in its order and without gaps.
    Survivors(&'a RankedMask),
    /// `G ∘ W`: the straight-through gradient of the scores that decide `B`, dropped weights included.
    Score(Values<'a>),
}

impl GradEpilogue<'_> {
    pub(crate) fn assert_shape(&self, rows: usize, cols: usize) {
        match self {
            Self::Dense => {}
            Self::Masked(mask) => assert_eq!((mask.rows(), mask.cols()), (rows, cols), "a mask of the weights' shape"),
            Self::Survivors(mask) => Self::Masked(mask.mask()).assert_shape(rows, cols),
            Self::Score(w) => assert_eq!(w.len(), rows * cols, "weights of the declared shape"),
        }
    }

    /// Elements of what a gradient `[rows, cols]` becomes.
    pub(crate) fn len(&self, rows: usize, cols: usize) -> usize {
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
