use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use tamt_model::write::atomic_write;

use crate::{Error, Result, SettingDifference};

/// The record of a run's settings, in its directory.
pub(super) const FILE: &str = "config.toml";

/// Settings that say how a run is carried out or shown, and cannot change what it computes, in whichever table; and
/// paths, whose contents are recorded as digests. Both spellings of their names count.
const FREE: [&str; 16] = [
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
    "teacher",
    "threads",
    "ticket",
    "tokenizer",
];

/// The settings recorded in `directory`, if any are.
pub(super) fn read(directory: &Path) -> Result<Option<toml::Table>> {
    let path = directory.join(FILE);
    let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
    match fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| damaged(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged("it is not text".to_owned())),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// Records `settings` in `directory`.
pub(super) fn write(directory: &Path, settings: &toml::Table) -> Result<()> {
    let text = settings.to_string();
    atomic_write(&directory.join(FILE), |file| file.write_all(text.as_bytes()))?;
    Ok(())
}

/// Refuses settings that would make the run in `directory` go on otherwise than it began.
pub(super) fn require_equal(directory: &Path, recorded: &toml::Table, given: &toml::Table) -> Result<()> {
    let (mut before, mut now) = (BTreeMap::new(), BTreeMap::new());
    flatten("", recorded, &mut before);
    flatten("", given, &mut now);
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differences: Vec<_> = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key))
        .map(|key| SettingDifference {
            key: key.clone(),
            recorded: before.get(key).map(|value| (*value).clone()),
            given: now.get(key).map(|value| (*value).clone()),
        })
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(Error::SettingsDiffer { path: directory.to_owned(), differences }) }
}

/// Lists the settings that can change a result, the keys of nested tables joined with dots.
fn flatten<'a>(prefix: &str, table: &'a toml::Table, flat: &mut BTreeMap<String, &'a toml::Value>) {
    for (key, value) in table {
        if FREE.contains(&key.replace('-', "_").as_str()) {
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
        require_equal(directory.path(), &recorded, &table).unwrap();
    }

    #[test]
    fn differences_in_nested_tables_are_found_and_free_settings_are_not() {
        let recorded = toml::from_str("[train]\nsave-every = 5\nseed = 1\n[kd]\nweight = 1.0").unwrap();
        let given = toml::from_str("[train]\nsave-every = 9\nseed = 2\n[kd]\nweight = 1.0").unwrap();
        let Err(Error::SettingsDiffer { differences, .. }) = require_equal(Path::new("run"), &recorded, &given) else {
            panic!("another seed was accepted");
        };
        let expected =
            SettingDifference { key: "train.seed".to_owned(), recorded: Some(1.into()), given: Some(2.into()) };
        assert_eq!(differences, [expected]);
    }
}
