//! Exact selection of the k smallest elements, ties to the lower index.

use rayon::prelude::*;
use std::ops::Range;

use crate::base::{PARTIALS, kernel, map_chunks, reduction_chunk};

/// The key that ranks elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The value itself.
    Value,
    /// The absolute value.
    Magnitude,
}

/// A position in the order of elements by (key, index). Elements up to and including the position are dropped.
///
/// -0 ties with 0, NaN ranks above every number, and negative infinity ties with the smallest finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Key of the last dropped element.
    pub value: f32,
    /// Index of the last dropped element among those with the same key.
    pub index: u64,
}

impl Cut {
    /// Drops nothing.
    pub const NONE: Self = Self { value: f32::NEG_INFINITY, index: 0 };

    /// Drops every element with key <= `value`, and keeps every element with key > `value`.
    pub fn strict(value: f32) -> Self {
        Self { value, index: u64::MAX }
    }
}

/// The [`order`] of an element's key. Negative infinity ranks as the smallest finite number, so that every element
/// ranks above [`Cut::NONE`].
#[inline(always)]
pub(crate) fn element_order(v: f32, key: Key) -> u32 {
    let v = match key {
        Key::Value => v,
        Key::Magnitude => v.abs(),
    };
    order(v).max(order(f32::MIN))
}

/// Maps floats to integers in the same order; -0 maps to the integer of 0, NaN to the largest integer.
#[inline(always)]
pub(crate) fn order(v: f32) -> u32 {
    const ZERO: u32 = 0x8000_0000;
    let magnitude = v.to_bits() & 0x7fff_ffff;
    let ordered = if v.to_bits() & ZERO == 0 { ZERO + magnitude } else { ZERO - magnitude };
    if magnitude > 0x7f80_0000 { u32::MAX } else { ordered }
}

/// The inverse of [`order`].
fn from_order(ordered: u32) -> f32 {
    const ZERO: u32 = 0x8000_0000;
    match ordered {
        u32::MAX => f32::NAN,
        ZERO.. => f32::from_bits(ordered - ZERO),
        _ => -f32::from_bits(ZERO - ordered),
    }
}

/// The bits of the order that each histogram pass resolves, highest first.
const PASSES: [Range<u32>; 3] = [21..32, 10..21, 0..10];

const BINS: usize = 1 << 11;

/// The cut that drops exactly the `k` smallest elements of the concatenated tensors; of equal keys, the lower indices.
/// The cut drops all elements if `k` exceeds their number.
///
/// A radix selection: three histogram passes over an order-preserving integer key, in linear time and without a copy.
pub fn smallest_k(tensors: &[&[f32]], k: u64, key: Key) -> Cut {
    let total: u64 = tensors.iter().map(|t| t.len() as u64).sum();
    let k = k.min(total);
    if k == 0 {
        return Cut::NONE;
    }
    // Invariant: the k-th smallest element is number `rank` (from 0) among the elements whose order begins with
    // `prefix`.
    let (mut prefix, mut rank) = (0, k - 1);
    for bits in PASSES {
        let histogram = histogram(tensors, key, prefix, &bits);
        let mut bin = 0;
        while rank >= histogram[bin] {
            rank -= histogram[bin];
            bin += 1;
        }
        prefix |= (bin as u32) << bits.start;
    }
    Cut { value: from_order(prefix), index: nth_equal(tensors, key, prefix, rank) }
}

/// Counts the values of the bits `bits` of the order, over the elements whose higher bits equal those of `prefix`.
fn histogram(tensors: &[&[f32]], key: Key, prefix: u32, bits: &Range<u32>) -> Vec<u64> {
    let above = u32::MAX.checked_shl(bits.end).unwrap_or(0);
    let mask = (1 << (bits.end - bits.start)) - 1;
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    tensors
        .par_iter()
        .flat_map(|t| t.par_chunks(reduction_chunk(t.len(), 1 << 16)))
        .map(|chunk| {
            let mut counts = vec![0; BINS];
            for &v in chunk {
                let order = element_order(v, key);
                if order & above == prefix {
                    counts[(order >> bits.start & mask) as usize] += 1;
                }
            }
            counts
        })
        .reduce(|| vec![0; BINS], add)
}

/// Index in the concatenated tensors of the `n`-th element (from 0) with the given order.
///
/// # Panics
/// If fewer than `n + 1` elements have this order.
fn nth_equal(tensors: &[&[f32]], key: Key, order: u32, mut n: u64) -> u64 {
    let mut first = 0;
    for tensor in tensors {
        let size = reduction_chunk(tensor.len(), 1 << 16);
        let counts: [u64; PARTIALS] =
            map_chunks(tensor.len(), 1 << 16, |range| count_equal(&tensor[range], order, key));
        for (chunk, count) in tensor.chunks(size).zip(counts) {
            if n < count {
                let mut equal = chunk.iter().enumerate().filter(|&(_, &v)| element_order(v, key) == order);
                let (offset, _) = equal.nth(n as usize).expect("the chunk was counted");
                return first + offset as u64;
            }
            n -= count;
            first += chunk.len() as u64;
        }
    }
    unreachable!("the histogram counted the elements")
}

