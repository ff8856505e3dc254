//! The search for the files of a split.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io_error};
use crate::tasks::source::{Source, Split};
use crate::tasks::task::Task;

/// A source of a split, with its files.
#[derive(Debug)]
pub(crate) struct Located<'a> {
    pub(crate) source: &'a Source,
    /// At least one.
    pub(crate) files: Vec<PathBuf>,
}

/// The files of a split that [`read()`](crate::tasks::read()) reads, without reading them. `dir` is the task's directory or
/// contains it.
///
/// # Errors
///
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::MissingShards`], [`Error::Io`].
pub fn files_of(task: &Task, dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    Ok(locate(task, dir, split)?.files)
}

/// Finds the files of a split in `dir`, which is the task's directory or contains it.
///
/// # Errors
///
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::MissingShards`], [`Error::Io`].
pub(crate) fn locate<'a>(task: &'a Task, dir: &Path, split: Split) -> Result<Located<'a>> {
    if !task.has(split) {
        return Err(Error::NoSuchSplit { task: task.name.clone(), split: split.name() });
    }
    let sources = || task.sources.iter().filter(|source| source.split == split);
    let folders: Vec<PathBuf> = task.folders.iter().map(|folder| dir.join(folder)).chain([dir.to_owned()]).collect();
    for folder in &folders {
        for source in sources() {
            let files = matching(folder, &source.file)?;
            if !files.is_empty() {
                return Ok(Located { source, files });
            }
        }
    }
    let files = sources().map(|source| source.file.clone()).collect();
    Err(Error::MissingSplit { task: task.name.clone(), split: split.name(), files, folders })
}

/// The files in `folder` that match `pattern`, in the order of their names. The pattern may start with directory names.
fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let path = folder.join(pattern);
    let (Some(folder), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    if !pattern.contains('*') {
        return Ok(if path.is_file() { vec![path] } else { Vec::new() });
    }
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = io_error("read", folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(&unreadable)? {
        let entry = entry.map_err(&unreadable)?;
        if let Some(name) = entry.file_name().to_str()
            && matches(pattern, name)
            && entry.path().is_file()
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    if let Some((name, expected)) = names.iter().find_map(|name| Some((name, shards(name)?)))
        && expected != names.len()
    {
        return Err(Error::MissingShards { path: folder.join(name), found: names.len(), expected });
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Whether `name` equals `pattern` with a text in place of each `*`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The number of shards in a file name like `train-00000-of-00002.parquet`; a checksum may follow the number.
fn shards(name: &str) -> Option<usize> {
    let (_, count) = name.rsplit_once("-of-")?;
    let digits = count.find(|c: char| !c.is_ascii_digit()).unwrap_or(count.len());
    count[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, fits) in [
            ("train-*.parquet", "train-00000-of-00001.parquet", true),
            ("train-*.parquet", "train-.parquet", true),
            ("train-*.parquet", "train.parquet", false),
            ("a*a", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "acb", false),
            ("*", "anything", true),
            ("x", "xy", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_shards_name_says_how_many_there_are() {
        for (name, count) in [
            ("train-00000-of-00002.parquet", Some(2)),
            ("train-00000-of-00013-a09b74b3ef9c3b56.parquet", Some(13)),
            ("part-1.parquet", None),
            ("words-of-wisdom.csv", None),
        ] {
            assert_eq!(shards(name), count, "{name}");
        }
    }
}
