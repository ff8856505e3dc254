//! Element types: f32, bf16, and the words of packed panels, which hold either.

use half::bf16;
use std::ops::Range;

use crate::base::dispatch::kernel;
use crate::base::prefetch::prefetch;

/// The bits of `x` rounded to bf16, ties to even. NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let quiet = bits | 0x0040_0000;
    (if x.is_nan() { quiet } else { rounded }) >> 16
}

/// `x` rounded to bf16, ties to even.
#[inline(always)]
pub(crate) fn round_to_bf16(x: f32) -> bf16 {
    bf16::from_bits(bf16_bits(x) as u16)
}

/// An element type that converts to f32 without loss.
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
    /// Shifts bits: the conversion of `half` has a branch for NaN, which prevents vectorisation.
    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Four bytes of a packed panel: one element in f32, or two in bf16. Of a pair in bf16 the earlier step of the depth is
/// the low half. A panel is read as floats or as pairs, as its [`Precision`](crate::Precision) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Word(u32);

impl Word {
    /// Words that hold f32, as floats.
    #[inline(always)]
    pub(crate) fn floats(words: &[Self]) -> &[f32] {
        // SAFETY: a `Word` is a transparent `u32`, of the size and alignment of `f32`, which accepts every bit pattern.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// [`Word::floats`] to be written.
    #[inline(always)]
    pub(crate) fn floats_mut(words: &mut [Self]) -> &mut [f32] {
        // SAFETY: as in `floats`; `u32` accepts every bit pattern of a float, too.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }
}

/// Elements that a kernel reads, in f32 or, in half the memory, in bf16.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Elements in f32.
    F32(&'a [f32]),
    /// Elements in bf16.
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// Number of elements.
    pub fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether the slice is empty.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements of a range.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }

    /// Prefetches the elements into the caches.
    pub(crate) fn prefetch(self) {
        match self {
            Self::F32(values) => prefetch(values),
            Self::Bf16(values) => prefetch(values),
        }
    }

    /// Copies the elements to `out` of the same length, as f32.
    pub(crate) fn write_to(self, out: &mut [f32]) {
        match self {
            Self::F32(values) => out.copy_from_slice(values),
            Self::Bf16(values) => widen(values, out),
        }
    }
}

/// Elements that a kernel writes, in f32 or rounded to bf16.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Elements in f32.
    F32(&'a mut [f32]),
    /// Elements rounded to bf16.
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

/// Implements the conversions from slices and vectors.
macro_rules! from_slices {
    ($($values:ident::$variant:ident($slice:ty);)+) => {$(
        impl<'a> From<$slice> for $values<'a> {
            fn from(values: $slice) -> Self {
                Self::$variant(values)
            }
        }
    )+};
}

from_slices! {
    Values::F32(&'a [f32]);
    Values::F32(&'a Vec<f32>);
    Values::Bf16(&'a [bf16]);
    ValuesMut::F32(&'a mut [f32]);
    ValuesMut::F32(&'a mut Vec<f32>);
    ValuesMut::Bf16(&'a mut [bf16]);
}

impl<'a, const N: usize> From<&'a [f32; N]> for Values<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::F32(values)
    }
}

kernel! {
    /// `out = x`, rounded to bf16, ties to even.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn round<FMA>(x: &[f32], out: &mut [bf16]) {
        assert_eq!(x.len(), out.len(), "buffers of the same length");
        for (x, out) in x.iter().zip(out) {
            *out = round_to_bf16(*x);
        }
    }

    /// Rounds f32 in place to the nearest values of bf16.
    pub(crate) fn round_in_place<FMA>(x: &mut [f32]) {
        for x in x {
            *x = f32::from_bits(bf16_bits(*x) << 16);
        }
    }

    /// `out = x`, converted to f32.
    ///
    /// # Panics
    /// If the lengths differ.
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
        super::round_to_bf16(x).to_f32()
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
