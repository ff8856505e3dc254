//! Settings as nested tables, and the settings of nested tables as one list.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use toml::{Table, Value};

/// The settings as a record has them.
pub(crate) fn table<S: Serialize>(settings: &S) -> Result<Table> {
    let mut table = Table::try_from(settings).context("the settings cannot be recorded")?;
    table.iter_mut().for_each(|(_, value)| shorten(value));
    Ok(table)
}

/// Replaces each number that is exact in single precision by the shortest decimal of the same single-precision value:
/// a single-precision 0.15 is 0.15000000596046448 in double precision.
fn shorten(value: &mut Value) {
    match value {
        Value::Float(number) if f64::from(*number as f32) == *number => {
            *number = (*number as f32).to_string().parse().unwrap_or(*number);
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| shorten(value)),
        _ => {}
    }
}

/// Settings by their paths: a dot joins the keys of nested tables.
pub(crate) type Flat = BTreeMap<String, Value>;

/// Lists the settings of a table.
pub(crate) fn flattened(table: &Table) -> Flat {
    let mut flat = Flat::new();
    flatten("", table, &mut flat);
    flat
}

fn flatten(prefix: &str, table: &Table, flat: &mut Flat) {
    for (key, value) in table {
        let path = joined(prefix, key);
        match value {
            Value::Table(inner) => flatten(&path, inner, flat),
            _ => {
                flat.insert(path, value.clone());
            }
        }
    }
}

/// The path of a key below the table at `prefix`; the whole file has the empty path.
pub(crate) fn joined(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}
