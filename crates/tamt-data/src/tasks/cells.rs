//! What the four table formats are read into.

use std::path::Path;

use super::{Column, Skipped};
use crate::{Error, Result};

/// A value in a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// The column or the value is not there.
    Missing,
    Text(String),
    Integer(i64),
    Number(f64),
}

impl Cell {
    /// The value as text, if there is one.
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(text),
            Self::Integer(integer) => Some(integer.to_string()),
            Self::Number(number) => Some(number.to_string()),
        }
    }
}

/// A column that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) column: &'a Column,
    /// Whether a file without it, or a row without a value in it, is wrong.
    pub(super) required: bool,
}

/// A row's values in the columns wanted, in their order.
#[derive(Debug)]
pub(super) struct Row {
    /// The line, or the row of a parquet file, from 1.
    pub(super) line: usize,
    pub(super) cells: Vec<Cell>,
}

/// The rows of a file.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    pub(super) skipped: Vec<Skipped>,
}

impl Rows {
    pub(super) fn skip(&mut self, path: &Path, line: usize, reason: String) {
        self.skipped.push(Skipped { path: path.to_owned(), line, reason });
    }

    /// Keeps a row that has a value in each required column, and counts it as skipped otherwise.
    pub(super) fn push(&mut self, path: &Path, line: usize, wanted: &[Wanted<'_>], cells: Vec<Cell>) {
        let missing = wanted.iter().zip(&cells).find(|(wanted, cell)| wanted.required && **cell == Cell::Missing);
        match missing {
            Some((wanted, _)) => self.skip(path, line, format!("no value in column {}", wanted.column)),
            None => self.rows.push(Row { line, cells }),
        }
    }
}

/// Where the wanted columns stand in a file with these column names, or in one without names that has `width` columns.
/// `None` for a column that is not there and not required.
pub(super) fn places(
    path: &Path,
    wanted: &[Wanted<'_>],
    names: Option<&[&str]>,
    width: usize,
) -> Result<Vec<Option<usize>>> {
    let place = |wanted: &Wanted<'_>| {
        let found = match wanted.column {
            Column::Name(name) => names.and_then(|names| names.iter().position(|n| n.trim() == name)),
            Column::Index(index) => (*index < width).then_some(*index),
        };
        if found.is_none() && wanted.required {
            let present = match names {
                Some(names) => names.iter().map(|name| format!("{name:?}")).collect(),
                None => vec![format!("{width}, without names")],
            };
            return Err(Error::MissingColumn { path: path.to_owned(), column: wanted.column.to_string(), present });
        }
        Ok(found)
    };
    wanted.iter().map(place).collect()
}

/// The cells of a row of text fields.
pub(super) fn pick(fields: &[&str], places: &[Option<usize>]) -> Vec<Cell> {
    let cell = |place: &Option<usize>| place.map_or(Cell::Missing, |place| Cell::Text(fields[place].to_owned()));
    places.iter().map(cell).collect()
}
