//! Tables in text files, read block by block.

use std::path::Path;

use crate::error::Result;
use crate::line_blocks::{Block, LineBlocks};
use crate::tasks::source::Format;
use crate::tasks::table::{RequestedColumn, Table};
use crate::tasks::{csv, jsonl, parquet, tsv};

/// The parser of a text format.
#[derive(Debug)]
pub(super) enum Parser {
    Tsv(tsv::Parser),
    Csv(csv::Parser),
    JsonLines(jsonl::Parser),
}

impl Parser {
    /// The parser of a format; `None` for Parquet, which is no text.
    pub(super) fn new(format: Format, header: bool, columns: Vec<RequestedColumn>) -> Option<Self> {
        match format {
            Format::Tsv => Some(Self::Tsv(tsv::Parser::new(header, columns))),
            Format::Csv => Some(Self::Csv(csv::Parser::new(header, columns))),
            Format::JsonLines => Some(Self::JsonLines(jsonl::Parser::new(columns))),
            Format::Parquet => None,
        }
    }

    /// Adds the rows of the next block; after the last block, the rows of `None`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingColumn`](crate::Error::MissingColumn), [`Error::RepeatedColumn`](crate::Error::RepeatedColumn),
    /// [`Error::BadRow`](crate::Error::BadRow), [`Error::BadFile`](crate::Error::BadFile).
    pub(super) fn parse(&mut self, block: Option<&Block>, path: &Path, table: &mut Table) -> Result<()> {
        match (self, block) {
            (Self::Tsv(parser), Some(block)) => parser.parse(block, path, table),
            (Self::Csv(parser), Some(block)) => parser.parse(block, path, table),
            (Self::Csv(parser), None) => parser.finish(path, table),
            (Self::JsonLines(parser), Some(block)) => parser.parse(block, path, table),
            (Self::Tsv(_) | Self::JsonLines(_), None) => Ok(()),
        }
    }
}

/// Reads the requested columns of a file.
///
/// # Errors
///
/// Those of [`Parser::parse`] and [`LineBlocks::next`].
pub(super) fn read(path: &Path, format: Format, header: bool, columns: &[RequestedColumn]) -> Result<Table> {
    let Some(mut parser) = Parser::new(format, header, columns.to_vec()) else {
        return parquet::read(path, columns);
    };
    let mut blocks = LineBlocks::open(path)?;
    let mut table = Table::default();
    loop {
        let block = blocks.next()?;
        parser.parse(block.as_ref(), path, &mut table)?;
        if block.is_none() {
            return Ok(table);
        }
    }
}
