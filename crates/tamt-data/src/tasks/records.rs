//! Records to predict, read block by block.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::line_blocks::{Block, LineBlocks};
use crate::tasks::input_layout::TextColumns;
use crate::tasks::source::{Column, Format};
use crate::tasks::table::{Cell, Need, RequestedColumn, Row, Table, UnusableRows};
use crate::tasks::table_blocks::Parser;

/// Most records in a part.
const PART: usize = 4096;

/// A text or a pair of texts to predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The line of the file, from 1.
    pub line: usize,
    /// The id, if the file has one.
    pub id: Option<String>,
    /// The text and the second text of a pair (for spans: the question and its context), or the reason why the row is
    /// unusable.
    pub texts: Result<(String, Option<String>), String>,
}

/// The records of a file or a stream, in order. Memory is bounded by the longest line.
#[derive(Debug)]
pub struct Records {
    blocks: LineBlocks,
    layout: Layout,
    unusable: UnusableRows,
    /// Records that are read and not yet returned.
    read: VecDeque<Record>,
    has_ids: bool,
    is_at_end: bool,
}

#[derive(Debug)]
enum Layout {
    /// A text on each line.
    Lines,
    Table {
        parser: Box<Parser>,
        columns: TextColumns,
    },
}

impl Records {
    /// Each line is a text, also an empty one. Errors call the source `path`.
    ///
    /// # Errors
    ///
    /// Those of [`Records::next_part`].
    pub fn lines(source: Box<dyn Read + Send>, path: &Path) -> Result<Self> {
        let mut records = Self::new(LineBlocks::new(source, path), Layout::Lines);
        records.read_block()?;
        Ok(records)
    }

