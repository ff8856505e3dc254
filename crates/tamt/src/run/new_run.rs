//! The traces of a run that ended ahead of its first result.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::run::files::{LOCK_FILE, entries, remove_empty};
use crate::run::{log, settings, tensorboard};

/// The directory of a run that began in this process: what [`NewRun::discard`] may remove.
#[derive(Clone, Debug)]
pub struct NewRun {
    path: PathBuf,
    /// Directories that the run created, the innermost first.
    created: Vec<PathBuf>,
    /// Entries ahead of the run.
    before: BTreeSet<String>,
}

impl NewRun {
    pub(super) fn new(path: &Path, created: Vec<PathBuf>) -> Result<Self> {
        let mut before = entries(path)?;
        // The lock of an earlier run has no content.
        before.remove(LOCK_FILE);
        Ok(Self { path: path.to_owned(), created, before })
    }

    /// Removes the record, the empty logs and the created directories, unless the run has written anything else.
    pub fn discard(&self) {
        let Ok(names) = entries(&self.path) else { return };
        let is_trace = |name: &str| {
            [LOCK_FILE, settings::SETTINGS_FILE, log::FILE].contains(&name)
                || name.starts_with(tensorboard::FILE_PREFIX)
        };
        let is_empty = fs::metadata(self.path.join(log::FILE)).map_or(true, |file| file.len() == 0);
        let mut new: Vec<&String> = names.iter().filter(|name| !self.before.contains(*name)).collect();
        if !is_empty || !new.iter().all(|name| is_trace(name)) {
            return;
        }
        // Until the lock is gone, no other run takes over a part of this one.
        new.sort_by_key(|name| *name == LOCK_FILE);
        for name in new {
            // If a removal fails, the next run is refused with the advice to resume; no data is lost.
            let _ = fs::remove_file(self.path.join(name));
        }
        remove_empty(&self.created);
    }
}
