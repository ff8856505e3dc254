//! The parser of tab-separated values in GLUE's form: without quoting, with an optional byte order mark, with Unix or
//! Windows line ends.

use std::path::Path;

use crate::error::Result;
use crate::line_blocks::Block;
use crate::tasks::table::{RequestedColumn, Table, pick, positions};

/// Reads the requested columns. Empty lines at the end are ignored; another empty line, or a line with another number of
/// columns than the first line, is unusable.
#[derive(Debug)]
pub(super) struct Parser {
    header: bool,
    columns: Vec<RequestedColumn>,
    first_line: Option<FirstLine>,
    /// Empty lines that are unusable if another line follows.
    empty: Vec<usize>,
}

/// What the first line says about the columns.
#[derive(Debug)]
struct FirstLine {
    width: usize,
    /// The positions of the requested columns.
    positions: Vec<Option<usize>>,
}

impl Parser {
    pub(super) fn new(header: bool, columns: Vec<RequestedColumn>) -> Self {
        Self { header, columns, first_line: None, empty: Vec::new() }
    }

    /// Adds the rows of the next block.
    ///
    /// # Errors
    ///
    /// [`Error::MissingColumn`](crate::Error::MissingColumn).
    pub(super) fn parse(&mut self, block: &Block, path: &Path, table: &mut Table) -> Result<()> {
        // A text of blank lines is empty, whatever the columns.
        if self.first_line.is_none() && block.text.trim().is_empty() {
            return Ok(());
        }
        let mut fields = Vec::new();
        for (i, line) in block.text.split_terminator('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            fields.clear();
            fields.extend(line.split('\t'));
            let first = match &mut self.first_line {
                Some(first) => first,
                first @ None => {
                    let names = self.header.then_some(fields.as_slice());
                    let positions = positions(path, &self.columns, names, fields.len())?;
                    let first = first.insert(FirstLine { width: fields.len(), positions });
                    if self.header {
                        continue;
                    }
                    first
                }
            };
            let number = block.line + i;
            if line.is_empty() {
                self.empty.push(number);
                continue;
            }
            self.empty.drain(..).for_each(|empty| table.skip(empty, "the line is empty".to_owned()));
            if fields.len() == first.width {
                table.push(number, &self.columns, pick(&fields, &first.positions));
            } else {
                table.skip(number, format!("{} columns, not {}", fields.len(), first.width));
            }
        }
        Ok(())
    }
}
