//! The settings of nested tables as one list.

use std::collections::BTreeMap;

use toml::{Table, Value};

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
