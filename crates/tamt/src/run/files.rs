//! The names in a run directory, and the operations on directories that runs need.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file that makes a checkpoint resumable: scores or weights, optimiser moments, counters.
pub const TRAINING_STATE_FILE: &str = "state.safetensors";

pub(super) const LOCK_FILE: &str = ".lock";
pub(super) const CHECKPOINT_PREFIX: &str = "checkpoint-";
pub(super) const PARTIAL_PREFIX: &str = ".checkpoint-";

/// The step in the name of a checkpoint.
pub(super) fn checkpoint_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(CHECKPOINT_PREFIX)?;
    let step = digits.parse().ok()?;
    // `+5` and `007` parse as well, but no run writes them.
    (format!("{step}") == digits).then_some(step)
}

/// The names of a directory's entries in ascending order, but for names that are not Unicode, which no run writes.
pub(super) fn entries(directory: &Path) -> Result<BTreeSet<String>> {
    let list = |error| Error::io("list", directory)(error);
    fs::read_dir(directory)
        .map_err(list)?
        .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
        .collect::<io::Result<_>>()
        .map_err(list)
}

/// Attempts at a directory whose parents other processes create and remove.
const TRIES: u32 = 100;

/// Whether an error of [`fs::create_dir_all`] may be of a parent that disappeared meanwhile: it is missing, or it was there
/// when it was to be created and is gone at the look at what it is.
fn is_of_missing_parent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
}

/// Creates a directory and its missing parents. Returns the created ones, the innermost first.
pub(super) fn create_directories(path: &Path) -> Result<Vec<PathBuf>> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<PathBuf> = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
    let mut tries = 0;
    loop {
        tries += 1;
        match fs::create_dir_all(path) {
            Ok(()) => return Ok(missing),
            // Another run that begins removes the empty parent that it created ([`remove_empty`]).
            Err(error) if is_of_missing_parent(&error) && tries < TRIES => {}
            Err(error) => return Err(Error::io("create directory", path)(error)),
        }
    }
}

/// Creates the folder `name` in a run directory, which exists: a run does not bring a removed directory back.
pub(crate) fn create_folder(directory: &Path, name: &str) -> Result<PathBuf> {
    let folder = directory.join(name);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io("create directory", &folder)(error))
        }
        _ => Ok(folder),
    }
}

/// Removes directories that [`create_directories`] created, as far as they are empty.
pub(super) fn remove_empty(created: &[PathBuf]) {
    // A directory that another program has filled stays, and so do its parents.
    let _ = created.iter().try_for_each(fs::remove_dir);
}

/// Removes a directory with its content, if the directory exists.
pub(super) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file, if the file exists.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Waits until the disk holds the content of a file or the list of entries of a directory.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}
