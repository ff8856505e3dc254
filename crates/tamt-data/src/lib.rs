//! Text in, batches out.
//!
//! A pre-trained encoder comes with a tokenizer, and a ticket is found on plain text. This crate is the way from the
//! one to the other: it knows tokenizers, files and randomness, and nothing of models.
//!
//! * [`Tokenizer`] reads a checkpoint's tokenizer, in whichever of three formats it comes.
//! * [`Corpus`] is text files as one stream of tokens, with a digest that says which text it was. [`Blocks`] cuts it
//!   into windows, [`Sampler`] says which of them make up the batch of a step. [`LengthSampler`] does so for examples,
//!   putting those of like length together, and [`length_batches`] for predictions, where order does not matter.
//! * [`Corruption`] hides tokens for masked language modelling.
//! * [`tasks`] is GLUE, `SQuAD` and what a user declares: where files lie, which columns hold what, how answers are
//!   written down. [`squad`] reads span questions, and [`metrics`] scores answers.
//! * [`invented`] makes text in an invented language, and tasks about it, for when there are no others.
//!
//! Whatever is random is a function of a seed and of a place (step, epoch, position), and whatever is parallel is put
//! back in order. So results do not depend on the number of threads, and a run resumed at a step sees what it
//! would have seen.
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
//! // A tokenizer and a corpus; any checkpoint's directory and any text files will do.
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
//! let stream = Stream::new(42, Purpose::CORRUPTION, step);
//! let masked = Corruption::default().corrupt(
//!     &mut ids,
//!     tokenizer.specials(),
//!     tokenizer.vocab_size(),
//!     stream,
//!     0,
//! );
//! assert_eq!(ids.len(), 8 * 64);
//! assert!(!masked.is_empty());
//! # Ok(())
//! # }
//! ```

mod corpus;
mod error;
pub mod invented;
pub mod metrics;
mod mlm;
mod panics;
mod sampler;
pub mod squad;
pub mod tasks;
mod text;
mod tokenizer;

pub use corpus::{Blocks, Corpus, ReadOptions, ReadProgress, Tail};
pub use error::{Error, Result};
pub use mlm::{Corruption, Masked};
pub use sampler::{LengthSampler, Sampler, length_batches};
pub use tokenizer::{Pair, Specials, Tokenized, Tokenizer};
