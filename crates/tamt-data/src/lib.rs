//! Text to batches: tokenizers, corpora, corruption for MLM, downstream tasks and metrics.
//!
//! The crate prepares the inputs of a model, but does not know models.
//!
//! * [`Tokenizer`] reads the tokenizer of a checkpoint, in three file formats.
//! * [`Corpus`] holds the tokens of text files, with a digest of the files; a [`TokenCache`] keeps them for later runs.
//!   [`Blocks`] cuts a corpus into blocks of equal length, and [`Sampler`] gives the blocks of each step.
//!   [`LengthSampler`] gives batches of examples of similar length; [`length_batches`] does so for prediction.
//! * [`Corruption`] masks tokens for masked language modelling (MLM).
//! * [`tasks`] reads the examples of GLUE and of a user's own tasks, and writes predictions. [`squad`] reads span
//!   questions, and finds answers in a model's logits. [`metrics`] scores predictions.
//! * [`invented`] generates text in an invented language and tasks about it, for demos and tests.
//!
//! Each random choice is a function of a seed and of a position (step, epoch, index), and parallel results are put into
//! sequential order. So results do not depend on the number of threads, and a resumed run continues with the same batches.
//!
//! The example reads a corpus, takes the batch of a step and corrupts it for MLM:
//!
//! ```
//! use std::sync::Arc;
//! use tamt_data::invented::{Split, World};
//! use tamt_data::{Blocks, Corpus, Corruption, ReadOptions, Sampler, Tail, Tokenizer};
//! use tamt_kernels::rng::{Purpose, Stream};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! // The example writes its own tokenizer and text; a checkpoint's directory and any UTF-8 files work as well.
//! let world = World::new(7);
//! world.write_tokenizer(dir)?;
//! let text = dir.join("train.txt");
//! world.write_corpus(&text, 5_000, 1, Split::Train)?;
//!
//! let tokenizer = Tokenizer::from_dir(dir)?;
//! let corpus = Corpus::read(&[text], &tokenizer, ReadOptions::default())?;
//! let blocks = Blocks::new(Arc::new(corpus), 64, Tail::Drop, tokenizer.specials())?;
//! let sampler = Sampler::new(blocks.len(), 8, 42)?;
//!
//! let step = 3;
//! let mut ids = Vec::new();
//! for block in sampler.batch(step) {
//!     blocks.fill(block as usize, &mut ids);
//! }
//! let original = ids.clone();
//! let stream = Stream::new(42, Purpose::CORRUPTION, step);
//! let masked =
//!     Corruption::default().corrupt(&mut ids, tokenizer.specials(), tokenizer.vocab_size(), stream, 0);
//! assert_eq!(ids.len(), 8 * 64);
//! assert!(masked.iter().all(|m| m.label == original[m.position as usize]));
//! # Ok(())
//! # }
//! ```

mod blocks;
mod corpus;
mod error;
mod head;
pub mod invented;
mod line_blocks;
mod lines;
pub mod metrics;
mod mlm;
mod nearest;
mod panics;
mod sampler;
pub mod squad;
pub mod tasks;
mod text;
mod token_cache;
mod tokenizer;
mod write;

pub use blocks::{Blocks, Tail};
pub use corpus::{Corpus, ReadOptions, ReadProgress, ReadStage};
pub use error::{Error, Result};
pub use lines::LONGEST_LINE;
pub use mlm::{Corruption, Masked};
pub use nearest::nearest;
pub use sampler::{LengthSampler, Sampler, length_batches};
pub use token_cache::{Stored, TokenCache};
pub use tokenizer::{Pair, Specials, Tokenized, Tokenizer, TokenizerFile};
