//! The crate's error type.

use std::io;
use std::path::{Path, PathBuf};

use tamt_files::broken_link;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Number of names that an error about a directory shows.
const NAMES_SHOWN: usize = 8;

/// A failure to find, read or write a model.
///
/// The message of a variant does not repeat its [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// A file or directory cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// A file has the text of Git LFS in the place of its content.
    #[error("{}: a Git LFS pointer; fetch the file itself with `git lfs pull`", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },

    /// A configuration file is unusable; the source is the reason.
    #[error("unusable model configuration {}", path.display())]
    ConfigFile {
        /// The configuration file.
        path: PathBuf,
        /// The reason.
        source: Box<Error>,
    },

    /// A configuration is no JSON object.
    #[error("not a JSON object")]
    ConfigSyntax(#[source] serde_json::Error),

    /// A value of a configuration is missing, invalid or not supported.
    #[error("`{key}` {problem}")]
    ConfigValue {
        /// The key of `config.json`.
        key: &'static str,
        /// The problem, with the value.
        problem: String,
    },

    /// The memory for a new model is more than the process may have.
    #[error("a model of {weights} weights needs {bytes} bytes to be trained, more than this process may have")]
    Memory {
        /// Weights of the model.
        weights: usize,
        /// Bytes of weights, gradients and moments.
        bytes: usize,
    },

    /// A model directory has no weights.
    #[error("no weights in {}: looked for {}{}", dir.display(), looked_for.join(", "), but_there_is(found))]
    NoWeights {
        /// The model directory.
        dir: PathBuf,
        /// The supported file names, in order of preference.
        looked_for: &'static [&'static str],
        /// The names of some of its files and directories.
        found: Vec<String>,
    },

    /// A weights file or a shard index is truncated, malformed or inconsistent.
    #[error("{} is malformed: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem and its position.
        problem: String,
    },

    /// A weights file is well-formed but not supported.
    #[error("{} is not supported: {problem}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported content, and a remedy.
        problem: String,
    },

    /// Two tensors of a checkpoint have the same canonical name.
    #[error("{} holds `{name}` twice: as `{first}` and as `{second}`", path.display())]
    DuplicateTensor {
        /// The weights file of the second tensor.
        path: PathBuf,
        /// The canonical name.
        name: String,
        /// The first tensor's name in its file.
        first: String,
        /// The second tensor's name in its file.
        second: String,
    },

    /// A checkpoint lacks a tensor of the model.
    #[error("{} has no tensor `{name}`{}", path.display(), it_has(similar))]
    MissingTensor {
        /// The weights file or shard index.
        path: PathBuf,
        /// The canonical name.
        name: String,
        /// Some names in the file, those like the canonical name if there are any.
        similar: Vec<String>,
    },

    /// A tensor's shape contradicts the configuration.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    WrongShape {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name in that file.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape by the configuration.
        expected: Vec<usize>,
    },

    /// A tensor's element type is none of F32, F16, BF16 and F64.
    #[error("{}: tensor `{name}` is {dtype}, expected F32, F16, BF16 or F64", path.display())]
    WrongDtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name in that file.
        name: String,
        /// The element type in the file.
        dtype: String,
    },

    /// A weight is NaN, infinite or too large for f32.
    #[error("{}: tensor `{name}` holds {value} at element {index}", path.display())]
    NonFinite {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name in that file.
        name: String,
        /// Row-major index of the first such weight.
        index: usize,
        /// The weight, as f32.
        value: f32,
    },

    /// A tensor that should be a mask has another value than 0 and 1.
    #[error("{}: `{name}` is no mask: it holds {value} at [{row}, {col}], and a mask holds 0 and 1", path.display())]
    NotAMask {
        /// The file.
        path: PathBuf,
        /// The tensor's name in that file.
        name: String,
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        col: usize,
        /// The value.
        value: String,
    },

    /// The path of a model does not exist.
    #[error("no such directory: {}{}", path.display(), nearest(existing.as_deref()))]
    NoSuchDirectory {
        /// The path.
        path: PathBuf,
        /// The nearest parent that exists, if the path names any.
        existing: Option<PathBuf>,
    },

    /// The path of a model is a file.
    #[error("{} is a file; a model is the directory of config.json, weights and tokenizer", path.display())]
    NotADirectory {
        /// The file.
        path: PathBuf,
    },

    /// A model's directory, its configuration or its weights are a symbolic link that leads to nothing.
    #[error("{} is a link to {}, which does not exist", path.display(), target.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// What the link says.
        target: PathBuf,
    },

    /// A directory is no Hugging Face model directory.
    #[error("{} is no model directory: it has no config.json{}", path.display(), but(found))]
    NotAModel {
        /// The directory.
        path: PathBuf,
        /// The names of some of its files and directories.
        found: Vec<String>,
    },

    /// A model's name is neither an existing directory nor a valid hub id.
    #[error("`{model}` is neither a directory nor a hub id: {problem}")]
    ModelName {
        /// The name.
        model: String,
        /// The violated rule of hub ids.
        problem: &'static str,
    },

    /// The cache does not hold the whole model, and the settings forbid downloads.
    #[error("`{model}` is not complete in the cache {}, and HF_HUB_OFFLINE forbids downloading it", cache.display())]
    Offline {
        /// The hub id.
        model: String,
        /// The cache directory.
        cache: PathBuf,
    },

    /// The hub lacks a model, a revision or a file, refuses access, or does not answer.
    #[error("cannot get {what} of `{model}` from {endpoint}: {problem}")]
    Hub {
        /// The hub id.
        model: String,
        /// The file, or the list of files.
        what: String,
        /// The hub's address.
        endpoint: String,
        /// The hub's or the network's answer, with a remedy if one is known.
        problem: String,
    },

    /// The MLM loss needs an MLM head, which the model lacks.
    #[error("the model has no MLM head")]
    NoMlmHead,

    /// A checkpoint's MLM decoder is not tied to the word embeddings, which is not supported.
    #[error("{} has an MLM decoder {name} of its own; only decoders tied to the word embeddings are supported", path.display())]
    UntiedDecoder {
        /// The model's directory.
        path: PathBuf,
        /// The name of the decoder's tensor.
        name: String,
    },
}

