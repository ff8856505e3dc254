//! Plans of studies for tests, and what a study leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{bert, bytes, corpus, json_file, log_of, result_of};
use crate::task_files::{cola_rows, is_marked, sentence, write};

/// Below `directory`: `cola`'s files in `one`, and a task file `task.toml` for the data in `two` and `three`.
pub(crate) fn tasks(directory: &Path) {
    write(&directory.join("one"), "train.tsv", &cola_rows(0, 48));
    write(&directory.join("one"), "dev.tsv", &cola_rows(1000, 24));
    let rows = |from: u64, n: u64| {
        (from..from + n).map(sentence).fold("text,label\n".to_owned(), |rows, text| {
            let label = u8::from(is_marked(&text));
            format!("{rows}{text},{label}\n")
        })
    };
    for (folder, from) in [("two", 3000), ("three", 6000)] {
        write(&directory.join(folder), "train.csv", &rows(from, 48));
        write(&directory.join(folder), "dev.csv", &rows(from + 1000, 24));
    }
    let task = "name = 'marked'\nkind = 'classification'\nlabels = ['0', '1']\nmetrics = ['accuracy']\n\
        [files]\ntrain = 'train.csv'\ndev = 'dev.csv'\n[columns]\nfirst = 'text'\nlabel = 'label'\n";
    write(directory, "task.toml", task);
}

/// The base of all plans: the small BERT and its text.
pub(crate) fn base() -> String {
    format!("[base]\nmodel = '{}'\ncorpus = ['{1}']\nvalidation = ['{1}']\n", bert(), corpus())
}

/// Writes a plan and returns its path.
pub(crate) fn plan(directory: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    fs::write(&path, format!("{}{text}", base())).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The directories of the runs in a store.
pub(crate) fn runs(store: impl AsRef<Path>) -> BTreeSet<String> {
    let mut runs = BTreeSet::new();
    for kind in ["tickets", "losses", "tasks"] {
        for name in names(store.as_ref().join(kind)) {
            runs.insert(format!("{kind}/{name}"));
        }
    }
    runs
}

pub(crate) fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// The one run whose directory begins with `prefix`.
#[track_caller]
pub(crate) fn run(store: &str, prefix: &str) -> PathBuf {
    let found: Vec<String> = runs(store).into_iter().filter(|run| run.starts_with(prefix)).collect();
    assert_eq!(found.len(), 1, "{prefix}: {found:?}");
    Path::new(store).join(&found[0])
}

/// The record of a run.
pub(crate) fn record(directory: impl AsRef<Path>) -> Value {
    json_file(directory.as_ref().join("study-run.json"))
}

/// The numbers of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Numbers {
    result: Value,
    log: Vec<Value>,
    labels: Value,
    tickets: Vec<Vec<u8>>,
}

/// All that the tables of a study are made of, by run, without times, paths and the number of attempts.
pub(crate) fn numbers(store: &str) -> BTreeMap<String, Numbers> {
    let mut numbers = BTreeMap::new();
    for name in runs(store) {
        let directory = Path::new(store).join(&name);
        let result = result_of(&directory);
        let log = if directory.join("log.jsonl").is_file() { log_of(&directory) } else { Vec::new() };
        let mut record = record(&directory);
        assert_eq!(record["status"], "done", "{name}: {record}");
        let inside = names(&directory).into_iter().map(|name| directory.join(name));
        let folders = std::iter::once(directory.clone()).chain(inside);
        let tickets = folders.map(|folder| folder.join("ticket.safetensors")).filter(|path| path.is_file()).map(bytes);
        let (labels, tickets) = (record["labels"].take(), tickets.collect());
        numbers.insert(name, Numbers { result, log, labels, tickets });
    }
    numbers
}