kernel! {
    /// Number of elements of `x` with this order.
    fn count_equal<FMA>(x: &[f32], order: u32, key: Key) -> u64 {
        match key {
            Key::Value => x.iter().map(|&v| u64::from(element_order(v, Key::Value) == order)).sum(),
            Key::Magnitude => x.iter().map(|&v| u64::from(element_order(v, Key::Magnitude) == order)).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::masks::bit_mask::BitMask;

    /// The dropped indices by the definition: a stable sort.
    fn dropped(tensors: &[Vec<f32>], k: usize, key: Key) -> Vec<usize> {
        let all: Vec<f32> = tensors.concat();
        let mut order: Vec<usize> = (0..all.len()).collect();
        let rank = |i: usize| if key == Key::Magnitude { all[i].abs() } else { all[i] + 0.0 };
        // a stable sort leaves ties in order of their index; NaN is last
        order
            .sort_by(|&a, &b| rank(a).partial_cmp(&rank(b)).unwrap_or_else(|| rank(a).is_nan().cmp(&rank(b).is_nan())));
        order.truncate(k);
        order.sort_unstable();
        order
    }

    fn check(tensors: &[Vec<f32>], k: usize, key: Key) {
        let slices: Vec<&[f32]> = tensors.iter().map(Vec::as_slice).collect();
        let cut = smallest_k(&slices, k as u64, key);
        let (mut first, mut actual) = (0, Vec::new());
        for tensor in tensors {
            let mut mask = BitMask::ones(1, tensor.len());
            let flipped = mask.keep_above_at(tensor, cut, key, first as u64);
            assert_eq!(flipped, tensor.len() - mask.count_ones());
            actual.extend((0..tensor.len()).filter(|&c| !mask.get(0, c)).map(|c| first + c));
            first += tensor.len();
        }
        assert_eq!(actual, dropped(tensors, k, key), "k = {k}, {key:?}, {cut:?}");
    }

    #[test]
    fn order_and_its_inverse_agree() {
        for v in [0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY, -1e-45, -1.0, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(from_order(order(v)), v);
        }
        assert_eq!(order(-0.0), order(0.0));
        assert_eq!(order(-f32::NAN), u32::MAX);
    }

    #[test]
    fn special_values_have_the_documented_order() {
        let odd =
            vec![f32::NAN, 0.0, -0.0, f32::INFINITY, -1.0, 0.0, -f32::NAN, f32::NEG_INFINITY, f32::MIN_POSITIVE, -0.0];
        for k in 0..=odd.len() {
            check(std::slice::from_ref(&odd), k, Key::Value);
            check(std::slice::from_ref(&odd), k, Key::Magnitude);
        }
    }

    #[test]
    fn nothing_is_dropped_by_none_and_everything_by_too_large_a_k() {
        let x = [f32::NEG_INFINITY, 0.0, f32::NAN];
        let mut mask = BitMask::ones(1, 3);
        for key in [Key::Value, Key::Magnitude] {
            assert_eq!(mask.keep_above(&x, Cut::NONE, key), 0);
        }
        assert_eq!(mask.keep_above(&x, smallest_k(&[&x], 99, Key::Value), Key::Value), 3);
        assert_eq!(smallest_k(&[], 5, Key::Value), Cut::NONE);
    }

    #[test]
    fn large_inputs_with_many_ties_are_cut_exactly() {
        let x: Vec<f32> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 64.0 - 20.0).collect();
        let y = vec![0.5; 70_000];
        for k in [1, 99_999, 150_000, 250_001, 369_999, 370_000] {
            check(&[x.clone(), y.clone()], k, Key::Value);
            check(&[x.clone(), y.clone()], k, Key::Magnitude);
        }
    }

    #[test]
    fn the_cut_is_the_same_for_any_number_of_threads() {
        let x: Vec<f32> = (0..400_000).map(|i| (i as f32 * 1.3).sin()).collect();
        same_for_any_pool(|| smallest_k(&[&x, &x[..1000]], 123_456, Key::Magnitude));
    }

    proptest! {
        #[test]
        fn the_cut_equals_a_stable_sort(
            tensors in proptest::collection::vec(proptest::collection::vec(-3i8..3, 0..40), 1..4),
            k in 0usize..130,
            magnitude: bool,
        ) {
            let tensors: Vec<Vec<f32>> = tensors.iter().map(|t| t.iter().map(|&v| f32::from(v)).collect()).collect();
            let n = tensors.iter().map(Vec::len).sum();
            check(&tensors, k.min(n), if magnitude { Key::Magnitude } else { Key::Value });
        }
    }
}
