//! Tokenization of examples, and random subsets of them.

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tamt_kernels::rng::{Purpose, Stream};

use crate::error::{Error, Result, at_least_one};
use crate::head::Label;
use crate::tasks::example::Example;
use crate::tokenizer::{Pair, Tokenizer};

/// A tokenized example.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// The token ids: `cls` text `sep`, or `cls` first `sep` second `sep`, with two `sep` in the middle for RoBERTa.
    pub ids: Vec<u32>,
    /// The token type of each id: 0 for the first text, 1 for the second; all 0 for RoBERTa.
    pub type_ids: Vec<u32>,
    /// The gold label.
    pub label: Option<Label>,
}

/// Tokenizes examples in parallel, in order. A sequence has at most `max_length` tokens; the longer text of a pair is
/// truncated first.
///
/// Texts are tokenized without a leading space, as in current versions of `transformers`; the reference implementation
/// adds a space for RoBERTa.
///
/// # Errors
///
/// [`Error::Length`] if `max_length` leaves no room for text, [`Error::Tokenize`].
pub fn encode(examples: &[Example], tokenizer: &Tokenizer, max_length: usize) -> Result<Vec<Feature>> {
    let feature = |example: &Example| {
        let Pair { ids, type_ids } = encode_one(&example.first, example.second.as_deref(), tokenizer, max_length)?;
        Ok(Feature { ids, type_ids, label: example.label })
    };
    examples.par_iter().with_min_len(64).map(feature).collect()
}

/// The tokens of one text or of a pair, as [`encode`] gives them.
///
/// # Errors
///
/// Those of [`encode`].
pub fn encode_one(first: &str, second: Option<&str>, tokenizer: &Tokenizer, max_length: usize) -> Result<Pair> {
    if let Some(second) = second {
        return tokenizer.encode_pair(first, second, max_length);
    }
    let ids = tokenizer.encode(first, max_length)?;
    Ok(Pair { type_ids: vec![0; ids.len()], ids })
}

/// A random subset of `n` of the indices `0..total`, ascending: the examples of a small training set.
///
/// The subset depends only on the sizes, the seed and the task's name, so all methods train on the same examples. For one
/// seed, a smaller subset is part of every larger one.
///
/// # Errors
///
/// [`Error::OutOfRange`] unless `n` is at least 1 and at most `total`.
pub fn subset(task: &str, total: usize, n: usize, seed: u64) -> Result<Vec<usize>> {
    at_least_one("train examples", n)?;
    let out_of_range = |expected| Error::OutOfRange { name: "train examples", value: n as f64, expected };
    if n > total {
        return Err(out_of_range("must not exceed the examples of the training set"));
    }
    let total = u32::try_from(total).map_err(|_| out_of_range("the training set must be below 2^32 examples"))?;
    let digest = Sha256::digest(task.as_bytes());
    let site = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let mut order: Vec<u32> = (0..total).collect();
    Stream::new(seed, Purpose::SUBSET, 0).fork(site).shuffle(&mut order);
    let mut chosen: Vec<usize> = order[..n].iter().map(|&i| i as usize).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_depends_on_seed_and_task_and_lies_in_every_larger_one() {
        let small = subset("cola", 8551, 100, 1).unwrap();
        let large = subset("cola", 8551, 1000, 1).unwrap();
        assert_eq!(small, subset("cola", 8551, 100, 1).unwrap());
        assert_ne!(small, subset("cola", 8551, 100, 2).unwrap());
        assert_ne!(small, subset("sst2", 8551, 100, 1).unwrap());
        assert!(small.iter().all(|i| large.binary_search(i).is_ok()));
        assert!(small.windows(2).all(|w| w[0] < w[1]), "ascending, each once");
        assert_eq!(subset("cola", 10, 10, 3).unwrap(), (0..10).collect::<Vec<_>>());
        // A quarter of the subset lies in the first quarter, within five standard deviations.
        let first = large.iter().filter(|&&i| i < 8551 / 4).count();
        assert!((180..320).contains(&first), "{first}");
    }

    #[test]
    fn a_subset_of_nothing_or_of_more_than_all_is_refused() {
        assert!(matches!(subset("rte", 10, 0, 1), Err(Error::OutOfRange { .. })));
        assert!(matches!(subset("rte", 10, 11, 1), Err(Error::OutOfRange { .. })));
    }
}
