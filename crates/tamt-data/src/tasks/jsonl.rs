//! Tables of JSON objects, one a line.

use std::path::Path;

use serde_json::{Map, Value};

use super::Column;
use super::cells::{Cell, Rows, Wanted};
use crate::text::read_text;
use crate::{Error, Result};

/// Reads a file. Blank lines are ignored; an object without a required value is skipped. A column that the first
/// object lacks is missing altogether.
pub(super) fn read(path: &Path, wanted: &[Wanted<'_>]) -> Result<Rows> {
    let text = read_text(path)?;
    let mut rows = Rows::default();
    let mut first = true;
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = i + 1;
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| Error::BadRow {
            path: path.to_owned(),
            line: number,
            reason: format!("not a JSON object: {e}"),
        })?;
        if std::mem::take(&mut first) {
            check_columns(path, wanted, &object)?;
        }
        let cells = wanted.iter().map(|wanted| cell(&object, wanted.column)).collect();
        rows.push(path, number, wanted, cells);
    }
    Ok(rows)
}

fn check_columns(path: &Path, wanted: &[Wanted<'_>], object: &Map<String, Value>) -> Result<()> {
    let there = |column: &Column| matches!(column, Column::Name(name) if object.contains_key(name));
    match wanted.iter().find(|wanted| wanted.required && !there(wanted.column)) {
        Some(wanted) => Err(Error::MissingColumn {
            path: path.to_owned(),
            column: wanted.column.to_string(),
            present: object.keys().map(|key| format!("{key:?}")).collect(),
        }),
        None => Ok(()),
    }
}

/// Lists and objects are no values of a table.
fn cell(object: &Map<String, Value>, column: &Column) -> Cell {
    let Column::Name(name) = column else {
        return Cell::Missing;
    };
    match object.get(name) {
        Some(Value::String(text)) => Cell::Text(text.clone()),
        Some(Value::Bool(truth)) => Cell::Text(truth.to_string()),
        Some(Value::Number(number)) => {
            number.as_i64().map(Cell::Integer).or_else(|| number.as_f64().map(Cell::Number)).unwrap_or(Cell::Missing)
        }
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => Cell::Missing,
    }
}
