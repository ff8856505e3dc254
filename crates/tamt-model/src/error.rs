//! The crate's error type.

use std::io;
use std::path::PathBuf;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be found, read or written.
///
/// The message of a variant does not repeat its [`source`](std::error::Error::source), so that a chain of causes can
/// be printed one a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A file or directory cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A configuration file is unusable; the source says why.
    #[error("unusable model configuration {}", path.display())]
    ConfigFile {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// A configuration is no JSON object.
    #[error("not a JSON object")]
    ConfigSyntax(#[source] serde_json::Error),

    /// A configuration says what this crate cannot build.
    #[error("`{key}` {problem}")]
    ConfigValue {
        /// The key of `config.json`.
        key: &'static str,
        /// What is wrong with its value, which is named.
        problem: String,
    },

    /// A model directory has no weights.
    #[error("no weights in {}: looked for {}", dir.display(), looked_for.join(", "))]
    NoWeights {
        /// The model directory.
        dir: PathBuf,
        /// The file names that would have done, in order of preference.
        looked_for: &'static [&'static str],
    },

    /// A weights file or a shard index is truncated, malformed or contradicts itself.
    #[error("{} is malformed: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },

    /// A weights file is well-formed but of a kind this crate refuses.
    #[error("{} is not supported: {problem}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it holds, and what to do instead.
        problem: String,
    },

    /// Two tensors of a checkpoint are the same one once prefixes and old spellings are normalised.
    #[error("{} holds `{name}` twice: as `{first}` and as `{second}`", path.display())]
    DuplicateTensor {
        /// The weights file (the second one, if the tensors lie in two shards).
        path: PathBuf,
        /// The canonical name.
        name: String,
        /// The one spelling.
        first: String,
        /// The other.
        second: String,
    },

    /// A checkpoint lacks a tensor that the model needs.
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor {
        /// The weights file or shard index.
        path: PathBuf,
        /// The canonical name.
        name: String,
    },

    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    WrongShape {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name in that file.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape the model needs.
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

    /// A weight is NaN or infinite (or too large for f32).
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

    /// A model given as a path is no directory.
    #[error("no such directory: {}", path.display())]
    NoSuchDirectory {
        /// The path as given.
        path: PathBuf,
    },

    /// A directory is no Hugging Face model directory.
    #[error("{} is no model directory: it has no config.json", path.display())]
    NotAModel {
        /// The directory.
        path: PathBuf,
    },

    /// A model is neither an existing directory nor a possible hub id.
    #[error("`{model}` is neither a directory nor a hub id: {problem}")]
    ModelName {
        /// The model as given.
        model: String,
        /// What keeps it from being a hub id.
        problem: &'static str,
    },

    /// The hub was not to be asked, and the cache does not hold the model.
    #[error("`{model}` is not complete in the cache {}, and HF_HUB_OFFLINE forbids downloading it", cache.display())]
    Offline {
        /// The hub id.
        model: String,
        /// The cache directory that was searched.
        cache: PathBuf,
    },

    /// The hub has no such model, revision or file, or does not show it to this user.
    #[error("cannot get {what} of `{model}` from {endpoint}: {problem}")]
    Hub {
        /// The hub id.
        model: String,
        /// The file, or the list of files.
        what: String,
        /// Address of the hub.
        endpoint: String,
        /// What the hub or the network said, and what to do about it where that is known.
        problem: String,
    },

    /// A loss needs an MLM head and the model has none.
    #[error("the model has no MLM head; fit one with `tamt pretrain --train head`")]
    NoMlmHead,

    /// A checkpoint's MLM decoder differs from its word embeddings; such models are not supported.
    #[error("{} has an MLM decoder {name} of its own; only decoders tied to the word embeddings are supported", path.display())]
    UntiedDecoder {
        /// The model's directory.
        path: PathBuf,
        /// The decoder's tensor.
        name: String,
    },
}
