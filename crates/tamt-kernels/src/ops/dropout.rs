//! Dropout: `y = x ∘ m / (1 - p)`, and `dx = dy ∘ m / (1 - p)` with the same `m` of zeros and ones
//! (`torch.nn.Dropout`).

use rayon::prelude::*;

use crate::base::{CHUNK, Stream, WIDE, kernel, philox_wide};

/// Drop probability, and the random numbers that decide which elements of a tensor are dropped.
///
/// Element `i` survives if its random number is at least `p`. A random number has 16 bits, so that the drop rate is `p`
/// to the nearest 2^-16. Each block of the stream yields eight of them: element `128 g + 64 h + 16 w + l` uses half `h`
/// (low, high) of word `w` of block `16 g + l`. Sixteen blocks that SIMD lanes compute together thus serve 128
/// consecutive elements.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability that an element is dropped, in `[0, 1)`.
    pub p: f32,
    /// Source of the random numbers.
    pub stream: Stream,
    /// Index within the tensor of the first element that a call receives.
    pub first: u64,
}

/// Elements per call of [`philox_wide`].
const PHILOX_ELEMENTS: usize = 8 * WIDE;

/// `x = x ∘ m / (1 - p)`. The backward pass is the same call on the gradient.
pub fn apply(x: &mut [f32], d: Dropout) {
    x.par_chunks_mut(CHUNK).enumerate().for_each(|(job, x)| apply_from(x, (job * CHUNK) as u64, d));
}

/// `to = from ∘ m / (1 - p)`
///
/// # Panics
/// If the lengths differ.
pub fn apply_to(from: &[f32], to: &mut [f32], d: Dropout) {
    assert_eq!(from.len(), to.len(), "a copy of the same length");
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).enumerate().for_each(|(job, (to, from))| {
        for (i, (to, from)) in to.chunks_mut(COPY_ELEMENTS).zip(from.chunks(COPY_ELEMENTS)).enumerate() {
            to.copy_from_slice(from);
            apply_from(to, (job * CHUNK + i * COPY_ELEMENTS) as u64, d);
        }
    });
}

/// Elements that are copied at a time: they stay in the L1 cache until dropout reads them.
const COPY_ELEMENTS: usize = 16 * PHILOX_ELEMENTS;

/// [`apply`] to elements `d.first + first..` of the tensor, on the calling thread.
pub(crate) fn apply_from(x: &mut [f32], first: u64, d: Dropout) {
    let first = d.first + first;
    debug_assert!((0.0..1.0).contains(&d.p), "a drop probability in [0, 1)");
    let offset = (first % PHILOX_ELEMENTS as u64) as usize;
    let (head, body) = x.split_at_mut(if offset == 0 { 0 } else { (PHILOX_ELEMENTS - offset).min(x.len()) });
    let mut group = first / PHILOX_ELEMENTS as u64;
    if !head.is_empty() {
        apply_part(head, offset, group, d);
        group += 1;
    }
    let (whole, tail) = body.as_chunks_mut::<PHILOX_ELEMENTS>();
    apply_groups(whole, group, d);
    if !tail.is_empty() {
        apply_part(tail, 0, group + whole.len() as u64, d);
    }
}

/// [`apply`] to elements `offset..` of one group of [`PHILOX_ELEMENTS`].
fn apply_part(x: &mut [f32], offset: usize, group: u64, d: Dropout) {
    let mut padded = [0.0; PHILOX_ELEMENTS];
    let part = offset..offset + x.len();
    padded[part.clone()].copy_from_slice(x);
    apply_groups(std::slice::from_mut(&mut padded), group, d);
    x.copy_from_slice(&padded[part]);
}

