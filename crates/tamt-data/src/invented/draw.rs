//! Sequences of deterministic random choices.

use std::sync::LazyLock;

use tamt_kernels::rng::{Purpose, Stream};

/// The greatest argument of [`Draw::zipf`].
const LARGEST_POOL: usize = 4096;

/// `ZIPF[n]`: the sum of the weights of the first n ranks, in integers for equal results on all machines.
static ZIPF: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut sum = 0;
    std::iter::once(0)
        .chain((0..LARGEST_POOL as u64).map(|rank| {
            sum += (1 << 32) / (rank + 2);
            sum
        }))
        .collect()
});

/// A sequence of random choices for one generated object, such as a lexicon or a paragraph. Sequences are independent, so
/// objects can be generated in any order.
#[derive(Clone)]
pub struct Draw {
    stream: Stream,
    next: u64,
}

impl Draw {
    /// The sequence for object number `index` of the purpose `site`.
    pub fn new(seed: u64, site: u32, index: u64) -> Self {
        Self { stream: Stream::new(seed, Purpose::WORLD, index).fork(site), next: 0 }
    }

    fn bits(&mut self) -> u64 {
        let [high, low, ..] = self.stream.block(self.next);
        self.next += 1;
        (u64::from(high) << 32) | u64::from(low)
    }

    fn below_u64(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// A uniform number in `[0, n)`.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "nothing to draw from");
        self.below_u64(n as u64) as usize
    }

    /// True with a probability of `percent` / 100.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent as usize
    }

    /// A uniformly drawn element of `pool`.
    ///
    /// # Panics
    ///
    /// If `pool` is empty.
    pub fn pick<T: Copy>(&mut self, pool: &[T]) -> T {
        pool[self.below(pool.len())]
    }

    /// A number r in `[0, n)`, with a probability proportional to 1 / (r + 2).
    ///
    /// # Panics
    ///
    /// If `n` is 0 or above 4096.
    pub fn zipf(&mut self, n: usize) -> usize {
        assert!(n > 0, "nothing to draw from");
        let sums = &ZIPF[1..=n];
        let point = self.below_u64(sums[n - 1]);
        sums.partition_point(|&sum| sum <= point)
    }

    /// An element of `pool` at a position drawn by [`Draw::zipf`]: earlier elements are more frequent.
    pub fn pick_zipf<T: Copy>(&mut self, pool: &[T]) -> T {
        pool[self.zipf(pool.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_draws_ranks_by_their_weights() {
        let mut draw = Draw::new(1, 2, 3);
        let n = 60_000;
        let mut counts = [0_usize; 5];
        for _ in 0..n {
            counts[draw.zipf(5)] += 1;
        }
        let total: f64 = (2..7).map(|r| 1.0 / f64::from(r)).sum();
        for (rank, &count) in counts.iter().enumerate() {
            let p = 1.0 / (rank as f64 + 2.0) / total;
            let expected = p * f64::from(n);
            let deviation = (expected * (1.0 - p)).sqrt();
            assert!((count as f64 - expected).abs() < 5.0 * deviation, "{rank}: {count}, not {expected}");
        }
    }

    #[test]
    fn different_sites_and_indices_draw_differently() {
        let first = |site, index| Draw::new(1, site, index).bits();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_ne!(first(1, 1), first(2, 1));
    }
}
