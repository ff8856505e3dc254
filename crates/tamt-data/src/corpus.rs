//! Corpora: the tokens of text files, and their division into blocks.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::text::{checked_text, read_bytes};
use crate::tokenizer::{Specials, Tokenizer, room};

/// WikiText's spelling of a removed rare word.
const UNKNOWN: &str = "<unk>";

/// Progress of [`Corpus::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    /// Number of bytes tokenized so far.
    pub bytes: u64,
    /// Number of tokens so far.
    pub tokens: u64,
}

/// Options of [`Corpus::read`].
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// A function that the reading thread calls after each chunk of 4 MiB.
    pub progress: Option<&'a dyn Fn(ReadProgress)>,
}

/// The tokens of a list of text files, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The concatenated tokens of all non-blank lines, without special tokens.
    pub tokens: Vec<u32>,
    /// SHA-256 of the concatenated bytes of the files, in lower-case hexadecimal.
    pub digest: String,
    /// Number of non-blank lines.
    pub lines: usize,
}

/// Bytes tokenized between two calls of the progress function. The result does not depend on this size.
const CHUNK: usize = 4 << 20;

impl Corpus {
    /// Reads and tokenizes `files`.
    ///
    /// Each line is tokenized separately, without its line end. Blank lines are ignored. `<unk>` becomes the tokenizer's
    /// unknown token. Lines are tokenized in parallel on the current `rayon` pool; the result does not depend on the
    /// number of threads.
    ///
    /// # Errors
    ///
    /// [`Error::NoFiles`], [`Error::Io`], [`Error::NotText`], [`Error::EmptyCorpus`], [`Error::Tokenize`].
    pub fn read(files: &[PathBuf], tokenizer: &Tokenizer, options: ReadOptions<'_>) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::NoFiles);
        }
        let mut hasher = Sha256::new();
        let mut corpus = Self { tokens: Vec::new(), digest: String::new(), lines: 0 };
        let mut bytes_done = 0;
        for path in files {
            let bytes = read_bytes(path)?;
            hasher.update(&bytes);
            let mut rest = checked_text(&bytes, path)?;
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(chunk_end(rest));
                rest = after;
                corpus.extend(chunk, tokenizer)?;
                bytes_done += chunk.len() as u64;
                if let Some(progress) = options.progress {
                    progress(ReadProgress { bytes: bytes_done, tokens: corpus.tokens.len() as u64 });
                }
            }
        }
        if corpus.tokens.is_empty() {
            return Err(Error::EmptyCorpus { files: files.to_vec() });
        }
        corpus.digest = hex(&hasher.finalize());
        Ok(corpus)
    }

    /// Appends the tokens of the lines of `chunk`.
    fn extend(&mut self, chunk: &str, tokenizer: &Tokenizer) -> Result<()> {
        let lines: Vec<&str> = chunk.lines().filter(|l| !l.trim().is_empty()).collect();
        let tokenized: Vec<Vec<u32>> =
            lines.par_iter().with_min_len(16).map(|line| line_ids(line, tokenizer)).collect::<Result<_>>()?;
        self.lines += lines.len();
        self.tokens.reserve(tokenized.iter().map(Vec::len).sum::<usize>());
        for ids in tokenized {
            self.tokens.extend(ids);
        }
        Ok(())
    }
}

/// The end of the first chunk of `text`: after a line end, or the end of the text.
fn chunk_end(text: &str) -> usize {
    let from = CHUNK.min(text.len());
    text.as_bytes()[from..].iter().position(|&b| b == b'\n').map_or(text.len(), |at| from + at + 1)
}

/// The token ids of a line, with `<unk>` replaced by the unknown token.
fn line_ids(line: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let Some(unk) = tokenizer.specials().unk else {
        return tokenizer.ids(line);
    };
    // RoBERTa's tokenizer recognises `<unk>`; BERT's would split it into pieces.
    if tokenizer.id(UNKNOWN) == Some(unk) || !line.contains(UNKNOWN) {
        return tokenizer.ids(line);
    }
    let mut ids = Vec::new();
    for (i, part) in line.split(UNKNOWN).enumerate() {
        if i > 0 {
            ids.push(unk);
        }
        ids.extend(tokenizer.ids(part)?);
    }
    Ok(ids)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

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

    /// Number of tokens of block `i`, special tokens included.
    pub fn block_len(&self, i: usize) -> usize {
        self.window(i).len() + 2
    }

    /// Appends block `i` to `ids`: `cls`, window, `sep`.
    pub fn fill(&self, i: usize, ids: &mut Vec<u32>) {
        ids.push(self.cls);
        ids.extend_from_slice(self.window(i));
        ids.push(self.sep);
    }
}
