//! Samplers: the blocks or examples of each batch.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};

use tamt_kernels::rng::{Purpose, Stream};

use crate::error::{Error, Result, at_least_one};

/// A sampler of equally long blocks: each epoch is an independent permutation, cut into batches. An epoch omits the
/// blocks that do not fill its last batch.
///
/// A batch is a function of the seed and the step, so a resumed run needs no sampler state.
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
        at_least_one("batch size", batch_size)?;
        if blocks < batch_size {
            return Err(Error::TooFewBlocks { blocks, batch_size });
        }
        Ok(Self { blocks: count("blocks", blocks)?, batch_size, seed, epoch: EpochCache::default() })
    }

    /// Number of batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        (self.blocks as usize / self.batch_size) as u64
    }

    /// Number of blocks in a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The block indices of step `step`; steps count batches from 0 over all epochs.
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

/// Batches in a pool that is sorted by length.
///
/// A larger pool gives batches of more even length, but less random ones. 50 batches give nearly the full benefit of
/// both.
const POOL: usize = 50;

/// A sampler of examples of different lengths: each example once per epoch, in batches of similar length.
///
/// An epoch is an independent permutation, cut into pools of 50 batches. Each pool is sorted by length and cut into
/// batches, and the batches of all pools are shuffled. The examples that do not fill a batch form a smaller batch.
///
/// A batch is a function of the lengths, the seed and the step, so a resumed run needs no sampler state.
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
    /// A sampler of batches of at most `batch_size` examples. `lengths` holds the length of each example, in tokens or
    /// another unit of cost.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if `batch_size` is 0, or if the number of examples is 0 or at least 2^32.
    pub fn new(lengths: impl IntoIterator<Item = usize>, batch_size: usize, seed: u64) -> Result<Self> {
        at_least_one("batch size", batch_size)?;
        let lengths: Vec<usize> = lengths.into_iter().collect();
        at_least_one("examples", lengths.len())?;
        count("examples", lengths.len())?;
        Ok(Self { lengths, batch_size, seed, epoch: EpochCache::default() })
    }

    /// Number of examples, each of which occurs once per epoch.
    pub fn examples(&self) -> usize {
        self.lengths.len()
    }

    /// Number of batches in an epoch, a smaller last batch included.
    pub fn batches_per_epoch(&self) -> u64 {
        self.lengths.len().div_ceil(self.batch_size) as u64
    }

    /// Number of examples in a batch; one batch per epoch may have fewer.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The example indices of step `step`; steps count batches from 0 over all epochs.
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let per_epoch = self.batches_per_epoch();
        self.batches(step / per_epoch)[(step % per_epoch) as usize].to_vec()
    }

    /// The batches of an epoch.
    fn batches(&self, epoch: u64) -> Arc<[Box<[u32]>]> {
        self.epoch.get(epoch, || {
            let stream = Stream::new(self.seed, Purpose::SHUFFLE, epoch);
            // `new` checks that the number of examples is below 2^32.
            let mut examples = permutation(self.lengths.len() as u32, stream);
            let full = self.lengths.len() / self.batch_size * self.batch_size;
            let (in_full_batches, rest) = examples.split_at_mut(full);
            for pool in in_full_batches.chunks_mut(self.batch_size.saturating_mul(POOL)) {
                // The sort is stable, so examples of equal length stay in random order.
                pool.sort_by_key(|&example| self.lengths[example as usize]);
            }
            let batches = in_full_batches.chunks(self.batch_size).chain((!rest.is_empty()).then_some(&*rest));
            let batches: Vec<Box<[u32]>> = batches.map(Into::into).collect();
            let order = permutation(batches.len() as u32, stream.fork(0));
            order.into_iter().map(|batch| batches[batch as usize].clone()).collect()
        })
    }
}

/// Batches of examples of similar length for prediction, the longest examples first. `lengths` holds the length of each
/// example in tokens. A batch holds at most `tokens` tokens, or a single longer example.
///
/// Each example is in exactly one batch. Examples of equal length stay in order.
///
/// # Panics
///
/// If the number of examples is 2^32 or more.
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

/// The batches of the most recently used epoch.
#[derive(Debug)]
struct EpochCache<T: ?Sized>(Mutex<Option<(u64, Arc<T>)>>);

impl<T: ?Sized> Default for EpochCache<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: ?Sized> EpochCache<T> {
    fn get(&self, epoch: u64, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        // The value is replaced as a whole, so a poisoned lock still guards a consistent cache.
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

/// A random permutation of `0..n`.
fn permutation(n: u32, stream: Stream) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    stream.shuffle(&mut order);
    order
}

/// `n` as u32, or an error that names the counted items.
fn count(name: &'static str, n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::OutOfRange { name, value: n as f64, expected: "must be below 2^32" })
}
