//! Blocks: consecutive windows of a corpus.

use std::sync::Arc;

use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::tokenizer::{Specials, room};

/// The treatment of an incomplete last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Drops it: all blocks have the same length, as in training.
    Drop,
    /// Keeps it as a shorter block: the blocks cover all tokens, as in evaluation.
    Keep,
}

/// A corpus, cut into consecutive windows without overlap. A block is a window between `cls` and `sep`.
#[derive(Clone, Debug)]
pub struct Blocks {
    corpus: Arc<Corpus>,
    window: usize,
    len: usize,
    cls: u32,
    sep: u32,
}

impl Blocks {
    /// Cuts `corpus` into blocks of `block_size` tokens, `cls` and `sep` included.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if `block_size` is below 3, [`Error::TooFewTokens`] if the corpus is shorter than a block.
    pub fn new(corpus: Arc<Corpus>, block_size: usize, tail: Tail, specials: &Specials) -> Result<Self> {
        let window = room(block_size, 2)?;
        let tokens = corpus.tokens.len();
        let len = match tail {
            Tail::Drop => tokens / window,
            Tail::Keep => tokens.div_ceil(window),
        };
        if len == 0 {
            return Err(Error::TooFewTokens { tokens, needed: window });
        }
        Ok(Self { corpus, window, len, cls: specials.cls, sep: specials.sep })
    }

    /// Number of blocks; never 0.
    #[allow(clippy::len_without_is_empty, reason = "`Blocks` is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The underlying corpus.
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// The tokens of block `i`, without special tokens.
    ///
    /// # Panics
    ///
    /// If `i` is at least [`Blocks::len`].
    pub fn window(&self, i: usize) -> &[u32] {
        assert!(i < self.len, "block {i} of {}", self.len);
        let start = i * self.window;
        let end = (start + self.window).min(self.corpus.tokens.len());
        &self.corpus.tokens[start..end]
    }

    /// Appends block `i` to `ids`: `cls`, window, `sep`.
    pub fn fill(&self, i: usize, ids: &mut Vec<u32>) {
        ids.push(self.cls);
        ids.extend_from_slice(self.window(i));
        ids.push(self.sep);
    }
}
