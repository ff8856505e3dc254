//! A study: a plan with its runs, its store, and the directory that says so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tamt_files::digest::sha256_hex;

use crate::commands::Commands;
use crate::error::{Error, Result};
use crate::expand::expand;
use crate::files;
use crate::identity::Digests;
use crate::labels::Kind;
use crate::plan::Plan;
use crate::problems::Problems;
use crate::run::{Run, is_named_after};
use crate::store::{OWN, State, Store};
use crate::worker::{Sign, signs};

/// The name of the file in the directory of a study.
pub const STUDY_FILE: &str = "study.json";

/// `study.json`: what the present plan names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyFile {
    /// The version of this format.
    pub format: u64,
    /// The plan's name.
    pub name: String,
    /// The plan's file.
    pub plan: PathBuf,
    /// The directory of the store.
    pub store: PathBuf,
    /// The directories of the runs, below the store.
    pub runs: Vec<PathBuf>,
}

/// Reads a plan and expands it.
///
/// # Errors
/// [`Error::Plan`] with all mistakes, and [`Error::Io`].
pub fn runs_of(path: &Path, commands: &dyn Commands, digests: &mut Digests) -> Result<(Plan, Vec<Run>)> {
    let problems = Problems::default();
    let plan = Plan::read(path, commands, &problems)?;
    let runs = expand(&plan, commands, digests, &problems);
    if problems.is_empty() {
        Ok((plan, runs))
    } else {
        Err(Error::Plan { path: path.to_owned(), problems: problems.into_vec() })
    }
}

impl StudyFile {
    /// What a plan names, with the directories of tickets that other searches hold.
    #[must_use]
    pub fn new(plan: &Plan, store: &Store, runs: &[Run], states: &[State]) -> Self {
        let directory = |(run, state): (&Run, &State)| match state {
            State::Done { directory, .. } => directory.clone(),
            _ => run.directory(),
        };
        let runs = runs.iter().zip(states).map(directory).collect();
        Self { format: 1, name: plan.name.clone(), plan: plan.path.clone(), store: store.root().to_owned(), runs }
    }

    /// Writes the file into the directory of the study, unless it is there already.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(STUDY_FILE);
        if files::read_json::<Self>(&path).ok().flatten().as_ref() == Some(self) {
            return Ok(());
        }
        files::create_directory(directory)?;
        files::write_json(&path, self)
    }

    /// Tells the store that the study in `directory` uses it, so that the runs of the study are not removed for another
    /// one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn register(&self, directory: &Path) -> Result<()> {
        let directory = std::path::absolute(directory).map_err(Error::io("open", directory))?;
        let name = sha256_hex([directory.to_string_lossy().as_bytes()]);
        let path = self.store.join(OWN).join("studies").join(format!("{}.json", &name[..16]));
        if path.exists() {
            return Ok(());
        }
        files::create_directory(&self.store.join(OWN).join("studies"))?;
        files::write_json(&path, &Registered { directory })
    }
}

/// A study that uses a store.
#[derive(Debug, Serialize, Deserialize)]
struct Registered {
    directory: PathBuf,
}

/// The runs of all studies that use a store. A study whose directory is gone uses nothing.
fn used_by_studies(store: &Store) -> Result<BTreeSet<PathBuf>> {
    let folder = store.own("studies");
    let mut used = BTreeSet::new();
    // Beside the studies stand files in the middle of their writing.
    for name in files::entries(&folder)?.into_iter().filter(|name| name.ends_with(".json")) {
        let Some(Registered { directory }) = files::read_json(&folder.join(&name))? else { continue };
        let study: Option<StudyFile> = files::read_json(&directory.join(STUDY_FILE))?;
        // In doubt a study counts: what --prune removes is gone.
        let uses = |study: &StudyFile| !study.store.exists() || is_same(&study.store, store.root());
        used.extend(study.filter(uses).into_iter().flat_map(|study| study.runs));
    }
    Ok(used)
}

/// Whether two paths name one directory, however they are written.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || fs::canonicalize(one).ok().zip(fs::canonicalize(other).ok()).is_some_and(|(a, b)| a == b)
}

/// The directories of the store that no study names any more: what `--prune` removes. `runs` are those of the present
/// plan; other studies count as their `study.json` says. Searches that hold a ticket of the plan stay.
///
/// # Errors
/// [`Error::Io`].
pub fn unused(store: &Store, runs: &[Run]) -> Result<Vec<PathBuf>> {
    let mut used = used_by_studies(store)?;
    used.extend(runs.iter().map(Run::directory));
    let sources = runs.iter().filter_map(|run| run.ticket.as_ref()).flat_map(|ticket| &ticket.sources);
    let sources = sources.chain(runs.iter().flat_map(|run| &run.alternatives));
    used.extend(sources.map(|source| PathBuf::from(Kind::Find.folder()).join(&source.name)));
    let mut unused = store.directories()?;
    unused.retain(|directory| !used.contains(directory));
    let aside = PathBuf::from(OWN).join("aside");
    if store.root().join(&aside).is_dir() {
        unused.push(aside);
    }
    Ok(unused)
}

/// Whether a study names a directory of the store at this moment, or a living worker is at work in it: what [`unused`]
/// lists may be in use when the turn of its removal comes.
///
/// # Errors
/// [`Error::Io`].
pub fn is_in_use(store: &Store, directory: &Path) -> Result<bool> {
    let works_there = |sign: &Sign| sign.work.as_ref().is_some_and(|work| is_named_after(directory, &work.run));
    Ok(used_by_studies(store)?.contains(directory) || signs(store)?.values().any(works_there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{PATIENCE, Work, Worker};

    #[test]
    fn what_a_study_names_or_a_worker_works_on_is_in_use() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let directory = PathBuf::from("losses/dense-0123abcd");
        let is_used = || is_in_use(&store, &directory).unwrap();
        assert!(!is_used());
        let worker = Worker::join(&store, PATIENCE).unwrap();
        for (run, is_expected) in [("0123abcd4567", true), ("0123abce4567", false)] {
            worker.beat(Some(Work { run: run.to_owned(), ..Work::default() })).unwrap();
            assert_eq!(is_used(), is_expected, "{run}");
        }
        let (store_root, runs) = (store.root().to_owned(), vec![directory.clone()]);
        let study = StudyFile { format: 1, name: "x".to_owned(), plan: "x.toml".into(), store: store_root, runs };
        let of_study = root.path().join("study");
        study.write(&of_study).unwrap();
        study.register(&of_study).unwrap();
        assert!(is_used());
    }

    #[test]
    fn a_study_whose_name_is_being_written_does_not_disturb() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        files::create_directory(&store.own("studies")).unwrap();
        fs::write(store.own("studies").join(".tmp-a1B2c3"), "{").unwrap();
        assert!(unused(&store, &[]).unwrap().is_empty());
    }
}
