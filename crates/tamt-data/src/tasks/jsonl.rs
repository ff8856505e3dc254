//! The parser of JSON lines: one object per line.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::line_blocks::Block;
use crate::tasks::source::Column;
use crate::tasks::table::{Cell, Need, RequestedColumn, Table};
use crate::text::from_json;

/// An object whose values are parsed where a column asks for them.
type Object = BTreeMap<String, Box<RawValue>>;

/// Reads the requested columns. Blank lines are ignored; an object without a needed value is unusable. A lone surrogate
/// becomes U+FFFD.
#[derive(Debug)]
pub(super) struct Parser {
    columns: Vec<RequestedColumn>,
    is_at_first: bool,
}

impl Parser {
    pub(super) fn new(columns: Vec<RequestedColumn>) -> Self {
        Self { columns, is_at_first: true }
    }

    /// Adds the objects of the next block.
    ///
    /// # Errors
    ///
    /// [`Error::BadRow`] if a line is no object, [`Error::MissingColumn`] if the first object lacks a needed key.
    pub(super) fn parse(&mut self, block: &Block, path: &Path, table: &mut Table) -> Result<()> {
        for (i, line) in block.text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let number = block.line + i;
            let object: Object = from_json(line).map_err(|e| Error::BadRow {
                path: path.to_owned(),
                line: number,
                reason: format!("not a JSON object: {e}"),
            })?;
            if std::mem::take(&mut self.is_at_first) {
                check_columns(path, &self.columns, &object)?;
            }
            let cells = self.columns.iter().map(|requested| cell(&object, &requested.column)).collect();
            table.push(number, &self.columns, cells);
        }
        Ok(())
    }
}

fn check_columns(path: &Path, columns: &[RequestedColumn], object: &Object) -> Result<()> {
    let present = |column: &Column| matches!(column, Column::Name(name) if object.contains_key(name));
    match columns.iter().find(|requested| requested.need != Need::Nothing && !present(&requested.column)) {
        Some(requested) => Err(Error::MissingColumn {
            path: path.to_owned(),
            column: requested.column.to_string(),
            present: object.keys().map(|key| format!("{key:?}")).collect(),
        }),
        None => Ok(()),
    }
}

/// The object's value in a column. A list or an object counts as missing.
fn cell(object: &Object, column: &Column) -> Cell {
    let Column::Name(name) = column else {
        return Cell::Missing;
    };
    let Some(json) = object.get(name).map(|value| value.get()) else {
        return Cell::Missing;
    };
    match from_json(json) {
        Ok(Value::String(text)) => Cell::Text(text),
        Ok(Value::Bool(truth)) => Cell::Text(truth.to_string()),
        Ok(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Cell::Integer(integer),
            // A float would change the digits of a large integer, an id for example.
            _ if json.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Cell::Text(json.to_owned()),
            (None, number) => number.map_or(Cell::Missing, Cell::Number),
        },
        Ok(Value::Null | Value::Array(_) | Value::Object(_)) | Err(_) => Cell::Missing,
    }
}
