//! Tables of comma-separated values, with quotation marks around values that need them (RFC 4180).

use std::path::Path;

use super::cells::{Rows, Wanted, pick, places};
use crate::text::read_text;
use crate::{Error, Result};

/// Reads a file. A record that has another number of columns than the first is skipped, an empty line is no record.
pub(super) fn read(path: &Path, header: bool, wanted: &[Wanted<'_>]) -> Result<Rows> {
    let text = read_text(path)?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let bad = |e: csv::Error| Error::BadFile { path: path.to_owned(), kind: "CSV", reason: e.to_string() };
    let mut record = csv::StringRecord::new();
    let mut lines = Lines { text: &text, at: 0, line: 1 };
    // The line that the record starts in, if there is one.
    let mut next = |record: &mut csv::StringRecord| {
        let more = reader.read_record(record).map_err(bad)?;
        let start = record.position().map_or(0, |at| at.byte() as usize);
        Ok::<_, Error>(more.then(|| lines.of_record(start)))
    };

    let mut rows = Rows::default();
    let Some(first) = next(&mut record)? else {
        return Ok(rows);
    };
    let width = record.len();
    let names: Vec<&str> = record.iter().collect();
    let places = places(path, wanted, header.then_some(names.as_slice()), width)?;
    let mut last = first;
    let mut line = if header { next(&mut record)? } else { Some(first) };
    while let Some(at) = line {
        last = at;
        let fields: Vec<&str> = record.iter().collect();
        if fields.len() == width {
            rows.push(path, at.line, wanted, pick(&fields, &places));
        } else {
            rows.skip(path, at.line, format!("{} columns, not {width}", fields.len()));
        }
        line = next(&mut record)?;
    }
    if is_unclosed(&text[last.at..]) {
        let reason = "a quotation mark is not closed, so the rest of the file is one record".to_owned();
        return Err(Error::BadRow { path: path.to_owned(), line: last.line, reason });
    }
    Ok(rows)
}

/// A place in a text, which moves on only.
#[derive(Clone, Copy)]
struct Lines<'a> {
    text: &'a str,
    at: usize,
    /// From 1.
    line: usize,
}

impl Lines<'_> {
    /// Moves to the record that starts at `start` or, as the reader counts the empty lines before it in, after that.
    fn of_record(&mut self, start: usize) -> Self {
        let rest = &self.text[start..];
        let start = start + rest.len() - rest.trim_start_matches(['\r', '\n']).len();
        self.line += self.text[self.at..start].matches('\n').count();
        self.at = start;
        *self
    }
}

/// Whether the end of the text is inside quotation marks. A mark opens a value at its start only, and two marks are one
/// that does not close it.
fn is_unclosed(record: &str) -> bool {
    enum At {
        Start,
        Plain,
        Quoted,
        /// After a mark inside a quoted value: its end, or the first of two.
        Mark,
    }
    let next = |at: At, c: char| match (at, c) {
        (At::Quoted, '"') => At::Mark,
        (At::Start | At::Mark, '"') | (At::Quoted, _) => At::Quoted,
        (At::Start | At::Plain | At::Mark, ',' | '\n' | '\r') => At::Start,
        (At::Start | At::Plain | At::Mark, _) => At::Plain,
    };
    matches!(record.chars().fold(At::Start, next), At::Quoted)
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
