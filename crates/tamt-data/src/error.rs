//! The crate's error type, and the checks that several modules share.

use std::io;
use std::path::{Path, PathBuf};

use crate::nearest::did_you_mean;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the file, line or value that caused it.
///
/// The message of a variant does not repeat its [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation: `read`, `write` or `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
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
        /// A description of the offending byte.
        what: String,
    },

    /// A file has the text of Git LFS in the place of its content.
    #[error("{}: a Git LFS pointer; fetch the file itself with `git lfs pull`", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
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

    /// A tokenizer file is malformed.
    #[error("{}: not a usable tokenizer: {reason}", path.display())]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },

    /// A tokenizer lacks a special token that masked language modelling needs.
    #[error(
        "{}: the tokenizer has no {role} token: neither {bert} nor {roberta} is in its vocabulary",
        path.display()
    )]
    MissingSpecial {
        /// The tokenizer file.
        path: PathBuf,
        /// The token's role: `cls`, `sep` or `mask`.
        role: &'static str,
        /// BERT's spelling of the token.
        bert: &'static str,
        /// RoBERTa's spelling of the token.
        roberta: &'static str,
    },

    /// The tokenizer refused a text.
    #[error("cannot tokenize {text:?}{}: {reason}", place(.path.as_deref()))]
    Tokenize {
        /// The beginning of the text.
        text: String,
        /// The file with the text, where it is known.
        path: Option<PathBuf>,
        /// The tokenizer's message.
        reason: String,
    },

    /// A maximum length or block size leaves no room beside the special tokens.
    #[error("a length of {length} tokens leaves no room beside {specials} special tokens")]
    Length {
        /// The length, in tokens.
        length: usize,
        /// Number of special tokens in a sequence.
        specials: usize,
    },

    /// The list of corpus files is empty.
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
        /// Blocks in a batch.
        batch_size: usize,
    },

    /// A number is outside its range.
    #[error("{name} = {value}: {expected}")]
    OutOfRange {
        /// The parameter's name.
        name: &'static str,
        /// The parameter's value.
        value: f64,
        /// The condition on the value.
        expected: &'static str,
    },

    /// A task has no such split.
    #[error("{task} has no {split} split")]
    NoSuchSplit {
        /// The task.
        task: String,
        /// The split's name.
        split: &'static str,
    },

    /// None of the files of a split exists.
    #[error(
        "no {split} split of {task}: looked for {} in {}",
        one_of(files),
        one_of(&folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>())
    )]
    MissingSplit {
        /// The task.
        task: String,
        /// The split's name.
        split: &'static str,
        /// File name patterns of the split; `*` stands for any text.
        files: Vec<String>,
        /// The directories that were searched.
        folders: Vec<PathBuf>,
    },

    /// Some numbered files of a split are missing, or the directory mixes two downloads.
    #[error("{}: its name says that there are {expected} such files, and there are {found}", path.display())]
    MissingShards {
        /// A file whose name states the number of files.
        path: PathBuf,
        /// Number of files found.
        found: usize,
        /// Number of files stated by the name.
        expected: usize,
    },

    /// Two files of a split have the same number: one is a copy, or the directory mixes two downloads.
    #[error(
        "{} and {}: by their names both are number {number} of {of} files; only one of them can stay",
        other.display(), path.display()
    )]
    RepeatedShard {
        /// The file.
        path: PathBuf,
        /// The file with the same number whose name comes first.
        other: PathBuf,
        /// The number.
        number: u64,
        /// Number of files stated by the names.
        of: usize,
    },

    /// A table lacks a column.
    #[error(
        "{}: no column {column}; its columns are {}{}",
        path.display(), present.join(", "), did_you_mean(column, present.iter().map(String::as_str))
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column's name or number.
        column: String,
        /// The names of the file's columns.
        present: Vec<String>,
    },

    /// The header of a table has a declared column more than once.
    #[error("{}{}: column {column} stands twice in the header", path.display(), at_line(*line))]
    RepeatedColumn {
        /// The file.
        path: PathBuf,
        /// The line of the header, from 1; `None` for a parquet file.
        line: Option<usize>,
        /// The column's name.
        column: String,
    },

    /// A row's label is not one of the task's.
    #[error(
        "{}:{line}: unknown label {label:?}; expected {}{}",
        path.display(), known.join(", "), did_you_mean(label, known.iter().map(String::as_str))
    )]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The line, or the row of a parquet file, from 1.
        line: usize,
        /// The label's spelling in the file.
        label: String,
        /// The labels of the task, or a description of them.
        known: Vec<String>,
    },

    /// A row cannot be parsed.
    #[error("{}:{line}: {reason}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },

    /// More than a tenth of a file's rows are unusable: the file has another layout than the task says.
    #[error("{}:{line}: {reason}; {skipped} of {rows} rows are like that", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The first unusable line, from 1.
        line: usize,
        /// The reason.
        reason: String,
        /// Number of unusable rows.
        skipped: usize,
        /// Number of all rows.
        rows: usize,
    },

    /// A file holds no examples or questions.
    #[error("{}: no examples", path.display())]
    NoExamples {
        /// The file.
        path: PathBuf,
    },

    /// No row of a file has a label, in a split that needs labels.
    #[error("{}: none of its {rows} rows has a label", path.display())]
    NoLabels {
        /// The first file of the split.
        path: PathBuf,
        /// Number of rows of the split.
        rows: usize,
    },

    /// A parquet, CSV, JSON or task file is malformed.
    #[error("{}: not a usable {kind} file: {reason}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// The expected kind of file.
        kind: &'static str,
        /// The reason.
        reason: String,
    },

    /// Two lists that belong together have different lengths.
    #[error("{found} {what}, not {expected}")]
    Count {
        /// The counted items.
        what: &'static str,
        /// The expected number.
        expected: usize,
        /// The actual number.
        found: usize,
    },

    /// An input has the wrong kind: a class in place of a number, or a table in place of questions.
    #[error("{what} cannot be computed from {given}")]
    WrongKind {
        /// The result that was requested.
        what: &'static str,
        /// The input that does not fit.
        given: &'static str,
    },
}

impl Error {
    /// The error with the file of the text that could not be tokenized.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Tokenize { text, path: None, reason } => Self::Tokenize { text, path: Some(file.to_owned()), reason },
            other => other,
        }
    }
}

/// Wraps an I/O error on `path`; `action` is `read`, `write` or `create`.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Reports `path` as no usable file of this kind, for the given reason.
pub(crate) fn bad_file(path: &Path, kind: &'static str) -> impl Fn(String) -> Error {
    move |reason| Error::BadFile { path: path.to_owned(), kind, reason }
}

/// Refuses 0 as the value of the parameter `name`.
pub(crate) fn at_least_one(name: &'static str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::OutOfRange { name, value: 0.0, expected: "must be at least 1" }) } else { Ok(()) }
}

/// Refuses another number of items than expected.
pub(crate) fn same_count(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
}

/// The end of a phrase: in which file.
fn place(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!(" in {}", file.display()))
}

/// The end of a place in a file: at which line, where it is known.
fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(":{line}"))
}

/// The subject and verb of "... only blank lines".
fn names(files: &[PathBuf]) -> String {
    match files {
        [one] => format!("{} has", one.display()),
        [first, rest @ ..] => format!("{} and {} more have", first.display(), rest.len()),
        [] => "no files, so it has".to_owned(),
    }
}

/// The names as a list that ends in "or".
fn one_of(names: &[String]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        names => names.concat(),
    }
}
