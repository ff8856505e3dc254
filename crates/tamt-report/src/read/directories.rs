//! Which directories below a given one hold runs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tamt_study::record::RECORD_FILE;
use tamt_study::study::STUDY_FILE;

use crate::error::{Error, Result};
use crate::read::settings;

/// Depth to which directories are searched.
const DEPTH: usize = 5;

/// The run directories of a given directory, and the name of its study.
#[derive(Debug, Default)]
pub struct Found {
    /// The study's name; `None` where the directory is no study.
    pub study: Option<String>,
    /// The run directories, sorted.
    pub runs: Vec<PathBuf>,
    /// Whether a study wrote them, so that a run without `study-run.json` has not finished.
    pub of_study: bool,
    /// Number of runs that the study lists.
    pub listed: usize,
    /// Number of these that have no directory.
    pub not_begun: usize,
}

/// Finds the runs of `root`: the run itself, the runs that a `study.json` names, or every run below.
///
/// # Errors
/// [`Error::NoRuns`] if there are none, [`Error::Io`] if a directory cannot be read, [`Error::Damaged`] for a broken
/// `study.json`.
pub fn find(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    let study = root.join(STUDY_FILE);
    if study.exists() {
        let object = read(&study)?;
        found.study = object.get("name").and_then(Value::as_str).map(str::to_owned);
        let Listed { begun, all } = listed(&object, root);
        (found.listed, found.not_begun) = (all, all - begun.len());
        found.runs = begun;
        found.of_study = !found.runs.is_empty();
    }
    if found.runs.is_empty() {
        search(root, DEPTH, &mut found.runs)?;
    }
    // The store of one study may lie beside another study, which lists its runs by absolute paths.
    found.runs.sort();
    let mut seen = HashSet::new();
    found.runs.retain(|run| seen.insert(run.canonicalize().unwrap_or_else(|_| run.clone())));
    if found.runs.is_empty() { Err(Error::NoRuns { path: root.to_owned() }) } else { Ok(found) }
}

/// A `study.json`.
fn read(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// The runs that a `study.json` lists.
struct Listed {
    /// The directories of those that have begun.
    begun: Vec<PathBuf>,
    /// Their number.
    all: usize,
}

/// The runs that a `study.json` lists under `runs`, below its `store`. A store that has moved with its study is looked for
/// beside the file.
fn listed(study: &Value, root: &Path) -> Listed {
    let entries = study.get("runs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let store = study.get("store").and_then(Value::as_str).map(Path::new);
    let below = |base: Option<PathBuf>, path: &str| base.map(|base| base.join(path)).filter(|path| path.is_dir());
    let directory = |path: &str| {
        below(store.map(Path::to_owned), path)
            .or_else(|| below(store.map(|store| root.join(store)), path))
            .or_else(|| below(Some(root.to_owned()), path))
    };
    // A run that has not begun has no directory.
    let begun = entries.iter().filter_map(|entry| directory(entry.as_str()?)).collect();
    Listed { begun, all: entries.len() }
}

/// Adds the runs of a directory and those below it. The runs of several seeds lie below the directory of their summary.
/// A study adds what it lists: its store may have runs of other plans.
fn search(directory: &Path, depth: usize, runs: &mut Vec<PathBuf>) -> Result<()> {
    // Another program may have a file of this name.
    if let Ok(study) = read(&directory.join(STUDY_FILE)) {
        let Listed { begun, .. } = listed(&study, directory);
        if !begun.is_empty() {
            runs.extend(begun);
            return Ok(());
        }
    }
    let Holds { run, others } = look(directory);
    if run {
        runs.push(directory.to_owned());
    }
    if depth == 0 || !others {
        return Ok(());
    }
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let path = entry.map_err(Error::io("read", directory))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !path.is_symlink() && !hidden {
            search(&path, depth - 1, runs)?;
        }
    }
    Ok(())
}

/// What a directory holds.
struct Holds {
    /// A run.
    run: bool,
    /// Possibly other runs, in directories below.
    others: bool,
}

/// Settings that cannot be read are those of a run, whose reading says what is wrong, or those of several seeds.
fn look(directory: &Path) -> Holds {
    if directory.join(RECORD_FILE).exists() {
        return Holds { run: true, others: false };
    }
    match settings::table(directory) {
        Ok(Some(table)) => {
            // The runs of a demonstration and those of several seeds lie in directories below.
            let is_demo = table.get("verb").and_then(toml::Value::as_str) == Some("demo");
            let run = table.contains_key("verb") && !is_demo && !table.contains_key("seeds");
            Holds { run, others: !run }
        }
        Ok(None) => Holds { run: false, others: true },
        Err(_) => Holds { run: true, others: true },
    }
}
