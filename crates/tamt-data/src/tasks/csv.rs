//! The parser of comma-separated values with quotation marks (RFC 4180).

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use tamt_files::text::BYTE_ORDER_MARK;

use crate::error::{Error, Result, bad_file};
use crate::line_blocks::Block;
use crate::tasks::layout::Layout;
use crate::tasks::table::{EMPTY_LINE, RequestedColumn, Table};

/// Reads the requested columns. A record with another number of columns than the first record is unusable. Empty lines are
/// ignored in a file of several columns. In a file of one column, where an empty line is a record with an empty value,
/// they are unusable, but for those at the end of the file.
#[derive(Debug)]
pub(super) struct Parser {
    layout: Layout,
    /// Empty lines that are unusable if the file has one column and another record follows.
    empty: Vec<usize>,
    /// The lines of a record whose end is in a later block. The number of the first line counts from 1.
    begun: Block,
    /// The state at the end of the begun lines.
    state: State,
}

impl Parser {
    pub(super) fn new(header: bool, columns: Vec<RequestedColumn>) -> Self {
        let begun = Block { text: String::new(), line: 1 };
        Self { layout: Layout::new(header, columns), empty: Vec::new(), begun, state: State::ValueStart }
    }

    /// Adds the records that end in the next block.
    ///
    /// # Errors
    ///
    /// [`Error::BadFile`], [`Error::MissingColumn`], [`Error::RepeatedColumn`].
    pub(super) fn parse(&mut self, block: &Block, path: &Path, table: &mut Table) -> Result<()> {
        // Further marks at the start of the file.
        let text = if block.line == 1 { block.text.trim_start_matches(BYTE_ORDER_MARK) } else { &block.text };
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
        // The `csv` crate skips a mark at the start of a text, and counts positions from behind the mark. Elsewhere in the
        // file a mark is part of a value: a line end ahead, which is skipped, keeps such a mark.
        let is_marked = records.text.starts_with(BYTE_ORDER_MARK);
        let text = if is_marked { Cow::Owned(format!("\n{}", records.text)) } else { Cow::Borrowed(&*records.text) };
        let text = text.as_ref();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let bad = bad_file(path, "CSV");
        let mut record = csv::StringRecord::new();
        let mut cursor = Cursor { text, at: usize::from(is_marked), line: records.line };
        while reader.read_record(&mut record).map_err(|e| bad(e.to_string()))? {
            self.empty.extend(cursor.skip_empty_lines());
            let fields: Vec<&str> = record.iter().collect();
            if let Some(layout) = self.layout.next(path, cursor.line, &fields)? {
                if layout.width() == 1 {
                    self.empty.iter().for_each(|&empty| table.skip(empty, EMPTY_LINE.to_owned()));
                }
                layout.add(cursor.line, &fields, table);
            }
            self.empty.clear();
            cursor.advance_to(reader.position().byte() as usize);
        }
        self.empty.extend(cursor.skip_empty_lines());
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
    /// Moves to byte `end`, the end of a record.
    fn advance_to(&mut self, end: usize) {
        self.line += self.text[self.at..end].matches('\n').count();
        self.at = end;
    }

    /// Moves from the end of a record to the start of the next one or to the end of the text, and returns the numbers of the
    /// empty lines in between.
    fn skip_empty_lines(&mut self) -> Range<usize> {
        let rest = &self.text[self.at..];
        let between = &rest[..rest.len() - rest.trim_start_matches(['\r', '\n']).len()];
        // The reader ends a record at the first character of `\r\n`, and leaves the second one to the next record.
        let is_in_line = !matches!(self.text[..self.at].bytes().next_back(), None | Some(b'\n'));
        let first = self.line + usize::from(is_in_line);
        self.advance_to(self.at + between.len());
        first..self.line
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
    use crate::tasks::source::Column;
    use crate::tasks::table::{Cell, Need};

    /// The lines and the values of the first column, or the reasons why records are unusable, of a text in these blocks.
    fn first_column(blocks: &[&str], header: Option<&str>) -> Vec<(usize, Result<String, String>)> {
        let column = header.map_or(Column::Index(0), Column::from);
        let mut parser = Parser::new(header.is_some(), vec![RequestedColumn { column, need: Need::EveryValue }]);
        let (mut table, mut line) = (Table::default(), 1);
        for text in blocks {
            parser.parse(&Block { text: (*text).to_owned(), line }, Path::new("x"), &mut table).unwrap();
            line += text.matches('\n').count();
        }
        parser.finish(Path::new("x"), &mut table).unwrap();
        let value = |mut cells: Vec<Cell>| cells.swap_remove(0).into_text().unwrap();
        table.rows.into_iter().map(|row| (row.line, row.cells.map(value))).collect()
    }

    #[test]
    fn an_empty_line_of_a_file_of_one_column_is_an_unusable_record_but_at_the_end() {
        let (text, empty) = (|text: &str| Ok(text.to_owned()), || Err("the line is empty".to_owned()));
        let expected =
            vec![(3, empty()), (4, text("a")), (5, empty()), (6, empty()), (7, text("")), (8, text("b\n\nc"))];
        let lines = ["\n", "text\n", "\n", "a\n", "\n", "\n", "\"\"\n", "\"b\n\nc\"\n", "\n", "\n"];
        assert_eq!(first_column(&[&lines.concat()], Some("text")), expected);
        assert_eq!(first_column(&lines, Some("text")), expected);
        let windows = lines.concat().replace('\n', "\r\n").replace("b\r\n\r\nc", "b\n\nc");
        assert_eq!(first_column(&[&windows], Some("text")), expected);
        // Without a header, the first record tells the number of columns.
        let expected = [(1, empty()), (2, empty()), (3, text("a")), (4, empty()), (5, text("b"))];
        assert_eq!(first_column(&["\n\n", "a\n", "\nb"], None), expected);
        // Line ends that were translated twice, as by Python's `csv` in a text file of Windows, make no empty lines.
        assert_eq!(first_column(&["text\r\r\na\r\r\nb\r\r\n"], Some("text")), [(2, text("a")), (3, text("b"))]);
        assert_eq!(first_column(&["a,b\n\n1,2\n\n3,4\n"], Some("a")), [(3, text("1")), (5, text("3"))]);
    }

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
