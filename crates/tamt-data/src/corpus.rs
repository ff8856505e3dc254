//! Corpora: the tokens of text files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tamt_files::digest::hex;

use crate::error::{Error, Result, io_error};
use crate::lines::Lines;
use crate::token_cache::{Entry, TokenCache};
use crate::tokenizer::Tokenizer;

/// WikiText's spelling of a removed rare word.
const UNKNOWN: &str = "<unk>";

/// What [`Corpus::read`] does with the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStage {
    /// Computes their digest, by which stored tokens are looked up.
    Digest,
    /// Tokenizes them.
    Tokenize,
}

/// Progress of [`Corpus::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    /// The stage; a corpus passes through the stages in order, and may skip one.
    pub stage: ReadStage,
    /// Number of bytes read in this stage so far.
    pub bytes: u64,
    /// Number of bytes of all files; `None` if a file is no regular file.
    pub total: Option<u64>,
    /// Number of tokens so far.
    pub tokens: u64,
}

/// Options of [`Corpus::read`].
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// A function that the reading thread calls after each chunk of a few MiB.
    pub progress: Option<&'a dyn Fn(ReadProgress)>,
    /// The tokens of texts that were read earlier, except texts of less than 64 KiB and from pipes.
    pub cache: Option<&'a TokenCache>,
    /// A function that gets notices for a person, a sentence each: damaged stored tokens, tokens that cannot be stored.
    pub note: Option<&'a dyn Fn(&str)>,
}

impl ReadOptions<'_> {
    fn report(&self, progress: ReadProgress) {
        if let Some(report) = self.progress {
            report(progress);
        }
    }

    fn note(&self, text: &str) {
        if let Some(note) = self.note {
            note(text);
        }
    }
}

/// The tokens of a list of text files, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// The concatenated tokens of all non-blank lines, without special tokens.
    pub tokens: Vec<u32>,
    /// SHA-256 of the concatenated bytes of the files, in lower-case hexadecimal.
    pub digest: String,
    /// Number of non-blank lines; the parts of a line that is cut count as one.
    pub lines: usize,
    /// Number of lines that are cut, because they are longer than [`LONGEST_LINE`](crate::LONGEST_LINE) bytes.
    pub cut_lines: usize,
}

/// Bytes of the smallest text whose tokens are kept: tokenizing less takes no time.
const SMALLEST_KEPT: u64 = 1 << 16;

/// Bytes that are hashed between two calls of the progress function.
const HASHED: usize = 1 << 22;

impl Corpus {
    /// Reads and tokenizes `files`, or takes the tokens from `options.cache`.
    ///
    /// Each line is tokenized separately, without its line end. Blank lines are ignored. `<unk>` becomes the tokenizer's
    /// unknown token. A line of more than [`LONGEST_LINE`](crate::LONGEST_LINE) bytes is cut ahead of its last white space
    /// within this bound, or else at the bound, and the parts are tokenized separately: a word is only cut if the word is
    /// longer than the bound. Lines are tokenized in parallel on the current `rayon` pool; the result does not depend on
    /// the number of threads.
    ///
    /// Beside the tokens, the memory in use is that of a chunk of 4 MiB of text and its tokens.
    ///
    /// # Errors
    ///
    /// [`Error::NoFiles`], [`Error::Io`], [`Error::NotText`], [`Error::EmptyCorpus`], [`Error::Tokenize`].
    pub fn read(files: &[PathBuf], tokenizer: &Tokenizer, options: ReadOptions<'_>) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::NoFiles);
        }
        let total = total_bytes(files)?;
        // A pipe can be read once only.
        let is_kept = total.is_some_and(|total| total >= SMALLEST_KEPT);
        let Some(cache) = options.cache.filter(|_| is_kept) else {
            return tokenized(files, tokenizer, total, &options);
        };
        let (digest, ends) = digest(files, total, &options)?;
        // A line ends with its file, so that the same bytes in other files are other lines.
        let text = format!("{digest} {ends:?}");
        let tokenizer_digest = tokenizer.digest()?;
        match cache.get(&text, &tokenizer_digest) {
            Ok(Some(Entry { tokens, lines, cut_lines })) => return Ok(Self { tokens, digest, lines, cut_lines }),
            Ok(None) => {}
            Err(damage) => options.note(&format!("{damage}; the text is tokenized again")),
        }
        let corpus = tokenized(files, tokenizer, total, &options)?;
        if corpus.digest != digest {
            // The files have changed between the two readings.
            return Ok(corpus);
        }
        let Self { tokens, digest, lines, cut_lines } = corpus;
        let entry = Entry { tokens, lines, cut_lines };
        if let Err(problem) = cache.put(&text, &tokenizer_digest, files, &entry) {
            options.note(&format!("the tokens of the text are not kept for later runs: {problem}"));
        }
        let Entry { tokens, lines, cut_lines } = entry;
        Ok(Self { tokens, digest, lines, cut_lines })
    }
}

