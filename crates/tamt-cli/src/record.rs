//! The record of a run: its settings for `config.toml`, and the announcement for a person.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use tamt::find::Texts;
use tamt::run::{SETTINGS_FILE, VerbSettings};
use tamt_data::Tokenizer;
use tamt_files::digest::sha256_hex;
use toml::{Table, Value};

use crate::flat::{flattened, table};
use crate::printer::{Printer, grouped};
use crate::recorded_path;

/// The key of the name that tickets have for their model: as typed, unlike the recorded path.
const MODEL_OF_TICKET: &str = "base-model";

/// The SHA-256 of a tokenizer's files, one after the other.
pub(crate) fn tokenizer_digest(tokenizer: &Tokenizer) -> String {
    sha256_hex(tokenizer.files().iter().map(|file| file.bytes.as_slice()))
}

/// All resolved settings of a run.
#[derive(Debug)]
pub(crate) struct Record {
    /// All settings, with digests of the inputs.
    table: Table,
    /// The settings without further flags.
    defaults: Table,
    /// The settings that differ from the defaults, as `name value`.
    changed: Vec<String>,
    /// Lines about the inputs.
    inputs: Vec<(&'static str, String)>,
}

impl Record {
    /// The record of `settings` for a verb; `defaults` are the settings without further flags.
    pub(crate) fn new<S: Serialize>(verb: &'static str, settings: &S, defaults: &S) -> Result<Self> {
        let defaults = table(defaults)?;
        let changed = changed(&table(settings)?, &defaults);
        let table = table(&VerbSettings::new(verb, settings))?;
        let mut record = Self { table, defaults, changed, inputs: Vec::new() };
        record.set("threads", i64::try_from(rayon::current_num_threads()).unwrap_or(i64::MAX));
        Ok(record)
    }

    /// Records a value.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.table.insert(key.into(), value.into());
    }

    /// Adds a line about the inputs.
    pub(crate) fn input(&mut self, label: &'static str, value: String) {
        self.inputs.push((label, value));
    }

    /// Records a model, as it was given, with the digest of its weights.
    pub(crate) fn model(&mut self, name: &OsStr, sha256: &str) {
        self.set("model", recorded_path::model(name));
        self.base(&name.to_string_lossy(), sha256);
    }

    /// Records the name that a ticket has for its model.
    pub(crate) fn model_of_ticket(&mut self, name: &str) {
        self.set(MODEL_OF_TICKET, name);
    }

    /// Records the configuration of a new model with its digest.
    pub(crate) fn new_model(&mut self, config: &Path, sha256: &str) {
        self.set("new", recorded_path::path(config));
        self.base(&config.to_string_lossy(), sha256);
    }

    fn base(&mut self, shown: &str, sha256: &str) {
        self.set("base-sha256", sha256);
        self.input("model", format!("{shown} (SHA-256 {})", short(sha256)));
    }

    /// Records the digest of a tokenizer, which decides the tokens of a text.
    pub(crate) fn tokenizer(&mut self, tokenizer: &Tokenizer) {
        self.set("tokenizer-sha256", tokenizer_digest(tokenizer));
    }

    /// Records the texts of a run and the digests of their files.
    pub(crate) fn texts(&mut self, texts: &Texts, train: &[PathBuf], eval: &[PathBuf]) {
        for (key, corpus, files) in [("corpus", &texts.train, train), ("eval-corpus", &texts.eval, eval)] {
            let Some(corpus) = corpus else { continue };
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            self.input(key, format!("{} ({} tokens)", names.join(", "), grouped(corpus.tokens.len() as u64)));
            self.set(key, recorded_path::paths(files));
            self.set(format!("{key}-sha256"), corpus.digest.as_str());
        }
    }

    /// The settings for the run directory.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The settings without further flags.
    pub(crate) fn defaults(&self) -> &Table {
        &self.defaults
    }

    /// Prints a headline, the inputs, the settings that differ from the defaults, and the output directory.
    pub(crate) fn announce(&self, printer: Printer, headline: &str, output: &Path) -> Result<()> {
        let settings = if self.changed.is_empty() { "all as by default".to_owned() } else { self.changed.join(", ") };
        let rest = [("settings", settings), ("output", output.display().to_string())];
        let mut text = format!("{headline}\n");
        for (label, value) in self.inputs.iter().chain(&rest) {
            text.push_str(&format!("  {label:<12}{value}\n"));
        }
        printer.info(&text)
    }
}

/// The name that the tickets of the run in `directory` have for their model; `None` without a record of that name. A
/// resumed run writes the same tickets, however the model is given to it.
pub(crate) fn model_of_ticket(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join(SETTINGS_FILE)).ok()?;
    let table: Table = toml::from_str(&text).ok()?;
    Some(table.get(MODEL_OF_TICKET)?.as_str()?.to_owned())
}

/// The first digits of a digest.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// The settings that differ from the defaults, as `name value`, ordered by name. The names of two tables are left out.
fn changed(settings: &Table, defaults: &Table) -> Vec<String> {
    let (given, default) = (flattened(settings), flattened(defaults));
    let shown = |path: &str| {
        let inner = ["train.", "objective."].iter().find_map(|table| path.strip_prefix(table));
        inner.unwrap_or(path).to_owned()
    };
    let differs = given.iter().filter(|(path, value)| default.get(*path) != Some(*value));
    let mut changed: Vec<String> = differs.map(|(path, value)| format!("{} {}", shown(path), plain(value))).collect();
    changed.sort();
    changed
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tamt::find::{FindSettings, Method};
    use tamt::prune::Sparsity;

    use super::*;

    fn settings() -> FindSettings {
        FindSettings::new(Method::TamtMlmKd, Sparsity::new(0.7).unwrap(), 100)
    }

    #[test]
    fn only_what_differs_from_the_defaults_is_told() {
        let mut given = settings();
        assert_eq!(Record::new("find", &given, &settings()).unwrap().changed, Vec::<String>::new());
        given.train.optimizer.learning_rate = 1e-3;
        given.objective.dropout = Some(0.15);
        given.batch_size = 8;
        assert_eq!(
            Record::new("find", &given, &settings()).unwrap().changed,
            ["batch-size 8", "dropout 0.15", "optimizer.learning-rate 0.001"]
        );
    }

    #[test]
    fn recorded_numbers_are_those_that_were_typed_and_mean_the_same() {
        let record = Record::new("find", &settings(), &settings()).unwrap();
        let text = record.table().to_string();
        assert!(text.contains("mlm-probability = 0.15\n"), "{text}");
        let mut table = record.table().clone();
        for key in ["verb", "tool-version", "threads"] {
            table.remove(key);
        }
        assert_eq!(table.try_into::<FindSettings>().unwrap(), settings());
    }
}
