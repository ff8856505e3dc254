//! Text in, batches out.

mod corpus;
mod error;
mod mlm;
mod text;
mod tokenizer;

pub use corpus::{Blocks, Corpus, ReadOptions, ReadProgress, Sampler, Tail};
pub use error::{Error, Result};
pub use mlm::{Corruption, Masked};
pub use tokenizer::{Pair, Specials, Tokenizer};
