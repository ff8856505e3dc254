//! Batches of the samplers.

#![allow(clippy::print_stdout, reason = "measurements are printed")]

use std::collections::HashSet;

use proptest::prelude::*;
use tamt_data::{Error, LengthSampler, Sampler, length_batches};

#[test]
fn an_epoch_visits_blocks_once_and_epochs_differ() {
    let sampler = Sampler::new(23, 4, 7).unwrap();
    assert_eq!(sampler.batches_per_epoch(), 5);
    let epoch = |e: u64| -> Vec<u32> { (e * 5..e * 5 + 5).flat_map(|s| sampler.batch(s)).collect() };
    let first = epoch(0);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 20);
    assert!(first.iter().all(|&b| b < 23));
    assert_ne!(first, epoch(1));
    let other_seed = Sampler::new(23, 4, 8).unwrap();
    assert_ne!(sampler.batch(0), other_seed.batch(0));
    // Different epochs omit different blocks, so training sees all blocks.
    let seen: HashSet<u32> = (0..20).flat_map(epoch).collect();
    assert_eq!(seen.len(), 23);
}

#[test]
fn a_resumed_sampler_continues_where_it_was() {
    let straight = Sampler::new(100, 8, 1).unwrap();
    let all: Vec<_> = (0..40).map(|s| straight.batch(s)).collect();
    for step in [39, 3, 17, 0, 25] {
        let resumed = Sampler::new(100, 8, 1).unwrap();
        assert_eq!(resumed.batch(step), all[step as usize]);
        // The steps may come in any order.
        assert_eq!(straight.batch(step), all[step as usize]);
    }
}

#[test]
fn batches_that_cannot_be_filled_are_refused() {
    assert!(matches!(Sampler::new(7, 8, 0), Err(Error::TooFewBlocks { blocks: 7, batch_size: 8 })));
    assert!(matches!(Sampler::new(7, 0, 0), Err(Error::OutOfRange { .. })));
    assert_eq!(Sampler::new(8, 8, 0).unwrap().batches_per_epoch(), 1);
}

/// Lengths with a distribution like that of sentences: many short ones, few long ones.
fn lengths(n: u64) -> Vec<usize> {
    (0..n).map(|i| 5 + (i * i * 7919 % 61 * (i % 13)) as usize / 8).collect()
}

fn epoch(sampler: &LengthSampler, epoch: u64) -> Vec<Vec<u32>> {
    let n = sampler.batches_per_epoch();
    (epoch * n..(epoch + 1) * n).map(|step| sampler.batch(step)).collect()
}

#[test]
fn an_epoch_of_examples_visits_each_once_in_full_batches_but_one() {
    let sampler = LengthSampler::new(lengths(1003), 8, 1).unwrap();
    assert_eq!((sampler.batches_per_epoch(), sampler.examples()), (126, 1003));
    for e in 0..3 {
        let batches = epoch(&sampler, e);
        let mut all = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..1003).collect::<Vec<_>>());
        let short: Vec<usize> = batches.iter().map(Vec::len).filter(|&n| n != 8).collect();
        assert_eq!(short, [3]);
    }
}

#[test]
fn batches_of_examples_depend_on_seed_and_step_alone() {
    let straight = LengthSampler::new(lengths(500), 16, 1).unwrap();
    let all: Vec<_> = (0..96).map(|step| straight.batch(step)).collect();
    for step in [95, 3, 64, 0, 31, 32] {
        let resumed = LengthSampler::new(lengths(500), 16, 1).unwrap();
        assert_eq!(resumed.batch(step), all[step as usize]);
        assert_eq!(straight.batch(step), all[step as usize]);
    }
    assert_ne!(all[..32], all[32..64], "epochs differ");
    let other = LengthSampler::new(lengths(500), 16, 2).unwrap();
    assert_ne!(epoch(&other, 0), epoch(&straight, 0), "seeds differ");
}

#[test]
fn batches_of_examples_are_of_similar_length_and_still_random() {
    let lengths = lengths(5000);
    let sampler = LengthSampler::new(lengths.iter().copied(), 32, 3).unwrap();
    let padding = |batches: &[Vec<u32>]| {
        let of = |batch: &Vec<u32>| batch.iter().map(|&i| lengths[i as usize]).max().unwrap() * batch.len();
        batches.iter().map(of).sum::<usize>() as f64 / lengths.iter().sum::<usize>() as f64 - 1.0
    };
    let random = Sampler::new(5000, 32, 3).unwrap();
    let random: Vec<_> = (0..random.batches_per_epoch()).map(|step| random.batch(step)).collect();
    let batches = epoch(&sampler, 0);
    let (even, uneven) = (padding(&batches), padding(&random));
    println!("padding would cost {:.1} %, {:.1} % with batches of any lengths", 100.0 * even, 100.0 * uneven);
    assert!(even < 0.1 && uneven > 0.5, "{even} {uneven}");

    // Lengths have no trend within an epoch: both halves have nearly the same mean.
    let mean = |batches: &[Vec<u32>]| {
        let all = batches.concat();
        all.iter().map(|&i| lengths[i as usize]).sum::<usize>() as f64 / all.len() as f64
    };
    let (first, second) = batches.split_at(batches.len() / 2);
    assert!((mean(first) / mean(second) - 1.0).abs() < 0.25, "{} {}", mean(first), mean(second));
    // Batches differ between epochs: few pairs of examples share a batch twice.
    let batch_of = |e| {
        let mut of = vec![0; 5000];
        for (i, batch) in epoch(&sampler, e).iter().enumerate() {
            for &example in batch {
                of[example as usize] = i;
            }
        }
        of
    };
    let next = batch_of(1);
    let together = batches.iter().filter(|b| b.len() > 1 && next[b[0] as usize] == next[b[1] as usize]).count();
    assert!(together < batches.len() / 3, "{together} of {}", batches.len());
}

#[test]
fn a_sampler_of_nothing_is_refused() {
    assert!(matches!(LengthSampler::new([], 8, 0), Err(Error::OutOfRange { name: "examples", .. })));
    assert!(matches!(LengthSampler::new([3], 0, 0), Err(Error::OutOfRange { name: "batch size", .. })));
    // Fewer examples than the batch size give one batch.
    let few = LengthSampler::new([3, 4, 5], 8, 0).unwrap();
    assert_eq!((few.batches_per_epoch(), few.batch(7).len()), (1, 3));
    assert_eq!(length_batches(&[], 10), Vec::<Vec<u32>>::new());
}

#[test]
fn batches_for_predictions_are_filled_with_tokens_longest_first() {
    let batches = length_batches(&[3, 9, 4, 12, 4, 1, 2], 10);
    assert_eq!(batches, [vec![3], vec![1], vec![2, 4], vec![0, 6, 5]]);
}

proptest! {
    #[test]
    fn every_example_is_in_one_batch(
        lengths in prop::collection::vec(0_usize..200, 1..300),
        batch_size in 1_usize..40,
        tokens in 0_usize..500,
        seed in any::<u64>(),
        e in 0_u64..5,
    ) {
        let sampler = LengthSampler::new(lengths.iter().copied(), batch_size, seed).unwrap();
        for batches in [epoch(&sampler, e), length_batches(&lengths, tokens)] {
            let mut all = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len() as u32).collect::<Vec<_>>());
        }
        for batch in length_batches(&lengths, tokens) {
            let sum: usize = batch.iter().map(|&i| lengths[i as usize]).sum();
            prop_assert!(batch.len() == 1 || sum <= tokens);
        }
    }
}
