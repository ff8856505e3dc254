//! The exit codes: 0 done, 1 failed, 2 wrong usage, 128 + n stopped by signal n.

use std::process::ExitCode;

/// A combination of flags without a meaning that the parser of the command line does not detect.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// A study that a signal has ended between or in its runs.
#[derive(Debug, thiserror::Error)]
#[error("stopped by signal {signal}; the same command goes on")]
pub(crate) struct Interrupted {
    pub(crate) signal: i32,
}

/// A server that a signal has ended.
#[derive(Debug, thiserror::Error)]
#[error("stopped by signal {signal}; all requests that were taken have their answers")]
pub(crate) struct ServerEnded {
    pub(crate) signal: i32,
}

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// The exit code of a verb that ended with `error`.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<UsageError>().is_some() {
        return ExitCode::from(WRONG_USAGE);
    }
    if let Some(Interrupted { signal }) = error.downcast_ref() {
        return ExitCode::from(for_signal(*signal));
    }
    if let Some(ServerEnded { signal }) = error.downcast_ref() {
        return ExitCode::from(for_signal(*signal));
    }
    if let Some(tamt_serve::Error::Setting { .. } | tamt_serve::Error::SameName { .. }) = error.downcast_ref() {
        return ExitCode::from(WRONG_USAGE);
    }
    match error.downcast_ref::<tamt::Error>() {
        Some(tamt::Error::Stopped { signal, .. }) => ExitCode::from(for_signal(*signal)),
        Some(tamt::Error::Setting { .. } | tamt::Error::TeacherStates { .. }) => ExitCode::from(WRONG_USAGE),
        _ if matches!(error.downcast_ref(), Some(tamt_study::Error::Plan { .. })) => ExitCode::from(WRONG_USAGE),
        _ => ExitCode::from(FAILED),
    }
}

/// The exit code that a shell reports for a program ended by signal number `signal`.
pub(crate) fn for_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(FAILED)
}
