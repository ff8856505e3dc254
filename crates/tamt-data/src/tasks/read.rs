//! From a split's files to examples.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::cells::{Cell, Row, Rows, Wanted};
use super::{Columns, Format, Head, Label, Layout, Source, Split, Task, csv, jsonl, parquet, tsv};
use crate::{Error, Result};

/// A text or a pair of texts, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its name in the file, or its number from 0.
    pub id: String,
    /// The text, or the first of two.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// The right answer; absent only from splits without labels.
    pub label: Option<Label>,
}

/// A row that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// The line, or the row of a parquet file, from 1.
    pub line: usize,
    /// Why not.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.reason)
    }
}

/// A split of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    /// The examples, in the order of the files; at least one.
    pub items: Vec<Example>,
    /// Rows that are not among them, to be told to the user.
    pub skipped: Vec<Skipped>,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// Reads a split from a directory: either the task's own, or one that holds the directories of several tasks. Where
/// there are several formats, TSV comes first.
///
/// Ragged and empty lines are skipped and counted, as the benchmark's own files have some (QQP); but if they are more
/// than a tenth, the file is not what it is taken for.
///
/// # Errors
///
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::MissingShards`], [`Error::MissingColumn`],
/// [`Error::UnknownLabel`], [`Error::BadRow`], [`Error::Unusable`], [`Error::NoExamples`], [`Error::BadFile`],
/// [`Error::NotText`], [`Error::Io`]; [`Error::WrongKind`] for a span task, which is no table.
pub fn read(task: &Task, dir: &Path, split: Split) -> Result<Examples> {
    let Located { source, files } = locate(task, dir, split)?;
    let Layout::Table { format, header, columns, integer_labels } = &source.layout else {
        return Err(Error::WrongKind { what: "a table of examples", given: "SQuAD's JSON" });
    };
    let reader = Reader { labels: task.labels(), head: &task.head, integer_labels, columns, split };
    let mut examples = Examples { items: Vec::new(), skipped: Vec::new(), files: Vec::new() };
    for path in files {
        let wanted = reader.wanted();
        let wanted: Vec<Wanted<'_>> = wanted.into_iter().flatten().collect();
        let mut rows = match format {
            Format::Tsv => tsv::read(&path, *header, &wanted),
            Format::Csv => csv::read(&path, *header, &wanted),
            Format::JsonLines => jsonl::read(&path, &wanted),
            Format::Parquet => parquet::read(&path, &wanted),
        }?;
        refuse_if_mostly_unusable(&path, &rows)?;
        examples.skipped.append(&mut rows.skipped);
        examples.items.reserve(rows.rows.len());
        for row in rows.rows {
            let number = examples.items.len();
            examples.items.push(reader.example(&path, row, number)?);
        }
        examples.files.push(path);
    }
    if examples.items.is_empty() {
        let path = examples.files.swap_remove(0);
        return Err(Error::NoExamples { path });
    }
    Ok(examples)
}

fn refuse_if_mostly_unusable(path: &Path, rows: &Rows) -> Result<()> {
    let (skipped, all) = (rows.skipped.len(), rows.skipped.len() + rows.rows.len());
    match rows.skipped.first() {
        Some(first) if skipped * 10 > all => Err(Error::Unusable {
            path: path.to_owned(),
            line: first.line,
            reason: first.reason.clone(),
            skipped,
            rows: all,
        }),
        _ => Ok(()),
    }
}

/// How the rows of a split become examples.
struct Reader<'a> {
    labels: &'a [String],
    head: &'a Head,
    integer_labels: &'a [String],
    columns: &'a Columns,
    split: Split,
}

impl<'a> Reader<'a> {
    /// Id, first, second, label.
    fn wanted(&self) -> [Option<Wanted<'a>>; 4] {
        let labelled = self.split.is_labelled();
        let Columns { id, first, second, label } = self.columns;
        [
            id.as_ref().map(|column| Wanted { column, required: true }),
            Some(Wanted { column: first, required: true }),
            second.as_ref().map(|column| Wanted { column, required: true }),
            label.as_ref().map(|column| Wanted { column, required: labelled }),
        ]
    }

    fn example(&self, path: &Path, row: Row, number: usize) -> Result<Example> {
        let mut cells = row.cells.into_iter();
        let mut next = |there: bool| if there { cells.next().unwrap_or(Cell::Missing) } else { Cell::Missing };
        let id = next(self.columns.id.is_some()).into_text();
        let first = next(true).into_text();
        let second = next(self.columns.second.is_some()).into_text();
        let cell = next(self.columns.label.is_some());
        let label = self.label(&cell).map_err(|known| Error::UnknownLabel {
            path: path.to_owned(),
            line: row.line,
            label: cell.into_text().unwrap_or_default(),
            known,
        })?;
        Ok(Example { id: id.unwrap_or_else(|| number.to_string()), first: first.unwrap_or_default(), second, label })
    }

    /// The label in a cell, or what it could have been.
    fn label(&self, cell: &Cell) -> Result<Option<Label>, Vec<String>> {
        // The hub writes -1 where there is no label.
        let unlabelled = match (self.head, cell) {
            (_, Cell::Missing) => true,
            (Head::Regression { range }, Cell::Integer(-1) | Cell::Number(-1.0)) => range.is_some_and(|r| r.0 > -1.0),
            (_, cell) => matches!(cell, Cell::Integer(-1) | Cell::Number(-1.0)),
        };
        if unlabelled && !self.split.is_labelled() {
            return Ok(None);
        }
        if let Head::Regression { range } = *self.head {
            let within = |value: &f32| range.is_none_or(|(least, greatest)| (least..=greatest).contains(value));
            let known = || match range {
                Some((least, greatest)) => format!("a number from {least} to {greatest}"),
                None => "a number".to_owned(),
            };
            return number(cell).filter(within).map(|v| Some(Label::Value(v))).ok_or_else(|| vec![known()]);
        }
        let place = |spelling: &str| self.labels.iter().position(|label| label == spelling);
        let class = match *cell {
            Cell::Text(ref text) => place(text.trim()),
            Cell::Integer(i) => self.class_of_integer(i),
            Cell::Number(number) if number.fract() == 0.0 && number.abs() < 1e9 => self.class_of_integer(number as i64),
            Cell::Number(_) | Cell::Missing => None,
        };
        class.map(|class| Some(Label::Class(class as u32))).ok_or_else(|| self.labels.to_vec())
    }

    fn class_of_integer(&self, i: i64) -> Option<usize> {
        let place = |spelling: &str| self.labels.iter().position(|label| label == spelling);
        let index = usize::try_from(i).ok();
        if !self.integer_labels.is_empty() {
            return index.and_then(|i| self.integer_labels.get(i)).and_then(|name| place(name));
        }
        place(&i.to_string()).or_else(|| index.filter(|&i| i < self.labels.len()))
    }
}

fn number(cell: &Cell) -> Option<f32> {
    let value = match cell {
        Cell::Text(text) => text.trim().parse().ok()?,
        Cell::Integer(i) => *i as f32,
        Cell::Number(number) => *number as f32,
        Cell::Missing => return None,
    };
    value.is_finite().then_some(value)
}

/// A source of a split, and its files in `dir`.
#[derive(Debug)]
pub(crate) struct Located<'a> {
    pub(crate) source: &'a Source,
    /// At least one.
    pub(crate) files: Vec<PathBuf>,
}

/// Finds the files of a split in the task's directory, or in a directory of such directories.
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

/// The files in `folder` that match `pattern`, in the order of their names. The pattern may go into directories by
/// name.
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
    let io = |source| Error::Io { action: "read", path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if let Some(name) = entry.file_name().to_str()
            && matches(pattern, name)
            && entry.path().is_file()
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    if let Some(expected) = names.first().and_then(|name| shards(name))
        && expected != names.len()
    {
        return Err(Error::MissingShards { path: folder.join(&names[0]), found: names.len(), expected });
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Whether `name` is `pattern` with some text for each `*`.
fn matches(pattern: &str, name: &str) -> bool {
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

/// How many files the name `train-00000-of-00002.parquet` says there are; a checksum may follow the number.
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
