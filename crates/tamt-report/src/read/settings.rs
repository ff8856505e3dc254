//! `config.toml`, the settings of a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

/// The name of the file.
pub(super) const CONFIG: &str = "config.toml";

/// The table in the file of a directory; `None` where there is no file.
pub(super) fn table(directory: &Path) -> Result<Option<Table>, String> {
    let path = directory.join(CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{CONFIG} cannot be read: {error}"))?;
    let table = text.parse().map_err(|error: toml::de::Error| format!("{CONFIG} is damaged: {}", error.message()))?;
    Ok(Some(table))
}

/// The settings of a run, with dots between the names of nested tables; none without a file.
pub(super) fn read(directory: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut flat = BTreeMap::new();
    if let Some(table) = table(directory)? {
        flatten("", &table, &mut flat);
    }
    Ok(flat)
}

fn flatten(prefix: &str, table: &Table, flat: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&path, inner, flat),
            Value::String(text) => drop(flat.insert(path, text.clone())),
            other => drop(flat.insert(path, other.to_string())),
        }
    }
}