/// The bytes of all files; `None` if a file is no regular file.
fn total_bytes(files: &[PathBuf]) -> Result<Option<u64>> {
    let mut total = Some(0_u64);
    for path in files {
        let metadata = fs::metadata(path).map_err(io_error("read", path))?;
        total = total.filter(|_| metadata.is_file()).map(|total| total.saturating_add(metadata.len()));
    }
    Ok(total)
}

/// SHA-256 of the concatenated bytes of the files, and the place of each file's end among the bytes.
fn digest(files: &[PathBuf], total: Option<u64>, options: &ReadOptions<'_>) -> Result<(String, Vec<u64>)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASHED];
    let (mut bytes, mut ends) = (0, Vec::new());
    for path in files {
        let mut file = File::open(path).map_err(io_error("read", path))?;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    bytes += n as u64;
                    options.report(ReadProgress { stage: ReadStage::Digest, bytes, total, tokens: 0 });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", path)(error)),
            }
        }
        ends.push(bytes);
    }
    Ok((hex(&hasher.finalize()), ends))
}

/// The corpus of the files, which are read once.
fn tokenized(
    files: &[PathBuf],
    tokenizer: &Tokenizer,
    total: Option<u64>,
    options: &ReadOptions<'_>,
) -> Result<Corpus> {
    if total.is_some() {
        // A file that is not text to its end is an error ahead of the minutes that tokenizing may take.
        files.iter().try_for_each(|path| check_text(path))?;
    }
    let mut hasher = Sha256::new();
    let mut corpus = Corpus { tokens: room_for_tokens(total), digest: String::new(), lines: 0, cut_lines: 0 };
    let mut bytes = 0;
    for path in files {
        let mut lines = Lines::open(path)?;
        while let Some(chunk) = lines.next(|read| hasher.update(read))? {
            extend(&mut corpus.tokens, &chunk.parts, tokenizer).map_err(|error| error.in_file(path))?;
            bytes += chunk.bytes as u64;
            let tokens = corpus.tokens.len() as u64;
            options.report(ReadProgress { stage: ReadStage::Tokenize, bytes, total, tokens });
        }
        corpus.lines += lines.filled;
        corpus.cut_lines += lines.cut;
    }
    if corpus.tokens.is_empty() {
        return Err(Error::EmptyCorpus { files: files.to_vec() });
    }
    corpus.digest = hex(&hasher.finalize());
    Ok(corpus)
}

fn check_text(path: &Path) -> Result<()> {
    let mut lines = Lines::open(path)?;
    while lines.next(|_| ())?.is_some() {}
    Ok(())
}

/// Room for the tokens of `total` bytes of text, at two bytes a token, which text of any language rarely has less of.
///
/// A vector that grows is copied and needs up to three times its memory meanwhile. Room that is not used has no memory
/// behind it.
fn room_for_tokens(total: Option<u64>) -> Vec<u32> {
    let mut tokens = Vec::new();
    let room = usize::try_from(total.unwrap_or(0) / 2).unwrap_or(0);
    // Without so much address space, the vector grows.
    let _ = tokens.try_reserve_exact(room);
    tokens
}

/// Appends the tokens of lines.
fn extend(tokens: &mut Vec<u32>, lines: &[&str], tokenizer: &Tokenizer) -> Result<()> {
    let tokenized: Vec<Vec<u32>> =
        lines.par_iter().with_min_len(16).map(|line| line_ids(line, tokenizer)).collect::<Result<_>>()?;
    tokens.reserve(tokenized.iter().map(Vec::len).sum::<usize>());
    for ids in tokenized {
        tokens.extend(ids);
    }
    Ok(())
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
