//! Failures as the exceptions of `tamt.errors`.

use pyo3::prelude::*;
use tamt_cli::call::{Failure, FailureKind};

/// The exception that tells a failure.
pub(crate) fn raised(py: Python<'_>, failure: Failure) -> PyErr {
    exception(py, failure).unwrap_or_else(|error| error)
}

fn exception(py: Python<'_>, failure: Failure) -> PyResult<PyErr> {
    let Failure { kind, message } = failure;
    let name = match &kind {
        FailureKind::UnknownSetting => "UnknownSettingError",
        FailureKind::Setting => "SettingError",
        FailureKind::Ticket => "TicketError",
        FailureKind::Model => "ModelError",
        FailureKind::Data => "DataError",
        FailureKind::Run => "RunError",
        FailureKind::File => "FileError",
        FailureKind::Stopped { .. } => "Interrupted",
        FailureKind::Other => "TamtError",
    };
    let class = py.import("tamt.errors")?.getattr(name)?;
    let value = match kind {
        FailureKind::Stopped { step, checkpoint } => class.call1((message, step, checkpoint))?,
        _ => class.call1((message,))?,
    };
    Ok(PyErr::from_value(value))
}
