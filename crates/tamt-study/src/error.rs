//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::problems::Problem;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a study, with the file that caused it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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

    /// A file of the store does not have the format that its name promises.
    #[error("{} is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },

    /// A record whose format a newer version of the program has.
    #[error("{} has the format {format}, which this version does not know", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The version of the format.
        format: u64,
    },

    /// A plan that cannot be run.
    #[error("{}: {}{}", .path.display(), count(.problems), listed(.path, .problems))]
    Plan {
        /// The plan's file.
        path: PathBuf,
        /// Every problem, in the order of lines.
        problems: Vec<Problem>,
    },
}

impl Error {
    /// For `map_err`: [`Error::Io`] with the action and the path, which the operating system's error lacks.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "the plan has a mistake".to_owned(),
        n => format!("the plan has {n} mistakes"),
    }
}

fn listed(path: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {}:{}: {}", path.display(), problem.line, problem.text)).collect()
}
