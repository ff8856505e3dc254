//! The common result of the four table readers.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tasks::example::Skipped;
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
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestedColumn<'a> {
    pub(super) column: &'a Column,
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

/// A row's values in the requested columns, in the order of the request.
#[derive(Debug)]
pub(super) struct Row {
    /// The line, or the row of a parquet file, from 1.
    pub(super) line: usize,
    pub(super) cells: Vec<Cell>,
}

/// The rows of a file.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    pub(super) skipped: Vec<Skipped>,
}

impl Table {
    /// Records a skipped row.
    pub(super) fn skip(&mut self, path: &Path, line: usize, reason: String) {
        self.skipped.push(Skipped { path: path.to_owned(), line, reason });
    }

    /// Adds a row, or skips it if the row lacks a needed value.
    pub(super) fn push(&mut self, path: &Path, line: usize, columns: &[RequestedColumn<'_>], cells: Vec<Cell>) {
        let mut values = columns.iter().zip(&cells);
        let missing = values.find(|(column, cell)| column.need == Need::EveryValue && **cell == Cell::Missing);
        match missing {
            Some((requested, _)) => self.skip(path, line, format!("no value in column {}", requested.column)),
            None => self.rows.push(Row { line, cells }),
        }
    }
}

/// The positions of the requested columns in a file with these column names, or in a file without names and with `width`
/// columns. `None` stands for an absent column that is not needed.
///
/// # Errors
///
/// [`Error::MissingColumn`] if a needed column is absent.
pub(super) fn positions(
    path: &Path,
    columns: &[RequestedColumn<'_>],
    names: Option<&[&str]>,
    width: usize,
) -> Result<Vec<Option<usize>>> {
    let position = |requested: &RequestedColumn<'_>| {
        let found = match requested.column {
            Column::Name(name) => names.and_then(|names| names.iter().position(|n| n.trim() == name)),
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

/// The cells of a row of text fields at the given positions.
pub(super) fn pick(fields: &[&str], positions: &[Option<usize>]) -> Vec<Cell> {
    let cell = |position: &Option<usize>| position.map_or(Cell::Missing, |i| Cell::Text(fields[i].to_owned()));
    positions.iter().map(cell).collect()
}
