//! The reader of comma-separated values with quotation marks (RFC 4180).

use std::path::Path;

use crate::error::{Error, Result, bad_file};
use crate::tasks::table::{RequestedColumn, Table, pick, positions};
use crate::text::read_text;

/// Reads the requested columns of a file. Empty lines are ignored; a record with another number of columns than the
/// first record is skipped.
///
/// # Errors
///
/// [`Error::BadFile`], [`Error::BadRow`] if a quotation mark is not closed, [`Error::MissingColumn`], [`Error::NotText`],
/// [`Error::Io`].
pub(super) fn read(path: &Path, header: bool, columns: &[RequestedColumn<'_>]) -> Result<Table> {
    let text = read_text(path)?;
    // The `csv` crate would skip a further mark, and count positions from behind the mark.
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let bad = bad_file(path, "CSV");
    let mut record = csv::StringRecord::new();
    let mut cursor = Cursor { text, at: 0, line: 1 };
    // The position of the next record, or `None` at the end.
    let mut next = |record: &mut csv::StringRecord| {
        let more = reader.read_record(record).map_err(|e| bad(e.to_string()))?;
        let start = record.position().map_or(0, |at| at.byte() as usize);
        Ok::<_, Error>(more.then(|| cursor.advance_to(start)))
    };

    let mut table = Table::default();
    let Some(first) = next(&mut record)? else {
        return Ok(table);
    };
    let width = record.len();
    let names: Vec<&str> = record.iter().collect();
    let positions = positions(path, columns, header.then_some(names.as_slice()), width)?;
    let mut last = first;
    let mut line = if header { next(&mut record)? } else { Some(first) };
    while let Some(at) = line {
        last = at;
        let fields: Vec<&str> = record.iter().collect();
        if fields.len() == width {
            table.push(path, at.line, columns, pick(&fields, &positions));
        } else {
            table.skip(path, at.line, format!("{} columns, not {width}", fields.len()));
        }
        line = next(&mut record)?;
    }
    if is_unclosed(&text[last.at..]) {
        let reason = "a quotation mark is not closed, so the rest of the file is one record".to_owned();
        return Err(Error::BadRow { path: path.to_owned(), line: last.line, reason });
    }
    Ok(table)
}

/// A position in a text that only moves forward.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    text: &'a str,
    /// Byte offset.
    at: usize,
    /// Line number, from 1.
    line: usize,
}

impl Cursor<'_> {
    /// Moves to the record that starts at byte `start`. The reader counts preceding empty lines as part of the record, so
    /// the function skips them.
    fn advance_to(&mut self, start: usize) -> Self {
        let rest = &self.text[start..];
        let start = start + rest.len() - rest.trim_start_matches(['\r', '\n']).len();
        self.line += self.text[self.at..start].matches('\n').count();
        self.at = start;
        *self
    }
}

/// Whether the text ends inside a quoted value. A quotation mark opens a value only at the start of the value; two marks
/// in a row stand for one mark inside the value.
fn is_unclosed(record: &str) -> bool {
    enum State {
        ValueStart,
        Plain,
        Quoted,
        /// After a mark inside a quoted value: the end of the value, or the first of two marks.
        Mark,
    }
    use State::{Mark, Plain, Quoted, ValueStart};
    let next = |state: State, c: char| match (state, c) {
        (Quoted, '"') => Mark,
        (ValueStart | Mark, '"') | (Quoted, _) => Quoted,
        (ValueStart | Plain | Mark, ',' | '\n' | '\r') => ValueStart,
        (ValueStart | Plain | Mark, _) => Plain,
    };
    matches!(record.chars().fold(ValueStart, next), Quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotation_marks_are_closed_or_not() {
        for (record, unclosed) in [
            ("", false),
            ("\"", true),
            ("\"a\"", false),
            ("\"a\"\"", true),
            ("\"a\"\"\"", false),
            ("a\"b", false),
            ("a\"\"b", false),
            ("a,\"b", true),
            ("\"a\nb\",c\n", false),
            ("\"a\"b\",c", false),
            ("\"\",\"\"", false),
            ("\"\",\"", true),
        ] {
            assert_eq!(is_unclosed(record), unclosed, "{record}");
        }
    }
}
