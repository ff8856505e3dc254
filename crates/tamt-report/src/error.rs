//! Errors of the report.

use std::io;
use std::path::{Path, PathBuf};

/// A report that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory holds no run.
    #[error("{} holds no run: no study-run.json and no config.toml of a run below it", path.display())]
    NoRuns {
        /// The directory.
        path: PathBuf,
    },
    /// No run below the directories has a usable result.
    #[error("none of the {runs} runs can be read; the first: {name}: {reason}")]
    NoResults {
        /// Number of runs.
        runs: usize,
        /// Name of the first run.
        name: String,
        /// The reason why the first run is left out.
        reason: String,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// A file beside other roots of a report.
    #[error("{} is a file: a report of a runs.csv has no other runs", path.display())]
    NotAlone {
        /// The file.
        path: PathBuf,
    },
    /// An operating-system error.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A figure that cannot be drawn.
    #[error("cannot draw {figure}: {reason}")]
    Figure {
        /// The figure.
        figure: String,
        /// The cause.
        reason: String,
    },
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A closure that wraps an operating-system error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
