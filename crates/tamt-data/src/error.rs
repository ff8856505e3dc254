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

    /// A task has no such split.
    #[error("{task} has no {split} split")]
    NoSuchSplit {
        /// The task.
        task: String,
        /// The split asked for.
        split: &'static str,
    },

    /// The files of a task's split are not where they were looked for.
    #[error(
        "no {split} split of {task}: looked for {} in {}",
        one_of(files),
        one_of(&folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>())
    )]
    MissingSplit {
        /// The task.
        task: String,
        /// The split asked for.
        split: &'static str,
        /// What its files are called; `*` stands for any text.
        files: Vec<String>,
        /// Where they could have been.
        folders: Vec<PathBuf>,
    },

    /// Some of the numbered files that make up a split are missing, or there are files of two downloads.
    #[error("{}: its name says that there are {expected} such files, and there are {found}", path.display())]
    MissingShards {
        /// The file whose name says how many there are.
        path: PathBuf,
        /// Files found.
        found: usize,
        /// Files that belong together.
        expected: usize,
    },

    /// A table lacks a column.
    #[error("{}: no column {column}; its columns are {}", path.display(), present.join(", "))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column's name or number.
        column: String,
        /// The names of the columns that it has.
        present: Vec<String>,
    },

    /// A row's label is not one of the task's.
    #[error("{}:{line}: unknown label {label:?}; expected {}", path.display(), known.join(", "))]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The line, or the row of a parquet file, from 1.
        line: usize,
        /// The label as the file spells it.
        label: String,
        /// The labels of the task, or what they are.
        known: Vec<String>,
    },

    /// A row cannot be read at all.
    #[error("{}:{line}: {reason}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// So many rows are unusable that the file cannot be what it is taken for.
    #[error("{}:{line}: {reason}; {skipped} of {rows} rows are like that", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The first such line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
        /// Unusable rows.
        skipped: usize,
        /// All rows.
        rows: usize,
    },

    /// A file of examples or questions has none.
    #[error("{}: no examples", path.display())]
    NoExamples {
        /// The file.
        path: PathBuf,
    },

    /// A parquet, CSV, JSON or task file is malformed.
    #[error("{}: not a usable {kind} file: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// Two lists that belong together have different lengths.
    #[error("{found} {what}, not {expected}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },

    /// A class was given where a number is needed, or the other way round.
    #[error("{what} cannot be computed from {given}")]
    WrongKind {
        /// What was to be computed.
        what: &'static str,
        /// What was given.
        given: &'static str,
    },
}

fn names(files: &[PathBuf]) -> String {
    match files {
        [one] => format!("{} has", one.display()),
        [first, rest @ ..] => format!("{} and {} more have", first.display(), rest.len()),
        [] => "no files, so it has".to_owned(),
    }
}

fn one_of(names: &[String]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        names => names.concat(),
    }
}
