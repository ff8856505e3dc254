//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A number is a function of (seed, purpose, step, position). Without shared state, neither the order of evaluation nor
//! the number of threads nor a resumed run changes a number.

/// The use of random numbers. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purpose(pub u32);

impl Purpose {
    /// Dropout; each site forks the stream.
    pub const DROPOUT: Self = Self(1);
    /// Corruption of training text for masked language modelling.
    pub const CORRUPTION: Self = Self(2);
    /// Corruption of evaluation text.
    pub const EVAL_CORRUPTION: Self = Self(3);
    /// Order of the examples.
    pub const SHUFFLE: Self = Self(4);
    /// Initial weights.
    pub const INIT: Self = Self(5);
    /// Random masks.
    pub const MASK_INIT: Self = Self(6);
    /// Initial scores.
    pub const SCORE_INIT: Self = Self(7);
    /// Masks drawn bit by bit.
    pub const BERNOULLI_MASK: Self = Self(8);
    /// Synthetic text of the demo.
    pub const WORLD: Self = Self(9);
    /// Choice of a subset of the examples.
    pub const SUBSET: Self = Self(10);
}

/// Philox's multipliers.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// Philox's key increments, of a Weyl sequence.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The Philox4x32-10 block function.
#[inline(always)]
pub(crate) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// An endless array of random numbers, addressed by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub(crate) key: [u32; 2],
    /// Upper words of the counter.
    pub(crate) high: [u32; 2],
}

