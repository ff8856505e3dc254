//! Corruption of text for masked language modelling (MLM; Devlin et al. 2019, section 3.1).
//!
//! Each position without a `cls`, `sep` or `pad` token is selected independently with the same probability. A share of
//! the selected tokens becomes the mask token, a share becomes a random token, and the rest stays unchanged. The model
//! predicts the original token at each selected position. The random stream depends on the step, so the corruption of
//! a block differs between epochs.

use tamt_kernels::rng::Stream;

use crate::error::{Error, Result};
use crate::tokenizer::Specials;

/// The rates of corruption.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corruption {
    /// The probability that a position is selected.
    pub probability: f32,
    /// The share of selected tokens that becomes the mask token.
    pub mask: f32,
    /// The share of selected tokens that becomes a random token, uniform over the whole vocabulary, special tokens and
    /// the original token included. The remaining share stays unchanged.
    pub random: f32,
}

impl Default for Corruption {
    /// The rates of BERT: 15 % of the positions, of these 80 % masked, 10 % random, 10 % unchanged.
    fn default() -> Self {
        Self { probability: 0.15, mask: 0.8, random: 0.1 }
    }
}

/// A position that the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// Index in the corrupted ids.
    pub position: u32,
    /// The original token.
    pub label: u32,
}

impl Corruption {
    /// Checks the ranges of the rates.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `probability` is not in (0, 1], if `mask` or `random` is negative, or if
    /// they sum to more than 1.
    pub fn validate(&self) -> Result<()> {
        let range = |name, value: f32, fits: bool, expected| {
            if fits { Ok(()) } else { Err(Error::OutOfRange { name, value: f64::from(value), expected }) }
        };
        let p = self.probability;
        range("mlm probability", p, p > 0.0 && p <= 1.0, "must be above 0 and at most 1")?;
        let share = "must be between 0 and 1";
        range("mask share", self.mask, (0.0..=1.0).contains(&self.mask), share)?;
        range("random share", self.random, (0.0..=1.0).contains(&self.random), share)?;
        // The default shares are not exact in binary.
        let both = self.mask + self.random;
        range("mask and random shares together", both, both <= 1.0 + 1e-6, "must be at most 1")
    }

    /// Corrupts `ids` in place and returns the selected positions, in ascending order.
    ///
    /// The result at `ids[i]` depends only on `stream`, `first_position + i` and the token. So a batch may be processed
    /// in parts, if each part gets its own `first_position`. Random tokens are below `vocab_size`.
    pub fn corrupt(
        &self,
        ids: &mut [u32],
        specials: &Specials,
        vocab_size: u32,
        stream: Stream,
        first_position: u64,
    ) -> Vec<Masked> {
        let choose = f64::from(self.probability);
        let mask_below = f64::from(self.mask);
        let random_below = mask_below + f64::from(self.random);
        let mut masked = Vec::new();
        for (i, id) in ids.iter_mut().enumerate() {
            let [chosen, fate, high, low] = stream.block(first_position + i as u64);
            if unit(chosen) >= choose || specials.is_structural(*id) {
                continue;
            }
            masked.push(Masked { position: i as u32, label: *id });
            let fate = unit(fate);
            if fate < mask_below {
                *id = specials.mask;
            } else if fate < random_below {
                *id = below(high, low, vocab_size);
            }
        }
        masked
    }
}

/// 32 random bits as a number in `[0, 1)`.
fn unit(bits: u32) -> f64 {
    f64::from(bits) / 4_294_967_296.0
}

