//! Settings from Python, and events and results to Python.

use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::Value;

/// A setting's value: a truth value, a number, a string, a path, or several of them.
pub(crate) fn to_toml(value: &Bound<'_, PyAny>) -> PyResult<toml::Value> {
    if let Ok(flag) = value.extract::<bool>() {
        return Ok(flag.into());
    }
    if let Ok(text) = value.extract::<String>() {
        return Ok(text.into());
    }
    if let Ok(number) = value.extract::<i64>() {
        return Ok(number.into());
    }
    if let Ok(number) = value.extract::<f64>() {
        return Ok(number.into());
    }
    if let Ok(path) = value.extract::<PathBuf>() {
        return Ok(path.to_string_lossy().into_owned().into());
    }
    if value.is_instance_of::<PyDict>() {
        return Err(PyTypeError::new_err("a setting is a string, a number, a path, or a list of them, not a dict"));
    }
    let items = value.try_iter().map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| "another object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("a setting is a string, a number, a path, or a list of them, not {kind}"))
    })?;
    Ok(toml::Value::Array(items.map(|item| to_toml(&item?)).collect::<PyResult<_>>()?))
}

/// The settings that are not `None`.
pub(crate) fn to_table(settings: &Bound<'_, PyDict>) -> PyResult<toml::Table> {
    let given = settings.iter().filter(|(_, value)| !value.is_none());
    given.map(|(name, value)| Ok((name.extract()?, to_toml(&value)?))).collect()
}

/// JSON as Python's objects.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => flag.into_pyobject(py)?.to_owned().into_any(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_pyobject(py)?.into_any(),
            (None, Some(number)) => number.into_pyobject(py)?.into_any(),
            (None, None) => number.as_f64().into_pyobject(py)?.into_any(),
        },
        Value::String(text) => text.into_pyobject(py)?.into_any(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| to_python(py, item)).collect::<PyResult<_>>()?;
            PyList::new(py, items)?.into_any()
        }
        Value::Object(entries) => {
            let dict = PyDict::new(py);
            for (name, value) in entries {
                dict.set_item(name, to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