fn it_has(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { String::new() } else { format!("; it has {}", names.join(", ")) }
}

fn but(names: &[String]) -> String {
    if names.is_empty() { "; it is empty".to_owned() } else { format!(", but {}", names.join(", ")) }
}

fn but_there_is(names: &[String]) -> String {
    if names.is_empty() { "; it is empty".to_owned() } else { format!("; it holds {}", names.join(", ")) }
}

/// The names of some files and directories in a directory, sorted, for an error about the directory.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(io::Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.len() > NAMES_SHOWN {
        let more = names.len() - NAMES_SHOWN;
        names.truncate(NAMES_SHOWN);
        names.push(format!("{more} more"));
    }
    names
}

impl Error {
    /// The error for a model at `path`, which is no directory.
    pub(crate) fn no_directory(path: &Path) -> Self {
        if path.exists() {
            return Self::NotADirectory { path: path.to_owned() };
        }
        if let Some(broken) = Self::broken_link(path) {
            return broken;
        }
        let mut parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        let existing = parents.find(|parent| parent.exists()).map(Path::to_owned);
        Self::NoSuchDirectory { path: path.to_owned(), existing }
    }

    /// The error for a symbolic link at `path` that leads to nothing; `None` for anything else.
    pub(crate) fn broken_link(path: &Path) -> Option<Self> {
        let (target, _) = broken_link(path).filter(|(_, error)| error.kind() == io::ErrorKind::NotFound)?;
        Some(Self::BrokenLink { path: path.to_owned(), target })
    }
}

/// Names the nearest parent that exists, unless that is the working directory.
fn nearest(existing: Option<&Path>) -> String {
    match existing {
        None => String::new(),
        Some(parent) if parent == Path::new(".") => String::new(),
        Some(parent) if parent.is_dir() => format!("; {} is the last part that exists", parent.display()),
        Some(parent) => format!("; {} is a file", parent.display()),
    }
}

/// Wraps an error of reading `path`.
pub(crate) fn read_error(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Read { path: path.to_owned(), source }
}

/// Wraps an error of writing `path`.
pub(crate) fn write_error(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Write { path: path.to_owned(), source }
}
