//! Tables in Apache Parquet, as the Hugging Face hub serves them.
//!
//! Files may be damaged. What the `parquet` crate notices it reports; counts that it would set memory aside for are
//! checked before it sees them ([`pages`]), and where it panics all the same, the panic becomes an error. What it sets
//! aside for a page that is not decompressed yet is below the 2 GiB that the format allows.

mod pages;

use std::fs::File;
use std::path::Path;

use parquet::basic::{Compression, ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::cells::{Cell, Rows, Wanted, places};
use crate::panics::caught;
use crate::{Error, Result};
use pages::CheckedPages;

/// Values decoded at once.
const BATCH: usize = 1024;

/// Reads a file. Columns that are not wanted are not touched, whatever is in them.
pub(super) fn read(path: &Path, wanted: &[Wanted<'_>]) -> Result<Rows> {
    let bad = |reason: String| Error::BadFile { path: path.to_owned(), kind: "parquet", reason };
    let file = File::open(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let bytes = file.metadata().map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?.len();
    caught(|| {
        let reader = SerializedFileReader::new(file).map_err(|e| bad(e.to_string()))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let names: Vec<&str> = schema.root_schema().get_fields().iter().map(|field| field.name()).collect();
        let places = places(path, wanted, Some(&names), names.len())?;
        let leaf = |place: &Option<usize>| place.map(|i| leaf(schema, names[i])).transpose();
        let leaves: Vec<Option<usize>> = places.iter().map(leaf).collect::<Result<_, _>>().map_err(bad)?;
        let mut rows = Rows::default();
        let mut number = 0;
        for i in 0..reader.num_row_groups() {
            let group = reader.get_row_group(i).map_err(|e| bad(e.to_string()))?;
            let column = |leaf: &Option<usize>| leaf.map(|leaf| cells(&*group, leaf, bytes)).transpose();
            let columns: Vec<Option<Vec<Cell>>> = leaves.iter().map(column).collect::<Result<_, _>>().map_err(bad)?;
            let mut columns: Vec<_> = columns.into_iter().map(|column| column.map(Vec::into_iter)).collect();
            for _ in 0..columns.iter().flatten().next().map_or(0, ExactSizeIterator::len) {
                number += 1;
                let cells = columns.iter_mut().map(|c| c.as_mut().and_then(Iterator::next).unwrap_or(Cell::Missing));
                rows.push(path, number, wanted, cells.collect());
            }
        }
        Ok(rows)
    })
    .unwrap_or_else(|panic| Err(bad(format!("it is damaged: {panic}"))))
}

/// The place of a column among those that hold values; lists and records are several or none of these.
fn leaf(schema: &SchemaDescriptor, name: &str) -> Result<usize, String> {
    let mut columns = schema.columns().iter();
    columns
        .position(|column| column.path().parts() == [name] && column.max_rep_level() == 0)
        .ok_or_else(|| format!("column {name:?} holds lists or records, not values"))
}

/// A column's values in a row group of a file of so many bytes: as many as the group has rows.
fn cells(group: &dyn RowGroupReader, leaf: usize, bytes: u64) -> Result<Vec<Cell>, String> {
    let metadata = group.metadata().column(leaf);
    let column = metadata.column_descr_ptr();
    let (start, len) = metadata.byte_range();
    if start.checked_add(len).is_none_or(|end| end > bytes) {
        return Err(format!("column {:?} goes on past the end of the file", column.name()));
    }
    if !matches!(metadata.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_)) {
        let name = format!("{:?}", metadata.compression());
        let name = name.split('(').next().unwrap_or_default();
        return Err(format!("column {:?} is compressed with {name}; only snappy and zstd are read", column.name()));
    }
    let pages = group.get_column_page_reader(leaf).map_err(|e| e.to_string())?;
    let pages = CheckedPages::new(pages, &column);
    let reader = get_column_reader(column.clone(), Box::new(pages));
    let cells = match (reader, meaning(&column)) {
        (ColumnReader::ByteArrayColumnReader(reader), Some(Meaning::Plain)) => values(reader, &column, |value| {
            let text =
                value.as_utf8().map_err(|_| format!("column {:?} holds bytes that are no text", column.name()))?;
            Ok(Cell::Text(text.to_owned()))
        }),
        (ColumnReader::BoolColumnReader(reader), Some(Meaning::Plain)) => {
            values(reader, &column, |value| Ok(Cell::Text(value.to_string())))
        }
        (ColumnReader::Int32ColumnReader(reader), Some(Meaning::Plain)) => {
            values(reader, &column, |&value| Ok(Cell::Integer(value.into())))
        }
        (ColumnReader::Int32ColumnReader(reader), Some(Meaning::Unsigned)) => {
            values(reader, &column, |&value| Ok(Cell::Integer(value.cast_unsigned().into())))
        }
        (ColumnReader::Int64ColumnReader(reader), Some(Meaning::Plain)) => {
            values(reader, &column, |&value| Ok(Cell::Integer(value)))
        }
        (ColumnReader::Int64ColumnReader(reader), Some(Meaning::Unsigned)) => values(reader, &column, |&value| {
            let value = value.cast_unsigned();
            Ok(i64::try_from(value).map_or(Cell::Number(value as f64), Cell::Integer))
        }),
        (ColumnReader::FloatColumnReader(reader), Some(Meaning::Plain)) => {
            values(reader, &column, |&value| Ok(Cell::Number(value.into())))
        }
        (ColumnReader::DoubleColumnReader(reader), Some(Meaning::Plain)) => {
            values(reader, &column, |&value| Ok(Cell::Number(value)))
        }
        _ => {
            let kind = match column.converted_type() {
                ConvertedType::NONE => column.physical_type().to_string(),
                converted => converted.to_string(),
            };
            Err(format!("column {:?} holds {kind}, which is neither text nor a plain number", column.name()))
        }
    }?;
    let rows = group.metadata().num_rows();
    if usize::try_from(rows) != Ok(cells.len()) {
        return Err(format!("column {:?} has {} values in {rows} rows", column.name(), cells.len()));
    }
    Ok(cells)
}

/// How a stored value is to be taken.
#[derive(Clone, Copy)]
enum Meaning {
    /// As it is stored.
    Plain,
    /// An integer without a sign.
    Unsigned,
}

/// None for dates, decimal fractions and whatever else is not what it is stored as.
fn meaning(column: &ColumnDescriptor) -> Option<Meaning> {
    match column.logical_type_ref() {
        Some(LogicalType::Integer(int)) if !int.is_signed => return Some(Meaning::Unsigned),
        Some(LogicalType::Integer(_) | LogicalType::String | LogicalType::Enum | LogicalType::Json) => {
            return Some(Meaning::Plain);
        }
        Some(_) => return None,
        None => {}
    }
    match column.converted_type() {
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
            Some(Meaning::Unsigned)
        }
        ConvertedType::NONE
        | ConvertedType::UTF8
        | ConvertedType::ENUM
        | ConvertedType::JSON
        | ConvertedType::INT_8
        | ConvertedType::INT_16
        | ConvertedType::INT_32
        | ConvertedType::INT_64 => Some(Meaning::Plain),
        _ => None,
    }
}

/// All values that there are, [`Cell::Missing`] where there is none.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    column: &ColumnDescriptor,
    cell: impl Fn(&T::T) -> Result<Cell, String>,
) -> Result<Vec<Cell>, String> {
    let there = column.max_def_level();
    let (mut levels, mut values, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (rows, ..) = reader
            .read_records(BATCH, (there > 0).then_some(&mut levels), None, &mut values)
            .map_err(|e| e.to_string())?;
        if rows == 0 {
            return Ok(cells);
        }
        if there == 0 {
            levels.resize(rows, 0);
        }
        let mut values = values.iter();
        for &level in &levels {
            let value = if level == there { values.next() } else { None };
            cells.push(value.map_or(Ok(Cell::Missing), &cell)?);
        }
    }
}
