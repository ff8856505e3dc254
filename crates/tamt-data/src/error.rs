//! What can go wrong between a text file and a batch.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the file, line or value that caused it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: `read`, `write`, `create`, `copy`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// A text file holds bytes that are not UTF-8, or NUL bytes.
    #[error(
        "{}:{line}: not text: {what} at byte {offset} of the file; text files must be UTF-8",
        path.display()
    )]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line of the offending byte, from 1.
        line: usize,
        /// The offset of the offending byte in the file, from 0.
        offset: usize,
        /// Which byte it is.
        what: String,
    },

    /// A directory holds no tokenizer in a known format.
    #[error(
        "no tokenizer in {}: looked for tokenizer.json, then vocab.txt, then vocab.json with merges.txt",
        path.display()
    )]
    NoTokenizer {
        /// The directory.
        path: PathBuf,
    },

    /// A tokenizer's file is malformed.
    #[error("{}: not a usable tokenizer: {reason}", path.display())]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A tokenizer lacks a special token that masked language modelling needs.
    #[error(
        "{}: the tokenizer has no {role} token: neither {bert} nor {roberta} is in its vocabulary",
        path.display()
    )]
    MissingSpecial {
        /// The tokenizer's file.
        path: PathBuf,
        /// What the token is for: `cls`, `sep` or `mask`.
        role: &'static str,
        /// How BERT spells it.
        bert: &'static str,
        /// How RoBERTa spells it.
        roberta: &'static str,
    },

    /// The tokenizer refused a text.
    #[error("cannot tokenize {text:?}: {reason}")]
    Tokenize {
        /// The beginning of the text.
        text: String,
        /// The tokenizer's message.
        reason: String,
    },

    /// A maximum length or block size leaves no room beside the special tokens.
    #[error("a length of {length} tokens leaves no room beside {specials} special tokens")]
    Length {
        /// The length asked for.
        length: usize,
        /// How many special tokens it has to hold.
        specials: usize,
    },

    /// No corpus file was named.
    #[error("a corpus needs at least one file")]
    NoFiles,

    /// The corpus files hold no token.
    #[error("the corpus is empty: {} only blank lines", names(files))]
    EmptyCorpus {
        /// The corpus files.
        files: Vec<PathBuf>,
    },

    /// The corpus is shorter than one window.
    #[error(
        "the corpus has {tokens} tokens, fewer than the {needed} of one block; use a smaller block size or more text"
    )]
    TooFewTokens {
        /// Tokens in the corpus.
        tokens: usize,
        /// Tokens in a block, without its special tokens.
        needed: usize,
    },

    /// The corpus has fewer blocks than a batch.
    #[error(
        "the corpus has {blocks} blocks, fewer than the batch size of {batch_size}; use a smaller batch or block size, or more text"
    )]
    TooFewBlocks {
        /// Blocks in the corpus.
        blocks: usize,
        /// Blocks wanted in a batch.
        batch_size: usize,
    },

    /// A number is outside the range in which it makes sense.
    #[error("{name} = {value}: {expected}")]
    OutOfRange {
        /// The parameter's name.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        expected: &'static str,
    },
}

fn names(files: &[PathBuf]) -> String {
    match files {
        [one] => format!("{} has", one.display()),
        [first, rest @ ..] => format!("{} and {} more have", first.display(), rest.len()),
        [] => "no files, so it has".to_owned(),
    }
}
