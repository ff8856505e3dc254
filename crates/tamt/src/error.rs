use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in this crate, with the file, setting or step it went wrong at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The output directory holds files that a new run would overwrite.
    #[error("{} already holds a run ({found}); resume that run or choose another directory", .path.display())]
    Occupied {
        /// The output directory.
        path: PathBuf,
        /// The name of one such file.
        found: String,
    },

    /// A run was to be resumed, but the directory holds run files and no record of the settings that made them.
    #[error("{} holds {found} but no config.toml, so there is no run to resume; choose another directory", .path.display())]
    NothingToResume {
        /// The output directory.
        path: PathBuf,
        /// The name of one file of the unknown run.
        found: String,
    },

    /// A run was to be resumed with settings under which it would have gone otherwise.
    #[error("the settings differ from those recorded in {}:{}", .path.display(), Lines(.differences))]
    SettingsDiffer {
        /// The output directory.
        path: PathBuf,
        /// Every setting that differs, in the order of their names.
        differences: Vec<SettingDifference>,
    },

    /// Another process is writing the same run directory.
    #[error("{} is being written by another process", .path.display())]
    Locked {
        /// The output directory.
        path: PathBuf,
    },

    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was attempted, as a verb: "read", "create", "rename".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },

    /// A file of a run directory does not hold what its name promises.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },

    /// The run was asked to stop, and did so after saving what is needed to continue it.
    #[error("stopped by signal {signal} after step {step}; {}", Saved(.checkpoint.as_deref()))]
    Stopped {
        /// The signal's number: 2 (SIGINT) or 15 (SIGTERM).
        signal: i32,
        /// The last optimiser step that was completed.
        step: u64,
        /// Where the run can be resumed from; `None` when it stopped before there was anything to save.
        checkpoint: Option<PathBuf>,
    },

    /// A quantity that must be finite became infinite or not a number; the run cannot go on.
    #[error("{what} is not finite at step {step}; {}", LastGood(.last_good.as_deref()))]
    NonFinite {
        /// The step whose computation failed.
        step: u64,
        /// The quantity: "loss", "gradient norm".
        what: String,
        /// The newest checkpoint written before that step.
        last_good: Option<PathBuf>,
    },

    /// A loss on held-out text is infinite or not a number.
    #[error("{what} is not finite on the held-out text: the model's weights overflow")]
    NonFiniteEvaluation {
        /// The quantity, as results name it: `mlm_loss`, `kd_cosine`.
        what: &'static str,
    },

    /// A setting does not fit the model, the text or the other settings.
    #[error("--{name}: {reason}")]
    Setting {
        /// The setting, as its flag is spelled.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// A ticket was made for another model.
    #[error(
        "the ticket belongs to another model: it was made for {base_model} with weights {ticket_sha256}, and these are \
         {model_sha256}; give that model, or --allow-other-base if the difference is meant"
    )]
    OtherBase {
        /// The base model the ticket names.
        base_model: String,
        /// SHA-256 of the weights it was made for.
        ticket_sha256: String,
        /// SHA-256 of the weights at hand.
        model_sha256: String,
    },

    /// A ticket has a matrix that the model, or another ticket, has not or has in another shape.
    #[error("the ticket does not fit at {name}: {reason}")]
    TicketMismatch {
        /// The matrix.
        name: String,
        /// What does not fit.
        reason: String,
    },

    /// A checkpoint's task head does not fit the task.
    #[error("{}", WrongHead(path, task, *outputs, *found))]
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

    /// The tokenizer knows tokens that the embeddings have no rows for.
    #[error("the tokenizer in {} knows {tokens} tokens and the model's embeddings have {rows} rows", .path.display())]
    Vocabulary {
        /// The model's directory.
        path: PathBuf,
        /// Tokens in the tokenizer.
        tokens: u32,
        /// Rows of the embeddings.
        rows: usize,
    },

    /// The model, its configuration or its checkpoint.
    #[error(transparent)]
    Model(#[from] tamt_model::Error),

    /// The tokenizer, the corpus or another input.
    #[error(transparent)]
    Data(#[from] tamt_data::Error),
}

impl Error {
    /// A setting that does not fit.
    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { name, reason: reason.into() }
    }

    /// Gives `map_err` the path and the verb that the operating system leaves out.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// One setting in which a resumed run would differ from the recorded one; `None` where it is not set.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingDifference {
    /// The setting's name; tables are joined with dots.
    pub key: String,
    /// The value in the run directory's `config.toml`.
    pub recorded: Option<toml::Value>,
    /// The value asked for now.
    pub given: Option<toml::Value>,
}

impl fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<toml::Value>| value.as_ref().map_or_else(|| "unset".to_owned(), ToString::to_string);
        write!(f, "{} is {} there and {} here", self.key, show(&self.recorded), show(&self.given))
    }
}

struct Lines<'a>(&'a [SettingDifference]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
    }
}

struct WrongHead<'a>(&'a Path, &'a str, usize, Option<usize>);

impl fmt::Display for WrongHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, task, outputs, found) = self;
        let path = path.display();
        match found {
            Some(found) => write!(f, "{path}: its head has {found} outputs, and {task} needs {outputs}"),
            None => write!(f, "{path}: it has no head for {task}; it was not fine-tuned"),
        }
    }
}

struct LastGood<'a>(Option<&'a Path>);

impl fmt::Display for LastGood<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, "the last good checkpoint is {}", path.display()),
            None => f.write_str("no checkpoint was saved before it"),
        }
    }
}

struct Saved<'a>(Option<&'a Path>);

impl fmt::Display for Saved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, "saved {}", path.display()),
            None => f.write_str("there was nothing to save"),
        }
    }
}
