//! The base models of a plan.

use std::path::PathBuf;

use crate::plan::lines::{Entry, Item, Table, Value};
use crate::plan::reader::Reader;

/// A base model with its texts.
#[derive(Clone, Debug)]
pub struct Base {
    /// The plan's name of the model.
    pub name: String,
    /// The line of the plan.
    pub line: usize,
    /// A directory, or the id of a model on a hub.
    pub model: String,
    /// Text to train on.
    pub corpus: Vec<String>,
    /// Held-out text.
    pub validation: Vec<String>,
}

const KEYS: [&str; 4] = ["name", "model", "corpus", "validation"];

/// Reads `[base]`, which is one model, or has a table for each of several.
pub(super) fn read_all(reader: &Reader<'_>, entry: &Entry) -> Vec<Base> {
    let Value::Table(table) = &entry.item.value else {
        reader.problems.add(entry.line, format!("`base` is a table, not {}", entry.item.value.kind()));
        return Vec::new();
    };
    let is_nested = |entry: &&Entry| matches!(entry.item.value, Value::Table(_));
    if table.entries.iter().any(|entry| KEYS.contains(&entry.key.as_str()))
        || !table.entries.iter().any(|e| is_nested(&e))
    {
        return read(reader, None, table).into_iter().collect();
    }
    let named = |entry: &Entry| match &entry.item.value {
        Value::Table(table) => read(reader, Some(&entry.key), table),
        _ => {
            reader.unknown(entry.line, &entry.key, "[base]", KEYS.map(str::to_owned).to_vec());
            None
        }
    };
    table.entries.iter().filter_map(named).collect()
}

fn read(reader: &Reader<'_>, name: Option<&str>, table: &Table) -> Option<Base> {
    for entry in table.entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        reader.unknown(entry.line, &entry.key, "[base]", KEYS.map(str::to_owned).to_vec());
    }
    let word = |key: &str| match table.get(key).map(|entry| (entry.line, &entry.item.value)) {
        Some((_, Value::Word(text))) => Some(text.clone()),
        Some((line, other)) => {
            reader.problems.add(line, format!("`{key}` is a text, not {}", other.kind()));
            None
        }
        None => None,
    };
    let files = |key: &str| table.get(key).map_or_else(Vec::new, |entry| files(reader, entry));
    let (corpus, validation, own_name) = (files("corpus"), files("validation"), word("name"));
    let Some(given) = word("model") else {
        if table.get("model").is_none() {
            reader.problems.add(table.line, "a base has no `model`");
        }
        return None;
    };
    let path = reader.located(&given);
    let model = if path.exists() { path.to_string_lossy().into_owned() } else { given.clone() };
    let last = || PathBuf::from(&given).file_name().map_or_else(|| given.clone(), |n| n.to_string_lossy().into_owned());
    let name = name.map(str::to_owned).or(own_name).unwrap_or_else(last);
    Some(Base { name, line: table.line, model, corpus, validation })
}

/// Existing files, absolute.
fn files(reader: &Reader<'_>, entry: &Entry) -> Vec<String> {
    let items: Vec<&Item> = match &entry.item.value {
        Value::List(items) => items.iter().collect(),
        _ => vec![&entry.item],
    };
    let file = |item: &Item| {
        let Value::Word(text) = &item.value else {
            reader.problems.add(item.line, format!("`{}` holds files, not {}", entry.key, item.value.kind()));
            return None;
        };
        let path = reader.located(text);
        if !path.is_file() {
            reader.problems.add(item.line, format!("`{}`: there is no file {}", entry.key, path.display()));
        }
        Some(path.to_string_lossy().into_owned())
    };
    items.into_iter().filter_map(file).collect()
}
