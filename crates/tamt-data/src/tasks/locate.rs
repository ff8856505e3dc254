//! The search for the files of a split.

use std::collections::HashMap;
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
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::RepeatedShard`], [`Error::MissingShards`], [`Error::Io`].
pub fn files_of(task: &Task, dir: &Path, split: Split) -> Result<Vec<PathBuf>> {
    Ok(locate(task, dir, split)?.files)
}

/// Finds the files of a split in `dir`, which is the task's directory or contains it.
///
/// # Errors
///
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::RepeatedShard`], [`Error::MissingShards`], [`Error::Io`].
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

/// The note on a source whose file, named without `*`, is one of several by its name: a fold that was chosen, or a part of
/// what the split should be.
pub(crate) fn one_shard_note(located: &Located<'_>) -> Option<String> {
    let (path, file) = (located.files.first()?, Path::new(&located.source.file));
    let name = file.file_name()?.to_str()?;
    let Shard { start, of, rest, .. } = shard(name).filter(|shard| shard.of > 1 && !name.contains('*'))?;
    let end = rest.rfind('.').map_or("", |dot| &rest[dot..]);
    let all = file.with_file_name(format!("{start}*-of-*{end}"));
    Some(format!(
        "{}: it is one of {of} files by its name, and the only one that is read; {} names them all",
        path.display(),
        all.display()
    ))
}

/// The files in `folder` that match `pattern`, in the order of their names. The pattern may start with directory names.
/// Files of a pattern whose names number them must be all of their number, each once.
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
    let mut by_number = HashMap::new();
    for name in &names {
        if let Some(Shard { number, of, .. }) = shard(name)
            && let Some(other) = by_number.insert((number, of), name)
        {
            return Err(Error::RepeatedShard { path: folder.join(name), other: folder.join(other), number, of });
        }
    }
    let mut shards = names.iter().filter_map(|name| Some((name, shard(name)?)));
    if let Some((name, Shard { of, .. })) = shards.find(|(_, shard)| shard.of != names.len()) {
        return Err(Error::MissingShards { path: folder.join(name), found: names.len(), expected: of });
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

/// What a file name like `train-00000-of-00002.parquet` says.
#[derive(Clone, Copy, Debug)]
struct Shard<'a> {
    /// The name up to the file's number.
    start: &'a str,
    number: u64,
    /// Number of all files.
    of: usize,
    /// The name behind the file's number.
    rest: &'a str,
}

/// Reads the name of a numbered file; a checksum may follow the number of all files.
fn shard(name: &str) -> Option<Shard<'_>> {
    const OF: &str = "-of-";
    let (before, rest) = name.split_at(name.rfind(OF)?);
    let start = before.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = before[start.len()..].parse().ok()?;
    let count = &rest[OF.len()..];
    let digits = count.find(|c: char| !c.is_ascii_digit()).unwrap_or(count.len());
    Some(Shard { start, number, of: count[..digits].parse().ok()?, rest })
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
    fn a_shards_name_says_which_it_is_and_how_many_there_are() {
        for (name, expected) in [
            ("train-00000-of-00002.parquet", Some(("train-", 0, 2, "-of-00002.parquet"))),
            (
                "train-00012-of-00013-a09b74b3ef9c3b56.parquet",
                Some(("train-", 12, 13, "-of-00013-a09b74b3ef9c3b56.parquet")),
            ),
            ("1-of-2.csv", Some(("", 1, 2, "-of-2.csv"))),
            ("part-1.parquet", None),
            ("words-of-wisdom.csv", None),
            ("best-of-3.csv", None),
        ] {
            let found = shard(name).map(|Shard { start, number, of, rest }| (start, number, of, rest));
            assert_eq!(found, expected, "{name}");
        }
    }
}
