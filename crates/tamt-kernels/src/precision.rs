//! The precision of the operands of dense products.

use std::ops::Range;

use half::bf16;
use serde::{Deserialize, Serialize};

use crate::dispatch::{self, Bf16, fetch, kernel};
use crate::product::{DEPTH_BLOCK, TILE};

/// The precision that the operands of products are rounded to: of dense ones, and where there are fast instructions for it of
/// attention's and of sparse ones. Sums are in f32 whatever it is, and so is everything that is no product: softmax, normalisation,
/// losses, optimisers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision: nothing is rounded.
    #[default]
    F32,
    /// bfloat16, eight bits of significand: twice as fast or more where the processor has fast instructions for it, as fast as
    /// f32 elsewhere, and in less memory.
    Bf16,
}

impl Precision {
    /// The better one on this processor: [`Precision::Bf16`] where it has instructions for it.
    #[must_use]
    pub fn native() -> Self {
        if dispatch::has_bf16() { Self::Bf16 } else { Self::F32 }
    }

    /// Whether panels hold operands in bf16, two in a word and sixteen words in a tile's row, for AMX or AVX-512-BF16. Where nothing
    /// multiplies them faster than floats, they are floats that were rounded.
    #[inline]
    pub(crate) fn by_tiles(self) -> bool {
        self == Self::Bf16 && dispatch::bf16() > Bf16::Floats
    }

    /// Whether sparse products are of bf16 too: where AVX-512-BF16 multiplies twice as fast as AVX-512. Beside tile registers it does
    /// not.
    #[inline]
    pub(crate) fn in_sparse_pairs(self) -> bool {
        self == Self::Bf16 && dispatch::bf16() == Bf16::Pairs
    }

    /// The precision of the arithmetic, for operands that it does not pay to round: f32 where nothing multiplies bf16 faster.
    #[must_use]
    pub fn as_computed(self) -> Self {
        if self.by_tiles() { Self::Bf16 } else { Self::F32 }
    }

    /// Steps of the depth in a word of a panel. Two of bf16 are a low and a high half.
    pub(crate) fn steps_in_word(self) -> usize {
        if self.by_tiles() { 2 } else { 1 }
    }

    /// Words that hold `steps` of a lane; whole tiles of them where panels are made of those.
    pub(crate) fn words(self, steps: usize) -> usize {
        let words = steps.div_ceil(self.steps_in_word());
        if self.by_tiles() { words.next_multiple_of(TILE) } else { words }
    }

    /// Words of a lane in a block of the depth.
    pub(crate) fn block_words(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.by_tiles() {
            return crate::tiles::BLOCK_WORDS;
        }
        DEPTH_BLOCK
    }

    /// Steps in a block of the depth.
    pub(crate) fn depth_block(self) -> usize {
        self.block_words() * self.steps_in_word()
    }
}

/// The upper half of the bits of `x` after rounding to bf16, ties to even. NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let quiet = bits | 0x0040_0000;
    (if x.is_nan() { quiet } else { rounded }) >> 16
}

/// The nearest number in bf16, of two the even one.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> bf16 {
    bf16::from_bits(bf16_bits(x) as u16)
}

/// What can be read as f32.
pub(crate) trait Number: Copy + Send + Sync {
    fn get(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    /// Without a case for NaN, which would keep a loop from being vectorised.
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Elements that a kernel reads: in f32, or in bf16, which take half the memory.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// In f32.
    F32(&'a [f32]),
    /// In bf16.
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// Number of elements.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of the elements.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }

    /// Has them brought into the caches, ahead of their use.
    pub(crate) fn fetch(self) {
        match self {
            Self::F32(values) => fetch(values),
            Self::Bf16(values) => fetch(values),
        }
    }

    /// Writes all elements as f32.
    pub(crate) fn write_to(self, out: &mut [f32]) {
        match self {
            Self::F32(values) => out.copy_from_slice(values),
            Self::Bf16(values) => widen(values, out),
        }
    }
}

/// Elements that a kernel writes: in f32, or rounded to bf16.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// In f32.
    F32(&'a mut [f32]),
    /// Rounded.
    Bf16(&'a mut [bf16]),
}

impl ValuesMut<'_> {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

impl<'a> From<&'a mut [f32]> for ValuesMut<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a mut Vec<f32>> for ValuesMut<'a> {
    fn from(values: &'a mut Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a mut [bf16]> for ValuesMut<'a> {
    fn from(values: &'a mut [bf16]) -> Self {
        Self::Bf16(values)
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Values<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Values<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Self::Bf16(values)
    }
}

kernel! {
    /// `out = x`, rounded.
    pub fn round<FMA>(x: &[f32], out: &mut [bf16]) {
        assert_eq!(x.len(), out.len(), "buffers of the same length");
        for (x, out) in x.iter().zip(out) {
            *out = rounded(*x);
        }
    }
}

kernel! {
    /// Rounds in place.
    pub(crate) fn round_in_place<FMA>(x: &mut [f32]) {
        for x in x {
            *x = f32::from_bits(bf16_bits(*x) << 16);
        }
    }
}

kernel! {
    /// `out = x`
    pub fn widen<FMA>(x: &[bf16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "buffers of the same length");
        for (x, out) in x.iter().zip(out) {
            *out = x.get();
        }
    }
}

#[cfg(test)]
mod tests {
    fn rounded(x: f32) -> f32 {
        super::rounded(x).to_f32()
    }

    #[test]
    fn rounding_is_to_the_nearest_and_to_even() {
        for exact in [0.0, -0.0, 1.0, -2.5, 256.0, f32::INFINITY, f32::NEG_INFINITY, 3.389_531_4e38] {
            assert_eq!(rounded(exact).to_bits(), exact.to_bits());
        }
        let step = 2.0f32.powi(-7);
        assert_eq!(rounded(1.0 + 0.49 * step), 1.0);
        assert_eq!(rounded(1.0 + 0.51 * step), 1.0 + step);
        assert_eq!(rounded(1.0 + 0.5 * step), 1.0, "the even neighbour is below");
        assert_eq!(rounded(1.0 + 1.5 * step), 1.0 + 2.0 * step, "the even neighbour is above");
        assert_eq!(rounded(f32::MAX), f32::INFINITY);
        assert!(rounded(f32::NAN).is_nan() && rounded(f32::from_bits(0x7f80_0001)).is_nan());
    }
}
