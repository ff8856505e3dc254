//! `config.toml`, the recorded settings of a run, and their comparison on a resume.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use tamt_model::write::atomic_write;

use crate::error::{Error, Result, SettingDifference};
use crate::run::extension::{self, Extension};

/// The record of a run's settings, in its directory.
pub const SETTINGS_FILE: &str = "config.toml";

/// Settings with no effect on a result, in whichever table: the display, the threads, names and paths, since `config.toml`
/// has the digests of their contents. A name matches in snake case and in kebab case.
const WITHOUT_EFFECT: [&str; 21] = [
    "allow_other_base",
    "base_model",
    "config",
    "corpus",
    "data",
    "eval_corpus",
    "json",
    "logging_steps",
    "model",
    "new",
    "output_dir",
    "quiet",
    "resume",
    "save_every",
    "save_minutes",
    "task_file",
    "teacher",
    "threads",
    "ticket",
    "tokenizer",
    "tool_version",
];

/// Settings with the verb that they belong to and the version of this crate, as `config.toml` records them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerbSettings<'a, S> {
    verb: &'a str,
    tool_version: &'static str,
    #[serde(flatten)]
    settings: &'a S,
}

impl<'a, S> VerbSettings<'a, S> {
    /// The settings of a verb: `find`, `tune`.
    pub fn new(verb: &'a str, settings: &'a S) -> Self {
        Self { verb, tool_version: env!("CARGO_PKG_VERSION"), settings }
    }
}

/// `settings` as a TOML table.
///
/// # Errors
/// [`Error::Unrecordable`] if a value has no TOML form.
pub(super) fn table<S: Serialize + ?Sized>(settings: &S) -> Result<toml::Table> {
    toml::Table::try_from(settings).map_err(|error| Error::Unrecordable { reason: error.to_string() })
}

/// The settings that `directory` records, if there are any.
pub(super) fn read(directory: &Path) -> Result<Option<toml::Table>> {
    let path = directory.join(SETTINGS_FILE);
    let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| damaged(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged("it is not text".to_owned())),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// Writes `config.toml` into `directory`.
pub(super) fn write(directory: &Path, settings: &toml::Table) -> Result<()> {
    let text = settings.to_string();
    atomic_write(&directory.join(SETTINGS_FILE), |file| file.write_all(text.as_bytes()))?;
    Ok(())
}

/// A note for a person if another version of the program began the run.
pub(super) fn version_note(recorded: &toml::Table, given: &toml::Table) -> Option<String> {
    let version = |table: &toml::Table| Some(table.get("tool-version")?.as_str()?.to_owned());
    let (began, now) = (version(recorded)?, version(given)?);
    (began != now).then(|| {
        format!("version {began} began this run, and version {now} goes on: the last bits of its numbers may differ")
    })
}

/// Refuses settings that change the result of the run in `directory`. A setting that is not recorded had its default.
pub(super) fn compare(
    directory: &Path,
    recorded: &toml::Table,
    given: &toml::Table,
    defaults: &toml::Table,
) -> Result<Option<Extension>> {
    let (recorded, given, defaults) = (flattened(recorded), flattened(given), flattened(defaults));
    let keys: BTreeSet<&String> = recorded.keys().chain(given.keys()).collect();
    let is_default = |key: &str| !recorded.contains_key(key) && given.get(key) == defaults.get(key);
    let differences: Vec<_> = keys
        .into_iter()
        .filter(|key| recorded.get(*key) != given.get(*key) && !is_default(key))
        .map(|key| SettingDifference {
            key: key.clone(),
            recorded: recorded.get(key).map(|value| (*value).clone()),
            given: given.get(key).map(|value| (*value).clone()),
        })
        .collect();
    if differences.is_empty() {
        return Ok(None);
    }
    extension::allowed(differences, &recorded).map(Some).map_err(|(differences, reason)| Error::SettingsDiffer {
        path: directory.to_owned(),
        differences,
        reason,
    })
}

/// The settings that can change a result. A dot joins the keys of nested tables.
fn flattened(table: &toml::Table) -> BTreeMap<String, &toml::Value> {
    let mut flat = BTreeMap::new();
    flatten("", table, &mut flat);
    flat
}

fn flatten<'a>(prefix: &str, table: &'a toml::Table, flat: &mut BTreeMap<String, &'a toml::Value>) {
    for (key, value) in table {
        if WITHOUT_EFFECT.contains(&key.replace('-', "_").as_str()) {
            continue;
        }
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, flat),
            _ => {
                flat.insert(path, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::{FindSettings, Method};
    use crate::prune::Sparsity;

    #[test]
    fn the_verb_and_the_version_join_the_settings() {
        let settings = FindSettings::new(Method::TamtKd, Sparsity::new(0.7).unwrap(), 10);
        let mut expected = table(&settings).unwrap();
        expected.insert("verb".to_owned(), "find".into());
        expected.insert("tool-version".to_owned(), env!("CARGO_PKG_VERSION").into());
        assert_eq!(table(&VerbSettings::new("find", &settings)).unwrap(), expected);
    }

    #[test]
    fn settings_without_a_toml_form_are_refused() {
        let mut settings = FindSettings::new(Method::Random, Sparsity::new(0.7).unwrap(), 0);
        settings.seed = u64::MAX;
        assert!(matches!(table(&settings), Err(Error::Unrecordable { .. })));
    }

    #[test]
    fn what_is_written_equals_what_was_given_to_the_last_bit() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = toml::Table::new();
        for (key, value) in [("a", 0.1 + 0.2), ("b", 2e-5), ("c", 1.0), ("d", f64::MIN_POSITIVE), ("e", 1e300)] {
            table.insert(key.into(), value.into());
        }
        table.insert("corpus".into(), vec!["a\n\"b\".txt", "C:\\x"].into());
        table.insert("kd".into(), toml::Table::from_iter([("weight".to_owned(), 0.5.into())]).into());
        write(directory.path(), &table).unwrap();
        let recorded = read(directory.path()).unwrap().unwrap();
        assert_eq!(recorded, table);
        assert!(compare(directory.path(), &recorded, &table, &toml::Table::new()).unwrap().is_none());
    }

    #[test]
    fn differences_in_nested_tables_are_found_and_free_settings_are_not() {
        let recorded = toml::from_str("[train]\nsave-every = 5\nseed = 1\n[kd]\nweight = 1.0").unwrap();
        let given = toml::from_str("[train]\nsave-every = 9\nseed = 2\n[kd]\nweight = 1.0").unwrap();
        let Err(Error::SettingsDiffer { differences, .. }) =
            compare(Path::new("run"), &recorded, &given, &toml::Table::new())
        else {
            panic!("another seed was accepted");
        };
        let expected =
            SettingDifference { key: "train.seed".to_owned(), recorded: Some(1.into()), given: Some(2.into()) };
        assert_eq!(differences, [expected]);
    }

    #[test]
    fn a_setting_that_an_older_program_did_not_record_had_its_default() {
        let recorded = toml::from_str("seed = 1\ntool-version = '0.0.1'").unwrap();
        let defaults = toml::from_str("[train]\nhalf = false").unwrap();
        for (given, is_same) in [("half = false", true), ("half = true", false)] {
            let given = toml::from_str(&format!("seed = 1\ntool-version = '0.1.0'\n[train]\n{given}")).unwrap();
            assert_eq!(compare(Path::new("run"), &recorded, &given, &defaults).is_ok(), is_same);
            assert!(version_note(&recorded, &given).unwrap().contains("0.0.1"));
        }
    }
}
