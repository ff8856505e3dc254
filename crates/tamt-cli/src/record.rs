//! What a run was asked for, as its `config.toml` records it and as a person is told before it starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use tamt::find::Texts;
use tamt_data::{Corpus, Tokenizer};
use tamt_model::digest::sha256_hex;
use toml::{Table, Value};

use crate::printer::{Printer, grouped};

/// All resolved settings of a run.
#[derive(Debug)]
pub(crate) struct Record {
    /// Settings that decide what is computed, and those that differ from the defaults.
    table: Table,
    changed: Vec<String>,
    /// Lines about the inputs.
    inputs: Vec<(&'static str, String)>,
}

impl Record {
    /// The record of `settings` for a verb; `defaults` are those the user would have got without further flags.
    pub(crate) fn new<S: Serialize>(verb: &'static str, settings: &S, defaults: &S) -> Result<Self> {
        let (settings, defaults) = (table(settings)?, table(defaults)?);
        let changed = changed(&settings, &defaults);
        let mut record = Self { table: settings, changed, inputs: Vec::new() };
        record.set("verb", verb);
        record.set("tool-version", env!("CARGO_PKG_VERSION"));
        record.set("threads", i64::try_from(rayon::current_num_threads()).unwrap_or(i64::MAX));
        Ok(record)
    }

    /// Records one more value.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.table.insert(key.into(), value.into());
    }

    /// One more line about the inputs.
    pub(crate) fn input(&mut self, label: &'static str, value: String) {
        self.inputs.push((label, value));
    }

    /// Records a model and the digest of its weights or, before it has any, of its configuration.
    pub(crate) fn model(&mut self, key: &'static str, name: &str, sha256: &str) {
        self.set(key, name);
        self.set("base-sha256", sha256);
        self.input("model", format!("{name} (SHA-256 {})", short(sha256)));
    }

    /// Records the digest of a tokenizer: the same text is other tokens under another one.
    pub(crate) fn tokenizer(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let files: Vec<Vec<u8>> = tokenizer.files().iter().map(read).collect::<Result<_>>()?;
        self.set("tokenizer-sha256", sha256_hex(files.iter().map(Vec::as_slice)));
        Ok(())
    }

    /// Records the texts of a run and the digests of their files.
    pub(crate) fn texts(&mut self, texts: &Texts, train: &[PathBuf], eval: &[PathBuf]) {
        if let Some(corpus) = &texts.train {
            self.corpus("corpus", train, corpus);
            self.set("corpus-sha256", corpus.digest.as_str());
        }
        if let Some(corpus) = &texts.eval {
            self.corpus("eval-corpus", eval, corpus);
            self.set("eval-corpus-sha256", corpus.digest.as_str());
        }
    }

    fn corpus(&mut self, key: &'static str, files: &[PathBuf], corpus: &Corpus) {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        self.input(key, format!("{} ({} tokens)", names.join(", "), grouped(corpus.tokens.len() as u64)));
        self.set(key, names);
    }

    /// The settings for the run directory.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Tells what is about to run: a headline, the inputs, what is not as by default, and where the output goes.
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

/// A digest as a person compares it.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn table<S: Serialize>(settings: &S) -> Result<Table> {
    let mut table = Table::try_from(settings).context("the settings cannot be recorded")?;
    table.iter_mut().for_each(|(_, value)| shorten(value));
    Ok(table)
}

/// A single-precision 0.15 would be shown as 0.15000000596046448; the shortest number that is the same in single
/// precision says what was meant.
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

/// The settings that differ from the defaults, as `name value`, in the order of their names.
fn changed(settings: &Table, defaults: &Table) -> Vec<String> {
    let (mut now, mut before) = (BTreeMap::new(), BTreeMap::new());
    flatten("", settings, &mut now);
    flatten("", defaults, &mut before);
    let differs = now.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    differs.map(|(key, value)| format!("{key} {}", plain(value))).collect()
}

/// Joins the keys of nested tables with dots, but for the two that say nothing to a user.
fn flatten<'a>(prefix: &str, table: &'a Table, flat: &mut BTreeMap<String, &'a Value>) {
    for (key, value) in table {
        let path = match prefix {
            "" | "train" | "objective" => key.clone(),
            _ => format!("{prefix}.{key}"),
        };
        match value {
            Value::Table(inner) => flatten(&path, inner, flat),
            _ => {
                flat.insert(path, value);
            }
        }
    }
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
