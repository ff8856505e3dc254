//! Which blocks or examples make up the batch of a step.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};

use tamt_kernels::rng::{Purpose, Stream};

use crate::{Error, Result};

/// The order in which blocks are trained on: each epoch is a permutation of its own, cut into batches. Blocks left
/// over at the end of an epoch sit that epoch out.
///
/// A batch is a function of the seed and the step, so a resumed run needs no state but its step.
#[derive(Debug)]
pub struct Sampler {
    blocks: u32,
    batch_size: usize,
    seed: u64,
    epoch: EpochCache<[u32]>,
}

impl Sampler {
    /// A sampler of batches of `batch_size` among `blocks` blocks.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `batch_size` is 0 or there are more than 2^32 blocks, [`Error::TooFewBlocks`] if there
    /// are fewer blocks than fit in a batch.
    pub fn new(blocks: usize, batch_size: usize, seed: u64) -> Result<Self> {
        check_batch_size(batch_size)?;
        if blocks < batch_size {
            return Err(Error::TooFewBlocks { blocks, batch_size });
        }
        Ok(Self { blocks: count("blocks", blocks)?, batch_size, seed, epoch: EpochCache::default() })
    }

    /// Batches in an epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        (self.blocks as usize / self.batch_size) as u64
    }

    /// Blocks in a batch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The blocks of `step`, which counts batches from 0.
    #[must_use]
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let epoch = step / self.batches_per_epoch();
        let within = (step % self.batches_per_epoch()) as usize;
        let start = within * self.batch_size;
        self.permutation(epoch)[start..start + self.batch_size].to_vec()
    }

    fn permutation(&self, epoch: u64) -> Arc<[u32]> {
        self.epoch.get(epoch, || permutation(self.blocks, Stream::new(self.seed, Purpose::SHUFFLE, epoch)).into())
    }
}

/// Batches among which examples of a similar length are looked for.
///
/// With more, batches would be more even in length and less random: this many keep nearly all of both.
const POOL: usize = 50;

/// The order in which examples of different lengths are trained on: each once an epoch, in batches of similar length.
///
/// An epoch is a permutation of its own, cut into pools of 50 batches. A pool is sorted by length and cut into
/// batches, and the batches of all pools are shuffled. What does not fill a batch is one of its own, of any lengths.
///
/// A batch is a function of the lengths, the seed and the step, so a resumed run needs no state but its step.
///
/// ```
/// use tamt_data::LengthSampler;
///
/// # fn main() -> tamt_data::Result<()> {
/// let lengths = [9, 3, 12, 4, 11, 5, 8];
/// let sampler = LengthSampler::new(lengths, 2, 42)?;
/// assert_eq!(sampler.batches_per_epoch(), 4);
/// let mut epoch: Vec<u32> = (0..4).flat_map(|step| sampler.batch(step)).collect();
/// epoch.sort_unstable();
/// assert_eq!(epoch, [0, 1, 2, 3, 4, 5, 6]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LengthSampler {
    lengths: Vec<usize>,
    batch_size: usize,
    seed: u64,
    epoch: EpochCache<[Box<[u32]>]>,
}

impl LengthSampler {
    /// A sampler of batches of at most `batch_size` examples with these lengths (in tokens, or whatever their cost is).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `batch_size` is 0, if there is no example or if there are 2^32 or more.
    pub fn new(lengths: impl IntoIterator<Item = usize>, batch_size: usize, seed: u64) -> Result<Self> {
        check_batch_size(batch_size)?;
        let lengths: Vec<usize> = lengths.into_iter().collect();
        if lengths.is_empty() {
            return Err(Error::OutOfRange { name: "examples", value: 0.0, expected: "must be at least 1" });
        }
        count("examples", lengths.len())?;
        Ok(Self { lengths, batch_size, seed, epoch: EpochCache::default() })
    }

    /// How many examples there are, and so how many an epoch has.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.lengths.len()
    }

    /// Batches in an epoch, with the one that is not full, if there is one.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        self.lengths.len().div_ceil(self.batch_size) as u64
    }

    /// Examples in a batch, but for one an epoch that may have fewer.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The indices of the examples of `step`, which counts batches from 0 through all epochs.
    #[must_use]
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let per_epoch = self.batches_per_epoch();
        self.batches(step / per_epoch)[(step % per_epoch) as usize].to_vec()
    }

    /// The batches of an epoch.
    fn batches(&self, epoch: u64) -> Arc<[Box<[u32]>]> {
        self.epoch.get(epoch, || {
            let stream = Stream::new(self.seed, Purpose::SHUFFLE, epoch);
            // Both counts were checked to be below 2^32.
            let mut examples = permutation(self.lengths.len() as u32, stream);
            let full = self.lengths.len() / self.batch_size * self.batch_size;
            let (in_full_batches, rest) = examples.split_at_mut(full);
            for pool in in_full_batches.chunks_mut(self.batch_size.saturating_mul(POOL)) {
                // Stable, so that chance decides between equals.
                pool.sort_by_key(|&example| self.lengths[example as usize]);
            }
            let batches = in_full_batches.chunks(self.batch_size).chain((!rest.is_empty()).then_some(&*rest));
            let batches: Vec<Box<[u32]>> = batches.map(Into::into).collect();
            let order = permutation(batches.len() as u32, stream.fork(0));
            order.into_iter().map(|batch| batches[batch as usize].clone()).collect()
        })
    }
}

/// Examples of these lengths (in tokens) in batches of similar length, the longest first: as many examples as have
/// `tokens` tokens together, but at least one. For predictions, which do not depend on what else is in a batch.
///
/// Each example is in exactly one batch; of equal lengths, the first comes first.
///
/// # Panics
///
/// If there are 2^32 examples or more.
#[must_use]
pub fn length_batches(lengths: &[usize], tokens: usize) -> Vec<Vec<u32>> {
    let n = u32::try_from(lengths.len()).expect("fewer than 2^32 examples");
    let mut order: Vec<u32> = (0..n).collect();
    order.sort_by_key(|&example| Reverse(lengths[example as usize]));
    let mut batches: Vec<Vec<u32>> = Vec::new();
    let mut taken = 0_usize;
    for example in order {
        let length = lengths[example as usize];
        match batches.last_mut() {
            Some(batch) if taken.saturating_add(length) <= tokens => {
                taken += length;
                batch.push(example);
            }
            _ => {
                taken = length;
                batches.push(vec![example]);
            }
        }
    }
    batches
}

/// The order of the epoch asked for last.
#[derive(Debug)]
struct EpochCache<T: ?Sized>(Mutex<Option<(u64, Arc<T>)>>);

impl<T: ?Sized> Default for EpochCache<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: ?Sized> EpochCache<T> {
    fn get(&self, epoch: u64, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        // A panic elsewhere cannot leave a half-written cache: the value is replaced whole.
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, order)) = &*cached
            && *of == epoch
        {
            return Arc::clone(order);
        }
        let order = make();
        *cached = Some((epoch, Arc::clone(&order)));
        order
    }
}

fn permutation(n: u32, stream: Stream) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    stream.shuffle(&mut order);
    order
}

fn check_batch_size(batch_size: usize) -> Result<()> {
    if batch_size == 0 {
        return Err(Error::OutOfRange { name: "batch size", value: 0.0, expected: "must be at least 1" });
    }
    Ok(())
}

fn count(name: &'static str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::OutOfRange { name, value: n as f64, expected: "must be below 2^32" })
}
