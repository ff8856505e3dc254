//! Tables of comma-separated values, with quotation marks around values that need them (RFC 4180).

use std::path::Path;

use super::cells::{Rows, Wanted, pick, places};
use crate::text::read_text;
use crate::{Error, Result};

/// Reads a file. A record that has another number of columns than the first is skipped; the format has no empty lines.
pub(super) fn read(path: &Path, header: bool, wanted: &[Wanted<'_>]) -> Result<Rows> {
    let text = read_text(path)?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let bad = |e: csv::Error| Error::BadFile { path: path.to_owned(), kind: "CSV", reason: e.to_string() };

    let mut rows = Rows::default();
    let mut record = csv::StringRecord::new();
    if !reader.read_record(&mut record).map_err(bad)? {
        return Ok(rows);
    }
    let width = record.len();
    let names: Vec<&str> = record.iter().collect();
    let places = places(path, wanted, header.then_some(names.as_slice()), width)?;
    let mut more = !header || reader.read_record(&mut record).map_err(bad)?;
    while more {
        let line = record.position().map_or(0, |at| at.line() as usize);
        let fields: Vec<&str> = record.iter().collect();
        if fields.len() == width {
            rows.push(path, line, wanted, pick(&fields, &places));
        } else {
            rows.skip(path, line, format!("{} columns, not {width}", fields.len()));
        }
        more = reader.read_record(&mut record).map_err(bad)?;
    }
    Ok(rows)
}