kernel! {
    /// [`apply`] to whole groups.
    fn apply_groups<FMA>(x: &mut [[f32; PHILOX_ELEMENTS]], first_group: u64, d: Dropout) {
        let threshold = (f64::from(d.p) * 65_536.0).round() as u32;
        let scale = (1.0 / (1.0 - f64::from(d.p))) as f32;
        let Stream { key, high } = d.stream;
        for (group, x) in (first_group..).zip(x) {
            let words = philox_wide(group * WIDE as u64, high, key);
            let (low, high) = x.split_at_mut(PHILOX_ELEMENTS / 2);
            for (x, word) in low.iter_mut().zip(words.as_flattened()) {
                *x = select(*x * scale, word & 0xffff >= threshold);
            }
            for (x, word) in high.iter_mut().zip(words.as_flattened()) {
                *x = select(*x * scale, word >> 16 >= threshold);
            }
        }
    }
}

/// `x` if it survives, else +0, without a branch.
#[inline(always)]
fn select(x: f32, survives: bool) -> f32 {
    f32::from_bits(x.to_bits() & 0u32.wrapping_sub(u32::from(survives)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::parallel::tests::same_for_any_pool;
    use crate::base::rng::Purpose;

    fn dropout(p: f32) -> Dropout {
        Dropout { p, stream: Stream::new(3, Purpose::DROPOUT, 9).fork(2), first: 0 }
    }

    /// Whether element `i` survives, by the definition in [`Dropout`].
    fn survives(d: Dropout, i: u64) -> bool {
        let (group, half, word, lane) = (i / 128, i / 64 % 2, i / 16 % 4, i % 16);
        let word = d.stream.block(16 * group + lane)[word as usize];
        let random = if half == 0 { word & 0xffff } else { word >> 16 };
        f64::from(random) >= (f64::from(d.p) * 65_536.0).round()
    }

    #[test]
    fn elements_are_dropped_by_their_own_random_number() {
        let d = dropout(0.3);
        for n in [0, 1, 7, 127, 128, 129, 40_001] {
            let mut x: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
            apply(&mut x, d);
            for (i, &v) in x.iter().enumerate() {
                let expected = if survives(d, i as u64) {
                    (i as f32 + 1.0) * (1.0f64 / (1.0 - f64::from(0.3f32))) as f32
                } else {
                    0.0
                };
                assert_eq!(v, expected);
            }
        }
    }

    #[test]
    fn a_copy_is_dropped_as_in_place() {
        for n in [0, 1, COPY_ELEMENTS + 7, 2 * CHUNK + 129] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
            let (mut copy, mut in_place) = (vec![0.0; n], x.clone());
            apply_to(&x, &mut copy, dropout(0.3));
            apply(&mut in_place, dropout(0.3));
            assert_eq!(copy, in_place);
        }
    }

    #[test]
    fn the_drop_rate_is_p_and_the_mean_stays() {
        for p in [0.0, 0.1, 0.5, 0.9] {
            let mut x = vec![1.0; 400_000];
            apply(&mut x, dropout(p));
            let dropped = x.iter().filter(|&&v| v == 0.0).count() as f64 / x.len() as f64;
            let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
            assert!((dropped - f64::from(p)).abs() < 0.003, "{dropped} dropped at {p}");
            assert!((mean - 1.0).abs() < 0.02, "mean {mean} at {p}");
        }
    }

    #[test]
    fn dropout_is_the_same_for_any_number_of_threads() {
        same_for_any_pool(|| {
            let mut x = vec![1.0; 3 * CHUNK + 77];
            apply(&mut x, dropout(0.1));
            x
        });
    }

    proptest! {
        #[test]
        fn a_part_is_dropped_as_in_the_whole(start in 0usize..700, len in 0usize..700) {
            let d = dropout(0.4);
            let mut whole = vec![1.0; 1400];
            apply(&mut whole, d);
            let mut part = vec![1.0; len];
            apply_from(&mut part, start as u64, d);
            prop_assert_eq!(&part[..], &whole[start..start + len]);
            let mut part = vec![1.0; len];
            apply(&mut part, Dropout { first: start as u64, ..d });
            prop_assert_eq!(&part[..], &whole[start..start + len]);
        }
    }
}
