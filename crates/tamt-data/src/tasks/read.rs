//! Reading of a split's files as examples.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tasks::example::{Example, Examples, Skipped};
use crate::tasks::label::LabelReader;
use crate::tasks::locate::{Located, locate, one_shard_note};
use crate::tasks::source::{Column, Columns, Layout, Split};
use crate::tasks::table::{Cell, Need, RequestedColumn, Row, UnusableRows};
use crate::tasks::table_blocks;
use crate::tasks::task::Task;

/// Reads a split from the task's directory `dir`, or from a directory of several tasks. If the split exists in several
/// formats, the first one in the task's declaration is read: TSV for GLUE.
///
/// Ragged and empty lines are skipped and listed in [`Examples::skipped`]: QQP's own files have some. If more than a
/// tenth of a file's rows are unusable for another reason than an empty line, the file is refused. Rows without a label, in a split that needs labels, are
/// skipped and listed in [`Examples::unlabelled`], however many there are. In a split without labels, an unknown label is
/// none: test files have placeholders.
///
/// # Errors
///
/// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::RepeatedShard`], [`Error::MissingShards`],
/// [`Error::MissingColumn`], [`Error::RepeatedColumn`], [`Error::UnknownLabel`], [`Error::BadRow`],
/// [`Error::Unusable`], [`Error::NoExamples`], [`Error::NoLabels`], [`Error::BadFile`], [`Error::NotText`],
/// [`Error::Io`]; [`Error::WrongKind`] for a span task, whose files are no tables.
pub fn read(task: &Task, dir: &Path, split: Split) -> Result<Examples> {
    Ok(read_noted(task, dir, split)?.0)
}

/// [`read()`], with what a user should know about the files, a sentence each: a file that is one of several by its name, and
/// a TSV file with values that are quoted as in CSV, whose quotation marks are part of the texts.
///
/// # Errors
///
/// Those of [`read()`].
pub fn read_noted(task: &Task, dir: &Path, split: Split) -> Result<(Examples, Vec<String>)> {
    let located = locate(task, dir, split)?;
    let mut notes: Vec<String> = one_shard_note(&located).into_iter().collect();
    let Located { source, files } = located;
    let Layout::Table { format, header, columns, integer_labels } = &source.layout else {
        return Err(Error::WrongKind { what: "a table of examples", given: "SQuAD's JSON" });
    };
    let labels = LabelReader { head: &task.head, names: integer_labels };
    let reader = Reader { labels, columns, split };
    let mut examples = Examples { items: Vec::new(), skipped: Vec::new(), unlabelled: Vec::new(), files: Vec::new() };
    for path in files {
        let columns: Vec<RequestedColumn> = reader.columns().into_iter().flatten().collect();
        let table = table_blocks::read(&path, *format, *header, &columns)?;
        let mut unusable = UnusableRows::default();
        table.rows.iter().for_each(|row| unusable.count(row));
        unusable.check(&path)?;
        notes.extend(table.quoted.map(|line| quoted_note(&path, line)));
        examples.items.reserve(table.rows.len());
        for Row { line, cells } in table.rows {
            let skipped = |reason| Skipped { path: path.clone(), line, reason };
            let cells = match cells {
                Ok(cells) => cells,
                Err(reason) => {
                    examples.skipped.push(skipped(reason));
                    continue;
                }
            };
            let example = reader.example(&path, line, cells, examples.items.len())?;
            if example.label.is_none() && split.is_labelled() {
                examples.unlabelled.push(skipped("no label".to_owned()));
            } else {
                examples.items.push(example);
            }
        }
        examples.files.push(path);
    }
    if examples.items.is_empty() {
        let path = examples.files.swap_remove(0);
        return Err(match examples.unlabelled.len() {
            0 => Error::NoExamples { path },
            rows => Error::NoLabels { path, rows },
        });
    }
    Ok((examples, notes))
}

/// The note on a TSV file that is quoted as in CSV in a line.
fn quoted_note(path: &Path, line: usize) -> String {
    let path = path.display();
    format!(
        "{path}:{line}: a value is quoted as in CSV, and in TSV quotation marks are part of the text; write the file without \
         them, or as CSV"
    )
}

/// Converts the rows of a split into examples.
struct Reader<'a> {
    labels: LabelReader<'a>,
    columns: &'a Columns,
    split: Split,
}

impl Reader<'_> {
    /// The columns id, first, second and label, as far as the task has them.
    fn columns(&self) -> [Option<RequestedColumn>; 4] {
        let requested = |column: &Column, need| RequestedColumn { column: column.clone(), need };
        let Columns { id, first, second, label } = self.columns;
        // A row may lack its label, but a labelled file has the column.
        let label_need = if self.split.is_labelled() { Need::Column } else { Need::Nothing };
        [
            id.as_ref().map(|column| requested(column, Need::EveryValue)),
            Some(requested(first, Need::EveryValue)),
            second.as_ref().map(|column| requested(column, Need::EveryValue)),
            label.as_ref().map(|column| requested(column, label_need)),
        ]
    }

    /// The example of a row whose cells follow the order of [`Reader::columns`].
    fn example(&self, path: &Path, line: usize, cells: Vec<Cell>, number: usize) -> Result<Example> {
        let mut cells = cells.into_iter();
        let mut next = |present: bool| if present { cells.next().unwrap_or(Cell::Missing) } else { Cell::Missing };
        let id = next(self.columns.id.is_some()).into_text();
        let first = next(true).into_text();
        let second = next(self.columns.second.is_some()).into_text();
        let cell = next(self.columns.label.is_some());
        let label = match self.labels.read(&cell) {
            Ok(label) => label,
            Err(_) if !self.split.is_labelled() => None,
            Err(known) => {
                let label = cell.into_text().unwrap_or_default();
                return Err(Error::UnknownLabel { path: path.to_owned(), line, label, known });
            }
        };
        Ok(Example { id: id.unwrap_or_else(|| number.to_string()), first: first.unwrap_or_default(), second, label })
    }
}
