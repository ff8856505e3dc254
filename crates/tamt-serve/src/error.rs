//! The error type of this crate.

use std::io;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or is none of this machine.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address as it was given.
        address: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The operating system has no thread or no event queue for the server.
    #[error("cannot start the threads of the server")]
    Threads(#[source] io::Error),

    /// Two models have one name.
    #[error("two models have the name {name}")]
    SameName {
        /// The name.
        name: String,
    },

    /// There is nothing to serve.
    #[error("no model is to be served")]
    NoModels,

    /// A setting is out of its range.
    #[error("{name}: {reason}")]
    Setting {
        /// The setting's name in kebab case.
        name: &'static str,
        /// Why the value does not fit.
        reason: String,
    },
}

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
