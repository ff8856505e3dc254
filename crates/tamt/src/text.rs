//! Text as batches: the corpora of a run, and the batch of each training step as a function of the step.

use std::path::PathBuf;
use std::sync::Arc;

use tamt_data::{Blocks, Corpus, Corruption, Masked, ReadOptions, Sampler, Specials, Tail, Tokenizer};
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Batch, Config, Model};

use crate::base::Base;
use crate::error::Result;

/// The corpora of a run.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// The text to train on.
    pub train: Option<Arc<Corpus>>,
    /// The text to evaluate on.
    pub eval: Option<Arc<Corpus>>,
}

impl Texts {
    /// Reads the corpora of a run; equal lists of files are read once.
    ///
    /// # Errors
    /// If a file is missing, empty or not text.
    pub fn read(base: &Base, train: &[PathBuf], eval: &[PathBuf]) -> Result<Self> {
        let read = |files: &[PathBuf]| -> Result<Option<Arc<Corpus>>> {
            if files.is_empty() {
                return Ok(None);
            }
            Ok(Some(Arc::new(Corpus::read(files, &base.tokenizer, ReadOptions::default())?)))
        };
        let train_text = read(train)?;
        let eval = if eval == train { train_text.clone() } else { read(eval)? };
        Ok(Self { train: train_text, eval })
    }
}

/// Positions of a batch to predict, with their original tokens.
#[derive(Clone, Debug, Default)]
pub struct MaskedTokens {
    /// Rows of the packed batch.
    pub positions: Vec<u32>,
    /// The original tokens.
    pub labels: Vec<u32>,
}

impl MaskedTokens {
    /// Empties the lists without releasing their memory.
    pub fn clear(&mut self) {
        self.positions.clear();
        self.labels.clear();
    }

    fn extend(&mut self, masked: &[Masked]) {
        self.positions.extend(masked.iter().map(|m| m.position));
        self.labels.extend(masked.iter().map(|m| m.label));
    }
}

/// A batch of text and the tokens that masked language modelling predicts in it; none without corruption.
#[derive(Clone, Debug, Default)]
pub struct TextBatch {
    /// The packed sequences, corrupted.
    pub tokens: Batch,
    /// The positions to predict.
    pub masked: MaskedTokens,
}

impl TextBatch {
    /// Corrupts the sequences and locates them. Random tokens are below `vocabulary`: the rows that an embedding table has
    /// beyond the tokenizer's tokens are no tokens. `first` is the number of tokens of the text before this batch.
    pub(crate) fn corrupt(
        &mut self,
        corruption: &Corruption,
        specials: &Specials,
        (vocabulary, config): (u32, &Config),
        stream: Stream,
        first: u64,
    ) {
        self.masked.clear();
        self.masked.extend(&corruption.corrupt(&mut self.tokens.ids, specials, vocabulary, stream, first));
        self.tokens.locate(config);
    }
}

/// Where the batches of a pre-training objective come from.
pub trait TextSource {
    /// The corrupted text of a training step (from 0).
    fn corrupted(&mut self, model: &Model, step: u64) -> &TextBatch;
}

/// A recorded batch is the text of every step.
impl TextSource for TextBatch {
    fn corrupted(&mut self, _: &Model, _: u64) -> &TextBatch {
        self
    }
}

/// The text of a training run, shuffled anew in each epoch; seed and step alone decide a batch.
#[derive(Debug)]
pub struct TextBatches {
    blocks: Blocks,
    sampler: Sampler,
    specials: Specials,
    /// One more than the highest token of the tokenizer.
    vocabulary: u32,
    corruption: Option<Corruption>,
    batch_size: usize,
    seed: u64,
    batch: TextBatch,
}

impl TextBatches {
    /// Batches of `batch_size` blocks of `block_size` tokens, special tokens included; corrupted for masked language
    /// modelling where `corruption` is given. An incomplete last block is left out.
    ///
    /// # Errors
    /// If there are fewer blocks than a batch holds, or the corruption's rates are out of range.
    pub fn new(
        corpus: Arc<Corpus>,
        tokenizer: &Tokenizer,
        block_size: usize,
        batch_size: usize,
        corruption: Option<Corruption>,
        seed: u64,
    ) -> Result<Self> {
        let (specials, vocabulary) = (*tokenizer.specials(), tokenizer.vocab_size());
        let blocks = Blocks::new(corpus, block_size, Tail::Drop, &specials)?;
        if let Some(corruption) = &corruption {
            corruption.validate()?;
        }
        let sampler = Sampler::new(blocks.len(), batch_size, seed)?;
        Ok(Self { blocks, sampler, specials, vocabulary, corruption, batch_size, seed, batch: TextBatch::default() })
    }

    /// Sequences of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch()
    }
}

impl TextSource for TextBatches {
    fn corrupted(&mut self, model: &Model, step: u64) -> &TextBatch {
        let Self { blocks, sampler, specials, vocabulary, corruption, seed, batch, .. } = self;
        batch.tokens.clear();
        for index in sampler.batch(step) {
            blocks.fill(index as usize, &mut batch.tokens.ids);
            batch.tokens.close_sequence(0);
        }
        match corruption {
            Some(corruption) => {
                let stream = Stream::new(*seed, Purpose::CORRUPTION, step);
                batch.corrupt(corruption, specials, (*vocabulary, &model.config), stream, 0);
            }
            None => batch.tokens.locate(&model.config),
        }
        batch
    }
}