/// A number in `[0, n)`: the high half of the product of 64 random bits with `n`. The bias is below n / 2^64.
fn below(high: u32, low: u32, n: u32) -> u32 {
    let bits = (u64::from(high) << 32) | u64::from(low);
    ((u128::from(bits) * u128::from(n)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tamt_kernels::rng::Purpose;

    use super::*;

    const VOCAB: u32 = 50;
    const SPECIALS: Specials =
        Specials { cls: 0, sep: 1, mask: 2, pad: Some(3), unk: Some(4), pair_separators: 1, second_type: 1 };

    fn stream(step: u64) -> Stream {
        Stream::new(42, Purpose::CORRUPTION, step)
    }

    /// Ordinary tokens, every one of the vocabulary equally often.
    fn text(n: usize) -> Vec<u32> {
        (0..n).map(|i| 5 + (i as u32 % (VOCAB - 5))).collect()
    }

    fn corrupted(n: usize, corruption: Corruption) -> (Vec<u32>, Vec<Masked>) {
        let mut ids = text(n);
        let masked = corruption.corrupt(&mut ids, &SPECIALS, VOCAB, stream(0), 0);
        (ids, masked)
    }

    /// Whether `count` of `n` is within five standard deviations of `p`; a false alarm is one in two million.
    fn plausible(count: usize, n: usize, p: f64) -> bool {
        let (n, count) = (n as f64, count as f64);
        (count - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
    }

    #[test]
    fn fifteen_percent_are_chosen_and_split_eighty_ten_ten() {
        let n = 400_000;
        let (ids, masked) = corrupted(n, Corruption::default());
        assert!(plausible(masked.len(), n, 0.15), "{} chosen", masked.len());

        let became = |m: &Masked| ids[m.position as usize];
        let hidden = masked.iter().filter(|m| became(m) == SPECIALS.mask).count();
        let same = masked.iter().filter(|m| became(m) == m.label).count();
        // A random token may be the mask token or the original one.
        let chance = 0.1 / f64::from(VOCAB);
        assert!(plausible(hidden, masked.len(), 0.8 + chance), "{hidden} masked");
        assert!(plausible(same, masked.len(), 0.1 + chance), "{same} unchanged");
    }

    #[test]
    fn random_tokens_are_uniform_over_the_whole_vocabulary() {
        let all_random = Corruption { probability: 1.0, mask: 0.0, random: 1.0 };
        let n = 200_000;
        let (ids, masked) = corrupted(n, all_random);
        assert_eq!(masked.len(), n);
        for id in 0..VOCAB {
            let count = ids.iter().filter(|&&i| i == id).count();
            assert!(plausible(count, n, 1.0 / f64::from(VOCAB)), "{id}: {count}");
        }
    }

    #[test]
    fn choices_at_neighbouring_positions_are_independent() {
        let n = 400_000;
        let (_, masked) = corrupted(n, Corruption::default());
        let adjacent = masked.windows(2).filter(|w| w[1].position == w[0].position + 1).count();
        assert!(plausible(adjacent, n - 1, 0.15 * 0.15), "{adjacent} adjacent pairs");
    }

    #[test]
    fn structural_tokens_are_never_chosen_even_when_everything_is() {
        let mut ids = vec![0, 7, 8, 1, 4, 2, 1, 3, 3];
        let everything = Corruption { probability: 1.0, mask: 1.0, random: 0.0 };
        let masked = everything.corrupt(&mut ids, &SPECIALS, VOCAB, stream(0), 0);
        assert_eq!(ids, [0, 2, 2, 1, 2, 2, 1, 3, 3]);
        let labels: Vec<_> = masked.iter().map(|m| (m.position, m.label)).collect();
        assert_eq!(labels, [(1, 7), (2, 8), (4, 4), (5, 2)]);
    }

    #[test]
    fn steps_are_corrupted_differently() {
        let corrupt = |step| {
            let mut ids = text(1000);
            Corruption::default().corrupt(&mut ids, &SPECIALS, VOCAB, stream(step), 0)
        };
        assert_ne!(corrupt(0), corrupt(1));
        assert_eq!(corrupt(1), corrupt(1));
    }

    #[test]
    fn shares_that_are_no_probabilities_are_refused() {
        let default = Corruption::default();
        default.validate().unwrap();
        let wrong = [
            Corruption { probability: 0.0, ..default },
            Corruption { probability: 1.1, ..default },
            Corruption { probability: f32::NAN, ..default },
            Corruption { mask: -0.1, ..default },
            Corruption { random: f32::NAN, ..default },
            Corruption { mask: 0.8, random: 0.3, ..default },
        ];
        for corruption in wrong {
            assert!(corruption.validate().is_err(), "{corruption:?}");
        }
    }

    proptest! {
        #[test]
        fn splitting_a_batch_changes_nothing(
            ids in prop::collection::vec(0..VOCAB, 0..300),
            cut in 0usize..300,
            first in 0u64..1 << 40,
        ) {
            let cut = cut.min(ids.len());
            let corruption = Corruption { probability: 0.5, ..Corruption::default() };
            let mut whole = ids.clone();
            let masked = corruption.corrupt(&mut whole, &SPECIALS, VOCAB, stream(3), first);

            let mut parts = ids.clone();
            let (left, right) = parts.split_at_mut(cut);
            let mut joined = corruption.corrupt(left, &SPECIALS, VOCAB, stream(3), first);
            let later = corruption.corrupt(right, &SPECIALS, VOCAB, stream(3), first + cut as u64);
            joined.extend(later.into_iter().map(|m| Masked { position: m.position + cut as u32, ..m }));
            prop_assert_eq!(&whole, &parts);
            prop_assert_eq!(&masked, &joined);

            // Labels restore the original, and nothing else was touched.
            for m in &masked {
                whole[m.position as usize] = m.label;
            }
            prop_assert_eq!(whole, ids);
        }
    }
}
