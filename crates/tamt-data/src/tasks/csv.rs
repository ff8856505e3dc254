//! The parser of comma-separated values with quotation marks (RFC 4180).

use std::borrow::Cow;
use std::path::Path;

use crate::error::{Error, Result, bad_file};
use crate::line_blocks::Block;
use crate::tasks::layout::Layout;
use crate::tasks::table::{RequestedColumn, Table};

/// The byte order mark. The `csv` crate skips a mark at the start of a text, and counts positions from behind the mark.
const MARK: char = '\u{feff}';

/// Reads the requested columns. Empty lines are ignored; a record with another number of columns than the first record is
/// unusable.
#[derive(Debug)]
pub(super) struct Parser {
    layout: Layout,
    /// The lines of a record whose end is in a later block. The number of the first line counts from 1.
    begun: Block,
    /// The state at the end of the begun lines.
    state: State,
}

impl Parser {
    pub(super) fn new(header: bool, columns: Vec<RequestedColumn>) -> Self {
        let begun = Block { text: String::new(), line: 1 };
        Self { layout: Layout::new(header, columns), begun, state: State::ValueStart }
    }

    /// Adds the records that end in the next block.
    ///
    /// # Errors
    ///
    /// [`Error::BadFile`], [`Error::MissingColumn`].
    pub(super) fn parse(&mut self, block: &Block, path: &Path, table: &mut Table) -> Result<()> {
        // Further marks at the start of the file.
        let text = if block.line == 1 { block.text.trim_start_matches(MARK) } else { &block.text };
        let begun = self.begun.text.len();
        let ended = end_of_last_record(text, &mut self.state);
        self.begun.text.push_str(text);
        let Some(ended) = ended else { return Ok(()) };
        let rest = self.begun.text.split_off(begun + ended);
        let line = self.begun.line + self.begun.text.matches('\n').count();
        let records = std::mem::replace(&mut self.begun, Block { text: rest, line });
        self.records(&records, path, table)
    }

    /// Adds the record that the end of the file ends.
    ///
    /// # Errors
    ///
    /// Those of [`Parser::parse`]; [`Error::BadRow`] if a quotation mark is not closed.
    pub(super) fn finish(&mut self, path: &Path, table: &mut Table) -> Result<()> {
        let last = std::mem::replace(&mut self.begun, Block { text: String::new(), line: 1 });
        if self.state == State::Quoted {
            let reason = "a quotation mark is not closed, so the rest of the file is one record".to_owned();
            return Err(Error::BadRow { path: path.to_owned(), line: last.line, reason });
        }
        self.records(&last, path, table)
    }

    /// Adds whole records.
    fn records(&mut self, records: &Block, path: &Path, table: &mut Table) -> Result<()> {
        // Elsewhere in the file a mark is part of a value. An empty line ahead, which is ignored, keeps such a mark.
        let is_marked = records.text.starts_with(MARK);
        let text = if is_marked { Cow::Owned(format!("\n{}", records.text)) } else { Cow::Borrowed(&*records.text) };
        let text = text.as_ref();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let bad = bad_file(path, "CSV");
        let mut record = csv::StringRecord::new();
        let mut cursor = Cursor { text, at: 0, line: records.line - usize::from(is_marked) };
        while reader.read_record(&mut record).map_err(|e| bad(e.to_string()))? {
            let line = cursor.advance_to(record.position().map_or(0, |at| at.byte() as usize));
            let fields: Vec<&str> = record.iter().collect();
            if let Some(layout) = self.layout.next(path, &fields)? {
                layout.add(line, &fields, table);
            }
        }
        Ok(())
    }
}

/// A position in a text that only moves forward.
struct Cursor<'a> {
    text: &'a str,
    /// Byte offset.
    at: usize,
    /// Line number in the file, from 1.
    line: usize,
}

impl Cursor<'_> {
    /// Moves to the record that starts at byte `start`, and returns its line. The reader counts preceding empty lines as
    /// part of the record, so the function skips them.
    fn advance_to(&mut self, start: usize) -> usize {
        let rest = &self.text[start..];
        let start = start + rest.len() - rest.trim_start_matches(['\r', '\n']).len();
        self.line += self.text[self.at..start].matches('\n').count();
        self.at = start;
        self.line
    }
}

/// Where a character stands in its record. A quotation mark opens a value only at the start of the value; two marks in a
/// row stand for one mark inside the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ValueStart,
    Plain,
    Quoted,
    /// After a mark inside a quoted value: the end of the value, or the first of two marks.
    Mark,
}

impl State {
    fn after(self, byte: u8) -> Self {
        use State::{Mark, Plain, Quoted, ValueStart};
        match (self, byte) {
            (Quoted, b'"') => Mark,
            (ValueStart | Mark, b'"') | (Quoted, _) => Quoted,
            (ValueStart | Plain | Mark, b',' | b'\n' | b'\r') => ValueStart,
            (ValueStart | Plain | Mark, _) => Plain,
        }
    }
}

/// The end of the last line of `text` that ends outside of quotation marks; `None` if no line does. `state` is the state
/// ahead of the text, and then the state at its end.
fn end_of_last_record(text: &str, state: &mut State) -> Option<usize> {
    let mut end = None;
    for (at, &byte) in text.as_bytes().iter().enumerate() {
        *state = state.after(byte);
        if byte == b'\n' && *state == State::ValueStart {
            end = Some(at + 1);
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::table::Need;

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
            let mut state = State::ValueStart;
            end_of_last_record(record, &mut state);
            assert_eq!(state == State::Quoted, unclosed, "{record}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_part_of_a_value_but_at_the_start() {
        let requested = RequestedColumn { column: "a".into(), need: Need::EveryValue };
        let mut parser = Parser::new(true, vec![requested]);
        let mut table = Table::default();
        for (text, line) in [("\u{feff}\u{feff}a,b\n", 1), ("\u{feff}\u{e9},1\n\u{feff}\u{feff}x,2\n", 2), ("y,3\n", 4)]
        {
            parser.parse(&Block { text: text.to_owned(), line }, Path::new("x"), &mut table).unwrap();
        }
        parser.finish(Path::new("x"), &mut table).unwrap();
        let rows = table.rows.into_iter().map(|row| (row.line, row.cells.unwrap().swap_remove(0).into_text()));
        let expected = [(2, "\u{feff}\u{e9}"), (3, "\u{feff}\u{feff}x"), (4, "y")];
        assert_eq!(rows.collect::<Vec<_>>(), expected.map(|(line, text)| (line, Some(text.to_owned()))));
    }

    #[test]
    fn a_record_ends_at_a_line_end_outside_of_quotation_marks() {
        for (text, end) in [
            ("a\nb", Some(2)),
            ("a\n\"b\n", Some(2)),
            ("\"a\n\"\n", Some(5)),
            ("\"a\nb", None),
            ("a", None),
            ("\"a\"\"\n", None),
        ] {
            assert_eq!(end_of_last_record(text, &mut State::ValueStart.clone()), end, "{text}");
        }
    }
}