    /// The rows of a table with the first of `candidates` that the columns of the source fit. The rules for rows are those
    /// of the tasks' files; an unusable row is a record, too. Errors call the source `path`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingColumn`] of the first candidate if none fits; [`Error::RepeatedColumn`]; [`Error::WrongKind`]
    /// for Parquet, or without candidates; those of [`Records::next_part`].
    pub fn table(
        source: Box<dyn Read + Send>,
        path: &Path,
        format: Format,
        candidates: &[TextColumns],
    ) -> Result<Self> {
        let mut blocks = LineBlocks::new(source, path);
        let block = blocks.next()?;
        let mut refusal = None;
        for columns in candidates {
            let Some(mut parser) = Parser::new(format, columns.header, requested(columns)) else { break };
            let mut table = Table::default();
            match parser.parse(block.as_ref(), path, &mut table) {
                Ok(()) => {
                    let mut records =
                        Self::new(blocks, Layout::Table { parser: Box::new(parser), columns: columns.clone() });
                    records.is_at_end = block.is_none();
                    records.add(table);
                    // A record may be longer than the first block.
                    while records.read.is_empty() && records.read_block()? {}
                    records.has_ids = records.read.iter().any(|record| record.id.is_some());
                    return Ok(records);
                }
                Err(error @ Error::MissingColumn { .. }) => refusal = refusal.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or(Error::WrongKind { what: "a record", given: "columns that nothing names" }))
    }

    fn new(blocks: LineBlocks, layout: Layout) -> Self {
        let unusable = UnusableRows::default();
        Self { blocks, layout, unusable, read: VecDeque::new(), has_ids: false, is_at_end: false }
    }

    /// Whether the records have ids: whether one of the first block has.
    pub fn has_ids(&self) -> bool {
        self.has_ids
    }

    /// Bytes of the source that the returned and the waiting records take.
    pub fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    /// The next records, some thousands; none at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NotText`], [`Error::BadRow`], [`Error::BadFile`]; at the end [`Error::Unusable`] if more
    /// than a tenth of the rows, empty lines not counted, were unusable.
    pub fn next_part(&mut self) -> Result<Vec<Record>> {
        while self.read.is_empty() && self.read_block()? {}
        if self.read.is_empty() {
            self.unusable.check(self.blocks.path())?;
        }
        let part = self.read.len().min(PART);
        Ok(self.read.drain(..part).collect())
    }

    /// Reads a block; false at the end.
    fn read_block(&mut self) -> Result<bool> {
        if self.is_at_end {
            return Ok(false);
        }
        let block = self.blocks.next()?;
        self.is_at_end = block.is_none();
        match &mut self.layout {
            Layout::Lines => self.read.extend(block.iter().flat_map(texts)),
            Layout::Table { parser, .. } => {
                let mut table = Table::default();
                parser.parse(block.as_ref(), self.blocks.path(), &mut table)?;
                self.add(table);
            }
        }
        Ok(!self.is_at_end)
    }

    fn add(&mut self, table: Table) {
        let Layout::Table { columns, .. } = &self.layout else { return };
        for row in table.rows {
            self.unusable.count(&row);
            self.read.push_back(record(row, columns));
        }
    }
}

/// The columns id, first and second, as far as they are declared.
fn requested(columns: &TextColumns) -> Vec<RequestedColumn> {
    let needed = |column: &Column| RequestedColumn { column: column.clone(), need: Need::EveryValue };
    let id = columns.id.as_ref().map(|id| {
        let need = if id.required { Need::EveryValue } else { Need::Nothing };
        RequestedColumn { need, ..needed(&id.column) }
    });
    id.into_iter().chain([needed(&columns.first)]).chain(columns.second.as_ref().map(needed)).collect()
}

/// The record of a row whose cells follow the order of [`requested`].
fn record(row: Row, columns: &TextColumns) -> Record {
    let mut id = None;
    let texts = row.cells.map(|cells| {
        let mut cells = cells.into_iter().map(Cell::into_text);
        let mut next = || cells.next().flatten();
        if columns.id.is_some() {
            id = next();
        }
        let first = next().unwrap_or_default();
        (first, columns.second.as_ref().map(|_| next().unwrap_or_default()))
    });
    Record { line: row.line, id, texts }
}

/// The lines of a block as records.
fn texts(block: &Block) -> impl Iterator<Item = Record> {
    block.text.lines().enumerate().map(|(i, line)| Record {
        line: block.line + i,
        id: None,
        texts: Ok((line.to_owned(), None)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn all(mut records: Records) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        loop {
            let part = records.next_part()?;
            if part.is_empty() {
                return Ok(all);
            }
            all.extend(part);
        }
    }

    fn source(text: &str) -> Box<dyn Read + Send> {
        Box::new(Cursor::new(text.as_bytes().to_vec()))
    }

    fn table(text: &str, format: Format, candidates: &[TextColumns]) -> Result<Records> {
        Records::table(source(text), Path::new("x"), format, candidates)
    }

    fn first_texts(records: &[Record]) -> Vec<Option<&str>> {
        records.iter().map(|record| record.texts.as_ref().ok().map(|(first, _)| first.as_str())).collect()
    }

    #[test]
    fn every_line_is_a_text() {
        let records = all(Records::lines(source("a\n\n \r\nb"), Path::new("x")).unwrap()).unwrap();
        assert_eq!(first_texts(&records), [Some("a"), Some(""), Some(" "), Some("b")]);
        assert!(all(Records::lines(source(""), Path::new("x")).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn the_first_candidate_that_fits_is_read() {
        let (other, own) = (TextColumns::named("sentence", None), TextColumns::named("a", Some("b")));
        let rows = "id\ta\tb\n7\tone\ttwo\n8\t\tthree\n";
        let records = table(rows, Format::Tsv, &[other.clone(), own]).unwrap();
        assert!(records.has_ids());
        let records = all(records).unwrap();
        assert_eq!(records[1].id.as_deref(), Some("8"));
        assert_eq!(records[1].texts, Ok((String::new(), Some("three".to_owned()))));
        let error = table(rows, Format::Tsv, &[other]).unwrap_err();
        assert!(error.to_string().contains("no column \"sentence\"; its columns are \"id\", \"a\", \"b\""), "{error}");
    }

    #[test]
    fn an_unusable_row_keeps_its_place_and_more_than_a_tenth_are_refused() {
        let columns = [TextColumns::named("a", None)];
        let rows = |unusable: usize| {
            let row = |i: usize| if i < unusable { "x\n".to_owned() } else { format!("{i}\ty\n") };
            "a\tb\n".to_owned() + &(0..20).map(row).collect::<String>()
        };
        let records = table(&rows(2), Format::Tsv, &columns).unwrap();
        assert!(!records.has_ids());
        let records = all(records).unwrap();
        assert_eq!(records.len(), 20);
        assert_eq!(records[0].texts, Err("1 columns, not 2".to_owned()));
        assert_eq!((first_texts(&records)[2], records[2].line), (Some("2"), 4));
        let error = all(table(&rows(3), Format::Tsv, &columns).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Unusable { line: 2, skipped: 3, rows: 20, .. }), "{error}");
    }

    #[test]
    fn records_of_many_blocks_are_those_of_the_whole_text() {
        // Quoted line ends and values longer than a block.
        let value = |i: usize| {
            format!("{i}\nsecond, \"line\"\n{}", "x".repeat(if i.is_multiple_of(700) { 300_000 } else { i % 50 }))
        };
        let csv: String = (0..3000).map(|i| format!("\"{}\",{i}\r\n", value(i).replace('"', "\"\""))).collect();
        let records =
            all(table(&format!("text,id\r\n{csv}"), Format::Csv, &[TextColumns::named("text", None)]).unwrap());
        let records = records.unwrap();
        assert_eq!(records.len(), 3000);
        for (i, record) in records.iter().enumerate() {
            assert!(record.texts == Ok((value(i), None)) && record.id == Some(i.to_string()), "{i}");
            assert_eq!(record.line, 2 + 3 * i);
        }
    }

    #[test]
    fn short_lines_of_more_than_one_part_all_come_in_their_order() {
        let lines: String = (0..10_000).map(|i| format!("{i}\n")).collect();
        let records = all(Records::lines(source(&lines), Path::new("x")).unwrap()).unwrap();
        let expected: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        assert_eq!(first_texts(&records), expected.iter().map(|text| Some(text.as_str())).collect::<Vec<_>>());
        let rows = format!("text\n{lines}");
        let records = all(table(&rows, Format::Csv, &[TextColumns::named("text", None)]).unwrap()).unwrap();
        assert_eq!(first_texts(&records), expected.iter().map(|text| Some(text.as_str())).collect::<Vec<_>>());
    }

    #[test]
    fn an_unclosed_quotation_mark_names_the_line_of_its_record() {
        let text = "text\n".to_owned() + &"a\n".repeat(300_000) + "\"b\nc\n";
        let error = all(table(&text, Format::Csv, &[TextColumns::named("text", None)]).unwrap()).unwrap_err();
        assert!(matches!(error, Error::BadRow { line: 300_002, .. }), "{error}");
    }
}
