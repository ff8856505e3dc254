//! What the parts of a plan are read with.

use std::path::{Path, PathBuf};

use crate::commands::Commands;
use crate::problems::{Problems, advice};

/// The plan's directory, the commands, and the mistakes so far.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) directory: &'a Path,
    pub(super) commands: &'a dyn Commands,
    pub(super) problems: &'a Problems,
    /// Whether a missing file is a mistake.
    pub(super) needs_files: bool,
}

impl Reader<'_> {
    /// The path that a text of the plan names.
    pub(super) fn located(&self, text: &str) -> PathBuf {
        self.directory.join(text)
    }

    /// Adds a mistake about a key that is none of `known`.
    pub(super) fn unknown(&self, line: usize, key: &str, place: &str, mut known: Vec<String>) {
        known.sort_unstable();
        known.dedup();
        self.problems.add(line, format!("unknown key `{key}` in {place}{}", advice(key, &known)));
    }
}
