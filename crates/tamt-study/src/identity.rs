//! The identity of a run: a digest of its settings and of the content of its inputs.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tamt_files::digest::{sha256_file, sha256_hex};

use crate::commands::{Resolved, Verb};
use crate::error::{Error, Result};
use crate::files;

/// The version of the rule by which identities are made.
const FORMAT: u64 = 1;

/// A file that changed less than this ago may change again without a new time of change.
const YOUNG: Duration = Duration::from_secs(2);

/// The identity of a run of `verb`: SHA-256 of the canonical JSON (sorted keys, no blanks) of the settings, of the digests
/// of the inputs in their order, and of the identity of the ticket.
///
/// # Errors
/// [`Error::Io`] if an input cannot be read.
pub fn identity(verb: Verb, resolved: &Resolved, ticket: Option<&str>, digests: &mut Digests) -> Result<String> {
    let mut inputs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for input in &resolved.inputs {
        inputs.entry(input.role).or_default().push(digests.of(&input.path)?);
    }
    let value = json!({ "format": FORMAT, "verb": verb.name(), "settings": canonical(&resolved.settings),
        "inputs": inputs, "ticket": ticket });
    Ok(sha256_hex([canonical(&value).to_string().as_bytes()]))
}

/// The identity of the ticket that a search with this identity writes after so many steps, ahead of its end.
#[must_use]
pub fn ticket_on_the_way(run: &str, steps: u64) -> String {
    sha256_hex([format!("{run} after {steps} steps").as_bytes()])
}

/// The same value with the keys of all objects sorted.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            Value::Object(keys.into_iter().map(|key| (key.clone(), canonical(&map[key]))).collect::<Map<_, _>>())
        }
        Value::Array(values) => values.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// SHA-256 of files, computed once for each path, size and time of change.
#[derive(Debug)]
pub struct Digests {
    path: PathBuf,
    known: BTreeMap<String, Known>,
    /// Digests of files that were looked at already: an expansion asks for the same files many times.
    checked: BTreeMap<PathBuf, String>,
    changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    sha256: String,
}

impl Digests {
    /// The digests that the file `path` remembers. A damaged file is none.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let known = files::read_json(path).ok().flatten().unwrap_or_default();
        Self { path: path.to_owned(), known, checked: BTreeMap::new(), changed: false }
    }

    /// The digest of a file, as the file was at the first call.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of(&mut self, path: &Path) -> Result<String> {
        if let Some(known) = self.checked.get(path) {
            return Ok(known.clone());
        }
        let sha256 = self.look(path)?;
        self.checked.insert(path.to_owned(), sha256.clone());
        Ok(sha256)
    }

    fn look(&mut self, path: &Path) -> Result<String> {
        let failed = |error| Error::io("read", path)(error);
        let metadata = fs::metadata(path).map_err(failed)?;
        let key = path.to_string_lossy().into_owned();
        let modified = since_1970(&metadata);
        if let Some(known) = self.known.get(&key)
            && (known.bytes, known.modified) == (metadata.len(), modified)
        {
            return Ok(known.sha256.clone());
        }
        let sha256 = sha256_file(path).map_err(failed)?;
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > YOUNG) {
            self.known.insert(key, Known { bytes: metadata.len(), modified, sha256: sha256.clone() });
            self.changed = true;
        }
        Ok(sha256)
    }

    /// Remembers new digests, with those that other processes have remembered meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&mut self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        let mut all = Self::open(&self.path).known;
        all.append(&mut self.known.clone());
        files::write_json(&self.path, &all)?;
        self.changed = false;
        Ok(())
    }
}

fn since_1970(metadata: &Metadata) -> u128 {
    let at = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    at.map_or(0, |at| at.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::commands::Input;

    #[test]
    fn identities_depend_on_settings_inputs_and_ticket_and_not_on_the_order_of_keys() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (one, same, other) = (file("a", "text"), file("b", "text"), file("c", "other"));
        let mut digests = Digests::open(&directory.path().join("digests.json"));
        let mut of = |settings: &str, path: &Path, ticket: Option<&str>| {
            let inputs = vec![Input { role: "corpus", path: path.to_owned() }];
            let resolved = Resolved { settings: serde_json::from_str(settings).unwrap(), inputs, steps: None };
            identity(Verb::Find, &resolved, ticket, &mut digests).unwrap()
        };
        let first = of(r#"{"a": 1, "b": {"c": 0.1, "d": 2}}"#, &one, None);
        assert_eq!(first.len(), 64);
        assert_eq!(first, of(r#"{"b": {"d": 2, "c": 0.1}, "a": 1}"#, &same, None));
        assert_ne!(first, of(r#"{"a": 2, "b": {"c": 0.1, "d": 2}}"#, &one, None));
        assert_ne!(first, of(r#"{"a": 1, "b": {"c": 0.1, "d": 2}}"#, &other, None));
        assert_ne!(first, of(r#"{"a": 1, "b": {"c": 0.1, "d": 2}}"#, &one, Some("ticket")));
    }

    #[test]
    fn a_remembered_digest_is_used_while_size_and_time_are_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, path) = (directory.path().join("digests.json"), directory.path().join("file"));
        fs::write(&path, "one").unwrap();
        let old = SystemTime::now() - Duration::from_secs(100);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let mut digests = Digests::open(&cache);
        let first = digests.of(&path).unwrap();
        assert_eq!(first, sha256_hex([&b"one"[..]]));
        digests.save().unwrap();
        // The same size and time: the remembered digest answers, which shows that the file is not read.
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(Digests::open(&cache).of(&path).unwrap(), first);
        File::options().write(true).open(&path).unwrap().set_modified(old + Duration::from_nanos(1)).unwrap();
        assert_eq!(Digests::open(&cache).of(&path).unwrap(), sha256_hex([&b"two"[..]]));
    }
}
