//! The common result of the four table readers.

use std::path::Path;

use crate::error::Error;
use crate::tasks::source::Column;

/// The value of a row in a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// The file lacks the column, or the row lacks a value.
    Missing,
    Text(String),
    Integer(i64),
    Number(f64),
}

impl Cell {
    /// The value as text.
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(text),
            Self::Integer(integer) => Some(integer.to_string()),
            Self::Number(number) => Some(number.to_string()),
        }
    }
}

/// A column to read.
#[derive(Clone, Debug)]
pub(super) struct RequestedColumn {
    pub(super) column: Column,
    pub(super) need: Need,
}

/// How much of a column must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A file without the column is an error, and a row without a value is skipped.
    EveryValue,
    /// A file without the column is an error, and a row without a value is read.
    Column,
    Nothing,
}

/// A row of a table.
#[derive(Debug)]
pub(super) struct Row {
    /// The line, or the row of a parquet file, from 1.
    pub(super) line: usize,
    /// The values in the requested columns, in the order of the request, or the reason why the row is unusable.
    pub(super) cells: Result<Vec<Cell>, String>,
}

/// Rows of a file, in order.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// The line of the first value of a TSV file that is quoted as in CSV.
    pub(super) quoted: Option<usize>,
}

impl Table {
    /// Records an unusable row.
    pub(super) fn skip(&mut self, line: usize, reason: String) {
        self.rows.push(Row { line, cells: Err(reason) });
    }

    /// Adds a row, which is unusable if it lacks a needed value.
    pub(super) fn push(&mut self, line: usize, columns: &[RequestedColumn], cells: Vec<Cell>) {
        let mut values = columns.iter().zip(&cells);
        let missing = values.find(|(column, cell)| column.need == Need::EveryValue && **cell == Cell::Missing);
        match missing {
            Some((requested, _)) => self.skip(line, format!("no value in column {}", requested.column)),
            None => self.rows.push(Row { line, cells: Ok(cells) }),
        }
    }
}

/// The reason why an empty line is unusable.
pub(super) const EMPTY_LINE: &str = "the line is empty";

/// The number of unusable rows among all rows of a file. Empty lines, which some programs write between rows, are no rows
/// here: they say nothing about the file.
#[derive(Clone, Debug, Default)]
pub(super) struct UnusableRows {
    rows: usize,
    unusable: usize,
    /// Line and reason of the first unusable row.
    first: Option<(usize, String)>,
}

impl UnusableRows {
    /// Counts a row.
    pub(super) fn count(&mut self, row: &Row) {
        if let Err(reason) = &row.cells {
            if reason == EMPTY_LINE {
                return;
            }
            self.unusable += 1;
            self.first.get_or_insert_with(|| (row.line, reason.clone()));
        }
        self.rows += 1;
    }

    /// Refuses a table with more than a tenth of unusable rows.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`].
    pub(super) fn check(&self, path: &Path) -> crate::error::Result<()> {
        match &self.first {
            Some((line, reason)) if self.unusable * 10 > self.rows => Err(Error::Unusable {
                path: path.to_owned(),
                line: *line,
                reason: reason.clone(),
                skipped: self.unusable,
                rows: self.rows,
            }),
            _ => Ok(()),
        }
    }
}

/// The positions of the requested columns in a file with these column names, or in a file without names and with `width`
/// columns. `None` stands for an absent column that is not needed. `line` is that of the names, for errors.
///
/// # Errors
///
/// [`Error::MissingColumn`] if a needed column is absent, [`Error::RepeatedColumn`] if the name of a requested column
/// stands for several.
pub(super) fn positions(
    path: &Path,
    columns: &[RequestedColumn],
    names: Option<&[&str]>,
    width: usize,
    line: Option<usize>,
) -> crate::error::Result<Vec<Option<usize>>> {
    let position = |requested: &RequestedColumn| {
        let found = match &requested.column {
            Column::Name(name) => {
                let is_named = |at: &usize| names.is_some_and(|names| names[*at].trim() == name);
                let mut places = (0..width).filter(is_named);
                let first = places.next();
                if places.next().is_some() {
                    let (path, column) = (path.to_owned(), requested.column.to_string());
                    return Err(Error::RepeatedColumn { path, line, column });
                }
                first
            }
            Column::Index(index) => (*index < width).then_some(*index),
        };
        if found.is_none() && requested.need != Need::Nothing {
            let present = match names {
                Some(names) => names.iter().map(|name| format!("{name:?}")).collect(),
                None => vec![format!("{width}, without names")],
            };
            return Err(Error::MissingColumn { path: path.to_owned(), column: requested.column.to_string(), present });
        }
        Ok(found)
    };
    columns.iter().map(position).collect()
}
