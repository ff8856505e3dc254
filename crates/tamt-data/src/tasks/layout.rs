//! The columns of a text table, as the first record of the file gives them.

use std::path::Path;

use crate::error::Result;
use crate::tasks::table::{Cell, RequestedColumn, Table, positions};

/// The requested columns of a file, and their places once the first record is read.
#[derive(Debug)]
pub(super) struct Layout {
    /// Whether the first record has the names of the columns.
    header: bool,
    columns: Vec<RequestedColumn>,
    first: Option<FirstRecord>,
}

/// What the first record says about the columns.
#[derive(Debug)]
struct FirstRecord {
    width: usize,
    /// The positions of the requested columns.
    positions: Vec<Option<usize>>,
}

/// The layout of a file whose first record is read.
#[derive(Debug)]
pub(super) struct Known<'a> {
    columns: &'a [RequestedColumn],
    first: &'a FirstRecord,
}

impl Layout {
    pub(super) fn new(header: bool, columns: Vec<RequestedColumn>) -> Self {
        Self { header, columns, first: None }
    }

    /// Whether the first record is read.
    pub(super) fn is_known(&self) -> bool {
        self.first.is_some()
    }

    /// The layout for the next record of the file, which begins in `line`; `None` if the record is the first one and
    /// has the names of the columns.
    ///
    /// # Errors
    ///
    /// At the first record [`Error::MissingColumn`](crate::Error::MissingColumn) and
    /// [`Error::RepeatedColumn`](crate::Error::RepeatedColumn).
    pub(super) fn next(&mut self, path: &Path, line: usize, fields: &[&str]) -> Result<Option<Known<'_>>> {
        let first = match &mut self.first {
            Some(first) => first,
            first @ None => {
                let names = self.header.then_some(fields);
                let positions = positions(path, &self.columns, names, fields.len(), Some(line))?;
                let first = first.insert(FirstRecord { width: fields.len(), positions });
                if self.header {
                    return Ok(None);
                }
                first
            }
        };
        Ok(Some(Known { columns: &self.columns, first }))
    }
}

impl Known<'_> {
    /// Number of columns of the first record.
    pub(super) fn width(&self) -> usize {
        self.first.width
    }

    /// Adds a record to the table, as unusable if the number of its columns is not that of the first record.
    pub(super) fn add(&self, line: usize, fields: &[&str], table: &mut Table) {
        let Self { columns, first } = self;
        if fields.len() == first.width {
            let cell = |at: &Option<usize>| at.map_or(Cell::Missing, |at| Cell::Text(fields[at].to_owned()));
            table.push(line, columns, first.positions.iter().map(cell).collect());
        } else {
            table.skip(line, format!("{} columns, not {}", fields.len(), first.width));
        }
    }
}
