//! The errors of this crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::metrics::label;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the file, the setting or the step that caused it. Errors name settings in kebab case; a program
/// may replace a name by its own spelling, a flag, say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The output directory holds files that a new run overwrites.
    #[error("{} already holds {} ({found})", .path.display(), occupant(found))]
    Occupied {
        /// The output directory.
        path: PathBuf,
        /// The name of one such file: `config.toml`, the record of a run, where it is there.
        found: String,
    },

    /// The directory of a run to resume holds files of a run and no record of its settings.
    #[error("{} holds {found} but no config.toml, so there is no run to resume; choose another directory", .path.display())]
    NothingToResume {
        /// The output directory.
        path: PathBuf,
        /// The name of one file of the unknown run.
        found: String,
    },

    /// The settings of a resumed run differ from the recorded ones and change its result.
    #[error("the settings differ from those recorded in {}:{}{}", .path.display(), lines(.differences),
        .reason.as_ref().map_or_else(String::new, |reason| format!("\n{reason}")))]
    SettingsDiffer {
        /// The output directory.
        path: PathBuf,
        /// Every setting that differs, ordered by name.
        differences: Vec<SettingDifference>,
        /// Why the run cannot have another length, where the settings ask for one.
        reason: Option<String>,
    },

    /// Another process writes the same run directory.
    #[error("{} is being written by another process", .path.display())]
    Locked {
        /// The output directory.
        path: PathBuf,
    },

    /// The directory of a run was removed, moved or replaced while the run wrote to it.
    #[error("{} is gone: it was removed, moved or replaced during the run", .path.display())]
    Gone {
        /// The output directory.
        path: PathBuf,
    },

    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The attempted action, as a verb: "read", "create", "rename".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The content of a file does not have the format that its name promises.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The expected and the found content.
        reason: String,
    },

    /// A file that would be written is there with another content: it belongs to somebody else.
    #[error("{} is there with another content; choose another directory, or move the file away", .path.display())]
    OtherContent {
        /// The file.
        path: PathBuf,
    },

    /// The run obeyed a stop request, after it saved a checkpoint to continue from.
    #[error("stopped by signal {signal} after step {step}; {}",
        path_or(.checkpoint.as_deref(), "saved", "there was nothing to save"))]
    Stopped {
        /// The signal's number: 1 (SIGHUP), 2 (SIGINT) or 15 (SIGTERM).
        signal: i32,
        /// The last completed optimiser step.
        step: u64,
        /// The checkpoint to resume from; `None` when the run stopped before its first step.
        checkpoint: Option<PathBuf>,
    },

    /// A loss or a gradient of a training step is infinite or not a number.
    #[error("{what} is not finite at step {step}; {}",
        path_or(.last_good.as_deref(), "the last good checkpoint is", "no checkpoint was saved before it"))]
    NonFinite {
        /// The step that computed the quantity, counted from 1.
        step: u64,
        /// The quantity: "the loss", "the gradient".
        what: String,
        /// The newest checkpoint of an earlier step.
        last_good: Option<PathBuf>,
    },

    /// A loss on held-out text, an output for a task, or the encoding of a text is infinite or not a number.
    #[error("{} is not finite: the model's weights overflow", label(.what))]
    NonFiniteEvaluation {
        /// The quantity, as results name it: `mlm_loss`, `kd_cosine`.
        what: &'static str,
    },

    /// A setting does not fit the model, the text or the other settings.
    #[error("{name}: {reason}")]
    Setting {
        /// The setting's name in kebab case.
        name: &'static str,
        /// Why the setting does not fit.
        reason: String,
    },

    /// A teacher's hidden states cannot be compared with the model's.
    #[error("teacher: {reason}; set the weight of its hidden states to 0")]
    TeacherStates {
        /// The widths or the numbers of layers that do not fit.
        reason: String,
    },

    /// The settings of a run have no TOML form: TOML has signed 64-bit integers only.
    #[error("the settings cannot be recorded: {reason}")]
    Unrecordable {
        /// The value that has no TOML form.
        reason: String,
    },

    /// The base model of a ticket is another one.
    #[error(
        "the ticket belongs to another model: it was made for {base_model} with weights {ticket_sha256}, and these are \
         {model_sha256}"
    )]
    OtherBase {
        /// The base model that the ticket names.
        base_model: String,
        /// SHA-256 of the ticket's base model, in hexadecimal.
        ticket_sha256: String,
        /// SHA-256 of the given model, in hexadecimal.
        model_sha256: String,
    },

    /// A ticket was given with a packed model, which was made of another model.
    #[error("{model} is packed, with the zeros of the ticket it was made of; the given ticket is of {base_model}")]
    TicketOfPacked {
        /// The packed model, as given.
        model: String,
        /// The base model that the ticket names.
        base_model: String,
    },

    /// A model to unpack is not packed.
    #[error("{} is not packed, so there is nothing to unpack", .path.display())]
    NotPacked {
        /// The weights file.
        path: PathBuf,
    },

    /// A file that should be a ticket is another kind of file.
    #[error("{} is no ticket but {found}; `find` writes tickets", .path.display())]
    NotATicket {
        /// The file, or the directory without a ticket.
        path: PathBuf,
        /// The kind of the file.
        found: String,
    },

    /// A file that should hold the weights of an MLM head is another kind of file.
    #[error("{} holds no MLM head: it is {found}; `find` writes heads beside tickets", .path.display())]
    NotAHead {
        /// The file.
        path: PathBuf,
        /// The kind of the file.
        found: String,
    },

    /// A file has no masks that make a ticket of the model.
    #[error("{} makes no ticket: {reason}", .path.display())]
    NoMasks {
        /// The file, or the directory of a checkpoint.
        path: PathBuf,
        /// What it lacks, or what a ticket cannot hold.
        reason: String,
    },

    /// A matrix of a ticket is missing, or has another shape, in the model or in the other ticket.
    #[error("the ticket does not fit at {name}: {reason}")]
    TicketMismatch {
        /// The matrix, by its canonical name.
        name: String,
        /// The difference.
        reason: String,
    },

    /// The task head of a checkpoint does not fit the task.
    #[error("{}", wrong_head(path, task, *outputs, *found))]
    Head {
        /// The model's directory.
        path: PathBuf,
        /// The task.
        task: String,
        /// Outputs that the task needs.
        outputs: usize,
        /// Outputs that the head has; `None` where there is no head.
        found: Option<usize>,
    },

    /// A model has no head for a task.
    #[error("{}: it has no head to predict with: {found}", .path.display())]
    NoHead {
        /// The model's directory.
        path: PathBuf,
        /// What the checkpoint holds instead.
        found: String,
    },

    /// The head of a model predicts neither one label, nor one number, nor spans.
    #[error("{}: {reason}", .path.display())]
    UnusableHead {
        /// The model's directory.
        path: PathBuf,
        /// What the head predicts.
        reason: String,
    },

    /// The tokenizer has more tokens than the embeddings have rows.
    #[error("the tokenizer in {} knows {tokens} tokens and the model's embeddings have {rows} rows", .path.display())]
    Vocabulary {
        /// The model's directory.
        path: PathBuf,
        /// Tokens in the tokenizer.
        tokens: u32,
        /// Rows of the embeddings.
        rows: usize,
    },

    /// An error of the model, its configuration or its checkpoint.
    #[error(transparent)]
    Model(#[from] tamt_model::Error),

    /// An error of the tokenizer, the corpus or another input.
    #[error(transparent)]
    Data(#[from] tamt_data::Error),
}

impl Error {
    /// [`Error::Setting`].
    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { name, reason: reason.into() }
    }

    /// For `map_err`: [`Error::Io`] with the action and the path, which the operating system's error lacks.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// One setting in which a resumed run differs from the recorded one; `None` stands for an unset value.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingDifference {
    /// The setting's name; a dot joins the keys of nested tables.
    pub key: String,
    /// The value in the run directory's `config.toml`.
    pub recorded: Option<toml::Value>,
    /// The value of the resumed run.
    pub given: Option<toml::Value>,
}

impl fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<toml::Value>| value.as_ref().map_or_else(|| "unset".to_owned(), ToString::to_string);
        write!(f, "{} is {} there and {} here", self.key, show(&self.recorded), show(&self.given))
    }
}

fn lines(differences: &[SettingDifference]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}

fn wrong_head(path: &Path, task: &str, outputs: usize, found: Option<usize>) -> String {
    let path = path.display();
    match found {
        Some(found) => format!("{path}: its head has {found} outputs, and {task} needs {outputs}"),
        None => format!("{path}: it has no head for {task}; it was not fine-tuned"),
    }
}

/// What a directory with the file `found` holds.
fn occupant(found: &str) -> &'static str {
    match found {
        "config.toml" => "a run",
        "config.json" | "model.safetensors" => "a model",
        "ticket.safetensors" => "a ticket",
        _ => "files of a run",
    }
}

fn path_or(path: Option<&Path>, found: &str, missing: &str) -> String {
    path.map_or_else(|| missing.to_owned(), |path| format!("{found} {}", path.display()))
}
