//! The reader of tab-separated values in GLUE's form: without quoting, with an optional byte order mark, with Unix or
//! Windows line ends.

use std::path::Path;

use crate::error::Result;
use crate::tasks::table::{RequestedColumn, Table, pick, positions};
use crate::text::read_text;

/// Reads the requested columns of a file. Empty lines at the end are ignored; another empty line, or a line with another
/// number of columns than the first line, is skipped.
///
/// # Errors
///
/// [`Error::MissingColumn`](crate::Error::MissingColumn), [`Error::NotText`](crate::Error::NotText),
/// [`Error::Io`](crate::Error::Io).
pub(super) fn read(path: &Path, header: bool, columns: &[RequestedColumn<'_>]) -> Result<Table> {
    let text = read_text(path)?;
    // Trailing empty lines must not count as skipped rows.
    let mut lines = text.trim_end_matches(['\n', '\r']).split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut table = Table::default();
    if text.trim().is_empty() {
        return Ok(table);
    }
    let first: Vec<&str> = lines.clone().next().unwrap_or_default().split('\t').collect();
    let positions = positions(path, columns, header.then_some(first.as_slice()), first.len())?;
    if header {
        lines.next();
    }
    let mut fields = Vec::with_capacity(first.len());
    for (i, line) in lines.enumerate() {
        let number = i + 1 + usize::from(header);
        fields.clear();
        fields.extend(line.split('\t'));
        if line.is_empty() {
            table.skip(path, number, "the line is empty".to_owned());
        } else if fields.len() == first.len() {
            table.push(path, number, columns, pick(&fields, &positions));
        } else {
            table.skip(path, number, format!("{} columns, not {}", fields.len(), first.len()));
        }
    }
    Ok(table)
}
