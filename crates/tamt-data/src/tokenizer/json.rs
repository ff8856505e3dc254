//! JSON objects in files, read by key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::text::read_text;

/// The JSON object in a file; empty if there is no such file.
pub(super) struct JsonFile {
    pub(super) path: PathBuf,
    pub(super) map: Map<String, Value>,
}

impl JsonFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let map = if path.is_file() {
            serde_json::from_str(&read_text(path)?).map_err(|e| bad(path, e.to_string()))?
        } else {
            Map::new()
        };
        Ok(Self { path: path.to_owned(), map })
    }

    /// The value of a key, `null` taken as absent.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A flag that may be absent, but not `null`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.map.get(key) {
            Some(Value::Null) => Err(bad(&self.path, format!("{key} is null, not true or false"))),
            _ => Ok(self.optional_flag(key)?.unwrap_or(default)),
        }
    }

    pub(super) fn optional_flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(bad(&self.path, format!("{key} is {}, not {expected}", shortened(value)))),
        }
    }
}

/// The first characters of a value for a message.
pub(super) fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

pub(super) fn bad(path: &Path, reason: String) -> Error {
    Error::BadTokenizer { path: path.to_owned(), reason }
}