impl Stream {
    /// The stream for a seed, a purpose and a step.
    pub fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
        let seed = [seed as u32, (seed >> 32) as u32];
        let derived = philox([step as u32, (step >> 32) as u32, purpose.0, 0], seed);
        Self::from_block(derived)
    }

    /// An independent stream for a part of this stream's purpose, such as one dropout site.
    pub fn fork(&self, site: u32) -> Self {
        // the highest positions serve as keys only: no caller reads numbers there
        Self::from_block(self.block(u64::MAX - u64::from(site)))
    }

    fn from_block(b: [u32; 4]) -> Self {
        Self { key: [b[0], b[1]], high: [b[2], b[3]] }
    }

    /// The 128 random bits of position `index`.
    #[inline(always)]
    pub fn block(&self, index: u64) -> [u32; 4] {
        philox([index as u32, (index >> 32) as u32, self.high[0], self.high[1]], self.key)
    }

    /// 32 random bits.
    pub fn u32_at(&self, index: u64) -> u32 {
        self.block(index)[0]
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform_at(&self, index: u64) -> f32 {
        (self.u32_at(index) >> 8) as f32 / 16_777_216.0
    }

    /// Uniform in `0..n` by multiply and shift of 64 bits, with a bias of at most `n` / 2^64. 0 for `n` = 0.
    pub fn below_at(&self, index: u64, n: u32) -> u32 {
        let b = self.block(index);
        let bits = u64::from(b[0]) << 32 | u64::from(b[1]);
        ((u128::from(bits) * u128::from(n)) >> 64) as u32
    }

    /// Standard normal, by the Box-Muller transform in f64.
    pub fn normal_at(&self, index: u64) -> f32 {
        let b = self.block(index);
        let u = (f64::from(b[0]) + 1.0) / 4_294_967_296.0;
        let v = f64::from(b[1]) / 4_294_967_296.0;
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// Shuffles in place (Fisher-Yates) with positions `1..x.len()` of this stream.
    ///
    /// # Panics
    /// If `x` has 2^32 elements or more.
    pub fn shuffle(&self, x: &mut [u32]) {
        assert!(u32::try_from(x.len()).is_ok(), "fewer than 2^32 elements");
        for i in (1..x.len()).rev() {
            let j = self.below_at(i as u64, i as u32 + 1) as usize;
            x.swap(i, j);
        }
    }
}

/// Blocks of one call of [`philox_wide`].
pub(crate) const WIDE: usize = 16;

/// [`philox`] of [`WIDE`] consecutive counters: word `w` of block `b` is `[w][b]`.
///
/// Two blocks share a 64-bit lane, the even one in the low half: SIMD multiplies 32 by 32 to 64 bits within such lanes,
/// so no value moves between lanes.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // four arrays advance together, lane by lane
pub(crate) fn philox_wide(first: u64, high: [u32; 2], mut key: [u32; 2]) -> [[u32; WIDE]; 4] {
    const LANES: usize = WIDE / 2;
    const LOW: u64 = 0xffff_ffff;
    let twice = |word: u32| u64::from(word) | u64::from(word) << 32;
    let [a, b] = MULTIPLIERS.map(u64::from);
    let mut c = [[0; LANES], [0; LANES], [twice(high[0]); LANES], [twice(high[1]); LANES]];
    for i in 0..LANES {
        let (even, odd) = (first + 2 * i as u64, first + 2 * i as u64 + 1);
        c[0][i] = even & LOW | odd << 32;
        c[1][i] = even >> 32 | odd & !LOW;
    }
    for _ in 0..10 {
        let keys = key.map(twice);
        for i in 0..LANES {
            let (a_even, a_odd) = ((c[0][i] & LOW) * a, (c[0][i] >> 32) * a);
            let (b_even, b_odd) = ((c[2][i] & LOW) * b, (c[2][i] >> 32) * b);
            c[0][i] = (b_even >> 32 | b_odd & !LOW) ^ c[1][i] ^ keys[0];
            c[1][i] = b_even & LOW | b_odd << 32;
            c[2][i] = (a_even >> 32 | a_odd & !LOW) ^ c[3][i] ^ keys[1];
            c[3][i] = a_even & LOW | a_odd << 32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c.map(|word| std::array::from_fn(|block| (word[block / 2] >> (32 * (block % 2))) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (`kat_vectors`, philox4x32 with 10 rounds).
    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn the_wide_generator_equals_the_narrow_one() {
        let s = Stream::new(7, Purpose::DROPOUT, 3);
        let first = u64::from(u32::MAX) - 5;
        let wide = philox_wide(first, s.high, s.key);
        for i in 0..WIDE {
            assert_eq!(s.block(first + i as u64), wide.map(|word| word[i]));
        }
    }

    #[test]
    fn seed_purpose_step_and_site_each_change_the_numbers() {
        let base = Stream::new(1, Purpose::DROPOUT, 0);
        let others = [
            Stream::new(2, Purpose::DROPOUT, 0),
            Stream::new(1 << 32 | 1, Purpose::DROPOUT, 0),
            Stream::new(1, Purpose::SHUFFLE, 0),
            Stream::new(1, Purpose::DROPOUT, 1),
            Stream::new(1, Purpose::DROPOUT, 1 << 32),
            base.fork(0),
            base.fork(1),
        ];
        for (i, a) in others.iter().enumerate() {
            assert_ne!(a.block(0), base.block(0));
            assert!(others[..i].iter().all(|b| a.block(0) != b.block(0)));
        }
    }

    #[test]
    fn uniform_numbers_have_the_mean_and_variance_of_the_uniform_distribution() {
        let s = Stream::new(5, Purpose::INIT, 0);
        let n = 100_000;
        let x: Vec<f64> = (0..n).map(|i| f64::from(s.uniform_at(i))).collect();
        assert!(x.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = x.iter().sum::<f64>() / n as f64;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.004 && (variance - 1.0 / 12.0).abs() < 0.001, "{mean} {variance}");
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_normal_distribution() {
        let s = Stream::new(5, Purpose::INIT, 1);
        let n = 100_000;
        let x: Vec<f64> = (0..n).map(|i| f64::from(s.normal_at(i))).collect();
        let moment = |p: i32| x.iter().map(|v| v.powi(p)).sum::<f64>() / n as f64;
        assert!(moment(1).abs() < 0.015, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 0.15, "{}", moment(4));
    }

    #[test]
    fn bounded_numbers_are_in_bounds_and_even() {
        let s = Stream::new(11, Purpose::SUBSET, 0);
        let mut counts = [0; 7];
        for i in 0..70_000 {
            counts[s.below_at(i, 7) as usize] += 1;
        }
        assert!(counts.iter().all(|c| (9_600..10_400).contains(c)), "{counts:?}");
        assert_eq!((s.below_at(0, 0), s.below_at(0, 1)), (0, 0));
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_moves_things() {
        let mut x: Vec<u32> = (0..1000).collect();
        Stream::new(1, Purpose::SHUFFLE, 0).shuffle(&mut x);
        let fixed = x.iter().enumerate().filter(|&(i, &v)| i as u32 == v).count();
        assert!(fixed < 10, "{fixed} of 1000 stayed in place");
        x.sort_unstable();
        assert!(x.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }
}
