//! The verbs of the command, with settings by name.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use tamt::run::Stop;
use tamt_cli::Listener;
use tamt_cli::call::{self as command, SettingKind, VERBS};

use crate::values::{to_python, to_table};
use crate::work::{Teller, wait};

/// Tells events on the caller's thread.
struct Telling {
    teller: Teller,
    listens: bool,
}

impl Listener for Telling {
    fn listens(&self) -> bool {
        self.listens
    }

    fn hear(&self, event: Value) {
        self.teller.tell(event);
    }
}

/// Runs a verb. `hear` gets events, one dictionary each, on the caller's thread.
#[pyfunction]
#[pyo3(signature = (verb, settings, hear=None))]
pub(crate) fn call<'py>(
    py: Python<'py>,
    verb: &str,
    settings: &Bound<'py, PyDict>,
    hear: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    check(verb)?;
    let given = to_table(settings)?;
    let (stop, listens) = (Stop::new(), hear.is_some());
    let result = wait(py, &stop, hear.as_ref(), |teller| {
        let listener = Arc::new(Telling { teller, listens });
        command::call(verb, &given, listener, &stop)
    })?;
    to_python(py, &result)
}

/// The settings of a verb, a dictionary each.
#[pyfunction]
pub(crate) fn settings<'py>(py: Python<'py>, verb: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    check(verb)?;
    let setting = |setting: command::Setting| {
        let kind = match setting.kind {
            SettingKind::Switch => "switch",
            SettingKind::One => "one",
            SettingKind::Many => "many",
        };
        let command::Setting { name, heading, help, choices, required, .. } = setting;
        let described = json!({
            "name": name, "kind": kind, "heading": heading, "help": help, "choices": choices, "required": required,
        });
        to_python(py, &described)
    };
    command::settings(verb).into_iter().map(setting).collect()
}

fn check(verb: &str) -> PyResult<()> {
    match VERBS.contains(&verb) {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("there is no verb {verb}"))),
    }
}
