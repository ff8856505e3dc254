//! Tables in Apache Parquet, as the Hugging Face hub serves them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::Column;
use super::cells::{Cell, Rows, Wanted, places};
use crate::{Error, Result};

/// Reads a file. Columns that are not wanted are not touched, whatever is in them.
pub(super) fn read(path: &Path, wanted: &[Wanted<'_>]) -> Result<Rows> {
    let bad = |reason: String| Error::BadFile { path: path.to_owned(), kind: "parquet", reason };
    let file = File::open(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let reader = SerializedFileReader::new(file).map_err(|e| bad(e.to_string()))?;

    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    let places = places(path, wanted, Some(&names), names.len())?;
    let mut projected: Vec<usize> = places.iter().copied().flatten().collect();
    projected.sort_unstable();
    projected.dedup();
    let columns: Vec<Arc<Type>> = projected.iter().map(|&i| Arc::clone(&fields[i])).collect();
    if let Some(nested) = columns.iter().find(|column| !column.is_primitive()) {
        return Err(bad(format!("column {} holds lists or records, not values", Column::from(nested.name()))));
    }
    // Where each wanted column stands among those that are read.
    let places: Vec<Option<usize>> =
        places.iter().map(|place| place.and_then(|i| projected.binary_search(&i).ok())).collect();
    let projection =
        Type::group_type_builder(schema.name()).with_fields(columns).build().map_err(|e| bad(e.to_string()))?;

    let mut rows = Rows::default();
    let iter = RowIter::from_file(Some(projection), &reader).map_err(|e| bad(e.to_string()))?;
    for (i, row) in iter.enumerate() {
        let row = row.map_err(|e| bad(e.to_string()))?;
        let values: Vec<Field> = row.into_columns().into_iter().map(|(_, value)| value).collect();
        let cells = places.iter().map(|place| place.map_or(Cell::Missing, |place| cell(&values[place]))).collect();
        rows.push(path, i + 1, wanted, cells);
    }
    Ok(rows)
}

fn cell(field: &Field) -> Cell {
    match field {
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bytes(bytes) => bytes.as_utf8().map_or(Cell::Missing, |text| Cell::Text(text.to_owned())),
        Field::Bool(truth) => Cell::Text(truth.to_string()),
        Field::Byte(i) => Cell::Integer((*i).into()),
        Field::Short(i) => Cell::Integer((*i).into()),
        Field::Int(i) => Cell::Integer((*i).into()),
        Field::Long(i) => Cell::Integer(*i),
        Field::UByte(i) => Cell::Integer((*i).into()),
        Field::UShort(i) => Cell::Integer((*i).into()),
        Field::UInt(i) => Cell::Integer((*i).into()),
        Field::ULong(i) => i64::try_from(*i).map_or(Cell::Missing, Cell::Integer),
        Field::Float(number) => Cell::Number((*number).into()),
        Field::Double(number) => Cell::Number(*number),
        _ => Cell::Missing,
    }
}
