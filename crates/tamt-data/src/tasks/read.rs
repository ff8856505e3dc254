//! Reading of a split's files as examples.

use std::path::Path;

use crate::error::{Error, Result};
use crate::head::{Head, Label};
use crate::tasks::example::{Example, Examples};
use crate::tasks::locate::{Located, locate};
use crate::tasks::source::{Columns, Format, Layout, Split};
use crate::tasks::table::{Cell, RequestedColumn, Row, Table};
use crate::tasks::task::Task;
use crate::tasks::{csv, jsonl, parquet, tsv};

/// Reads a split from the task's directory `dir`, or from a directory of several tasks. If the split exists in several
/// formats, the first one in the task's declaration is read: TSV for GLUE.
///
/// Ragged and empty lines are skipped and listed in [`Examples::skipped`]: QQP's own files have some. If more than a
/// tenth of a file's rows are unusable, the file is refused.
///
/// # Errors
///
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::MissingShards`], [`Error::MissingColumn`],
/// [`Error::UnknownLabel`], [`Error::BadRow`], [`Error::Unusable`], [`Error::NoExamples`], [`Error::BadFile`],
/// [`Error::NotText`], [`Error::Io`]; [`Error::WrongKind`] for a span task, whose files are no tables.
pub fn read(task: &Task, dir: &Path, split: Split) -> Result<Examples> {
    let Located { source, files } = locate(task, dir, split)?;
    let Layout::Table { format, header, columns, integer_labels } = &source.layout else {
        return Err(Error::WrongKind { what: "a table of examples", given: "SQuAD's JSON" });
    };
    let reader = Reader { labels: task.labels(), head: &task.head, integer_labels, columns, split };
    let mut examples = Examples { items: Vec::new(), skipped: Vec::new(), files: Vec::new() };
    for path in files {
        let columns: Vec<RequestedColumn<'_>> = reader.columns().into_iter().flatten().collect();
        let mut table = match format {
            Format::Tsv => tsv::read(&path, *header, &columns),
            Format::Csv => csv::read(&path, *header, &columns),
            Format::JsonLines => jsonl::read(&path, &columns),
            Format::Parquet => parquet::read(&path, &columns),
        }?;
        refuse_if_mostly_unusable(&path, &table)?;
        examples.skipped.append(&mut table.skipped);
        examples.items.reserve(table.rows.len());
        for row in table.rows {
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

/// Refuses a table of which more than a tenth of the rows were skipped.
fn refuse_if_mostly_unusable(path: &Path, table: &Table) -> Result<()> {
    let (skipped, all) = (table.skipped.len(), table.skipped.len() + table.rows.len());
    match table.skipped.first() {
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

/// Converts the rows of a split into examples.
struct Reader<'a> {
    labels: &'a [String],
    head: &'a Head,
    integer_labels: &'a [String],
    columns: &'a Columns,
    split: Split,
}

impl<'a> Reader<'a> {
    /// The columns id, first, second and label, as far as the task has them.
    fn columns(&self) -> [Option<RequestedColumn<'a>>; 4] {
        let requested = |column, required| RequestedColumn { column, required };
        let Columns { id, first, second, label } = self.columns;
        [
            id.as_ref().map(|column| requested(column, true)),
            Some(requested(first, true)),
            second.as_ref().map(|column| requested(column, true)),
            label.as_ref().map(|column| requested(column, self.split.is_labelled())),
        ]
    }

    /// The example of a row whose cells follow the order of [`Reader::columns`].
    fn example(&self, path: &Path, row: Row, number: usize) -> Result<Example> {
        let mut cells = row.cells.into_iter();
        let mut next = |present: bool| if present { cells.next().unwrap_or(Cell::Missing) } else { Cell::Missing };
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

    /// The label in a cell. The error lists the known labels.
    fn label(&self, cell: &Cell) -> Result<Option<Label>, Vec<String>> {
        // Parquet files of the Hugging Face hub mark a missing label by -1.
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
        let class = match *cell {
            Cell::Text(ref text) => self.class_of_spelling(text.trim()),
            Cell::Integer(i) => self.class_of_integer(i),
            Cell::Number(number) if number.fract() == 0.0 && number.abs() < 1e9 => self.class_of_integer(number as i64),
            Cell::Number(_) | Cell::Missing => None,
        };
        class.map(|class| Some(Label::Class(class as u32))).ok_or_else(|| self.labels.to_vec())
    }

    fn class_of_spelling(&self, spelling: &str) -> Option<usize> {
        self.labels.iter().position(|label| label == spelling)
    }

    fn class_of_integer(&self, i: i64) -> Option<usize> {
        let index = usize::try_from(i).ok();
        if !self.integer_labels.is_empty() {
            return index.and_then(|i| self.integer_labels.get(i)).and_then(|name| self.class_of_spelling(name));
        }
        self.class_of_spelling(&i.to_string()).or_else(|| index.filter(|&i| i < self.labels.len()))
    }
}

/// The finite number in a cell.
fn number(cell: &Cell) -> Option<f32> {
    let value = match cell {
        Cell::Text(text) => text.trim().parse().ok()?,
        Cell::Integer(i) => *i as f32,
        Cell::Number(number) => *number as f32,
        Cell::Missing => return None,
    };
    value.is_finite().then_some(value)
}
