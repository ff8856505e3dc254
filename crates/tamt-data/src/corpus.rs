//! Corpora: text files as one stream of tokens, cut into blocks.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::text::{checked_text, read_bytes};
use crate::{Error, Result, Specials, Tokenizer};

/// How WikiText's token files spell a word that their makers removed.
const UNKNOWN: &str = "<unk>";

/// How much of a corpus has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    /// Bytes tokenized so far.
    pub bytes: u64,
    /// Tokens they gave.
    pub tokens: u64,
}

/// How a corpus is read.
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// Called from the reading thread after every few megabytes.
    pub progress: Option<&'a dyn Fn(ReadProgress)>,
}

/// The tokens of all files, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The tokens of every non-blank line, joined, without special tokens.
    pub tokens: Vec<u32>,
    /// SHA-256 of the files' bytes in order, in lower-case hexadecimal.
    pub digest: String,
    /// The non-blank lines read.
    pub lines: usize,
}

/// The bytes tokenized between two calls of the progress function. Does not affect the result.
const CHUNK: usize = 4 << 20;

impl Corpus {
    /// Reads and tokenizes `files`.
    ///
    /// Every line is tokenized on its own, as it stands without its line end; blank lines are ignored; `<unk>` is the
    /// tokenizer's unknown token. Lines are tokenized in parallel on the current `rayon` pool; the result does not
    /// depend on its size.
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

/// Where the chunk that starts at the beginning of `text` ends: after a line end, or at the end.
fn chunk_end(text: &str) -> usize {
    let from = CHUNK.min(text.len());
    text.as_bytes()[from..].iter().position(|&b| b == b'\n').map_or(text.len(), |at| from + at + 1)
}

fn line_ids(line: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let Some(unk) = tokenizer.specials().unk else {
        return tokenizer.ids(line);
    };
    // RoBERTa's tokenizer knows the spelling; BERT's would take it to pieces.
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

/// What becomes of a last window that is not full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// It is dropped: every block has the same length, as training wants.
    Drop,
    /// It is kept, shorter: every token counts, as evaluation wants.
    Keep,
}

/// A corpus cut into consecutive windows that do not overlap.
#[derive(Clone, Debug)]
pub struct Blocks {
    corpus: Arc<Corpus>,
    window: usize,
    len: usize,
    cls: u32,
    sep: u32,
}

impl Blocks {
    /// Cuts `corpus` into windows of `block_size` minus two tokens; the two are `cls` and `sep`.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if `block_size` is below 3, [`Error::TooFewTokens`] if there is no block.
    pub fn new(corpus: Arc<Corpus>, block_size: usize, tail: Tail, specials: &Specials) -> Result<Self> {
        let window = match block_size.checked_sub(2) {
            Some(window) if window > 0 => window,
            _ => {
                return Err(Error::Length { length: block_size, specials: 2 });
            }
        };
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

    /// How many blocks there are; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is no empty value")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The corpus that was cut.
    #[must_use]
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// The tokens of block `i` without special tokens. Panics unless `i < len()`.
    #[must_use]
    pub fn window(&self, i: usize) -> &[u32] {
        assert!(i < self.len, "block {i} of {}", self.len);
        let start = i * self.window;
        let end = (start + self.window).min(self.corpus.tokens.len());
        &self.corpus.tokens[start..end]
    }

    /// The tokens of block `i` with special tokens.
    #[must_use]
    pub fn block_len(&self, i: usize) -> usize {
        self.window(i).len() + 2
    }

    /// Appends `cls`, block `i`, `sep` to `ids`.
    pub fn fill(&self, i: usize, ids: &mut Vec<u32>) {
        ids.push(self.cls);
        ids.extend_from_slice(self.window(i));
        ids.push(self.sep);
    }
}
