//! The reader of Apache Parquet files in the form of the Hugging Face hub.
//!
//! A damaged file must not crash the process. The `parquet` crate reports most damage. [`pages`] checks the counts and
//! sizes from which the crate computes allocations, [`schema`] bounds the crate's recursion, and [`caught`] turns the
//! crate's panics into errors. [`Budget`] bounds the memory of the values.

mod pages;
mod schema;
mod thrift;

use std::fs::File;
use std::path::Path;

use parquet::basic::{Compression, ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::error::{Result, bad_file, io_error};
use crate::panics::caught;
use crate::tasks::parquet::pages::CheckedPages;
use crate::tasks::table::{Cell, RequestedColumn, Table, positions};

/// Values per call of the decoder.
const BATCH: usize = 1024;

/// Bytes that the values of a file take, or a page of the file, before the size of the file matters.
const FREE: u64 = 64 << 20;
/// Most bytes of memory for a byte of a file. Text seldom shrinks more than tenfold; equal labels do, but not the texts
/// beside them.
const MOST_PER_BYTE: u64 = 1000;

/// Reads the requested columns of a file. Other columns are not decoded and may hold any values.
///
/// # Errors
///
/// [`Error::BadFile`](crate::Error::BadFile), [`Error::MissingColumn`](crate::Error::MissingColumn),
/// [`Error::RepeatedColumn`](crate::Error::RepeatedColumn), [`Error::Io`](crate::Error::Io).
pub(super) fn read(path: &Path, requested: &[RequestedColumn]) -> Result<Table> {
    let bad = bad_file(path, "parquet");
    let mut file = File::open(path).map_err(io_error("read", path))?;
    let bytes = file.metadata().map_err(io_error("read", path))?.len();
    schema::check(&mut file).map_err(io_error("read", path))?.map_err(&bad)?;
    let headers = file.try_clone().map_err(io_error("read", path))?;
    let mut budget = Budget { file: headers, bytes, left: most(bytes) };
    caught(|| {
        let reader = SerializedFileReader::new(file).map_err(|e| bad(e.to_string()))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let names: Vec<&str> = schema.root_schema().get_fields().iter().map(|field| field.name()).collect();
        let positions = positions(path, requested, Some(&names), names.len(), None)?;
        let leaf = |position: &Option<usize>| position.map(|i| leaf(schema, names[i])).transpose();
        let leaves: Vec<Option<usize>> = positions.iter().map(leaf).collect::<Result<_, _>>().map_err(&bad)?;
        let mut table = Table::default();
        let mut number = 0;
        for i in 0..reader.num_row_groups() {
            let group = reader.get_row_group(i).map_err(|e| bad(e.to_string()))?;
            let mut column = |leaf: &Option<usize>| leaf.map(|leaf| cells(&*group, leaf, &mut budget)).transpose();
            let columns: Vec<Option<Vec<Cell>>> =
                leaves.iter().map(&mut column).collect::<Result<_, _>>().map_err(&bad)?;
            let mut columns: Vec<_> = columns.into_iter().map(|column| column.map(Vec::into_iter)).collect();
            for _ in 0..columns.iter().flatten().next().map_or(0, ExactSizeIterator::len) {
                number += 1;
                let cells = columns.iter_mut().map(|c| c.as_mut().and_then(Iterator::next).unwrap_or(Cell::Missing));
                table.push(number, requested, cells.collect());
            }
        }
        Ok(table)
    })
    .unwrap_or_else(|panic| Err(bad(format!("it is damaged: {panic}"))))
}

/// The memory that a file may still claim.
struct Budget {
    file: File,
    /// Length of the file.
    bytes: u64,
    left: u64,
}

impl Budget {
    /// Counts the memory of a cell.
    fn spend(&mut self, cell: &Cell) -> Result<(), String> {
        let text = if let Cell::Text(text) = cell { text.len() } else { 0 };
        match self.left.checked_sub((size_of::<Cell>() + text) as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(format!("its values take more than {} bytes, too many for its size", most(self.bytes))),
        }
    }
}

/// Most bytes of memory for the values of a file of `bytes` bytes.
fn most(bytes: u64) -> u64 {
    bytes.saturating_mul(MOST_PER_BYTE).saturating_add(FREE)
}

/// The index of a column among the leaf columns of the schema. A column of lists or records is refused.
fn leaf(schema: &SchemaDescriptor, name: &str) -> Result<usize, String> {
    let mut columns = schema.columns().iter();
    columns
        .position(|column| column.path().parts() == [name] && column.max_rep_level() == 0)
        .ok_or_else(|| format!("column {name:?} holds lists or records, not values"))
}

/// The values of a leaf column in a row group, one per row.
fn cells(group: &dyn RowGroupReader, leaf: usize, budget: &mut Budget) -> Result<Vec<Cell>, String> {
    let metadata = group.metadata().column(leaf);
    let column = metadata.column_descr_ptr();
    let rows = group.metadata().num_rows();
    // The type of a column without values, whatever the type in which it is stored: pyarrow's `null`.
    if column.logical_type_ref() == Some(&LogicalType::Unknown) {
        return nulls(rows, budget).map_err(|problem| format!("column {:?}: {problem}", column.name()));
    }
    let (start, len) = metadata.byte_range();
    let Some(end) = start.checked_add(len).filter(|&end| end <= budget.bytes) else {
        return Err(format!("column {:?} goes on past the end of the file", column.name()));
    };
    // The crate's decoders of gzip and brotli fill memory without a bound, whatever a page's header says.
    if !matches!(metadata.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_)) {
        let name = format!("{:?}", metadata.compression());
        let name = name.split('(').next().unwrap_or_default();
        let column = column.name();
        return Err(format!(
            "column {column:?} is compressed with {name}; only snappy and zstd are read: write the file again with one of \
             them"
        ));
    }
    let checked = pages::check_sizes(&mut budget.file, start..end, most(budget.bytes));
    checked.map_err(|e| e.to_string())?.map_err(|problem| format!("column {:?}: {problem}", column.name()))?;
    let pages = group.get_column_page_reader(leaf).map_err(|e| e.to_string())?;
    let pages = CheckedPages::new(pages, &column);
    let cells = decode(get_column_reader(column.clone(), Box::new(pages)), &column, budget)?;
    if usize::try_from(rows) != Ok(cells.len()) {
        return Err(format!("column {:?} has {} values in {rows} rows", column.name(), cells.len()));
    }
    Ok(cells)
}

/// A null for each row.
fn nulls(rows: i64, budget: &mut Budget) -> Result<Vec<Cell>, String> {
    let rows = usize::try_from(rows).map_err(|_| format!("its row group has {rows} rows"))?;
    // A damaged file has any number of rows, so that the cells are counted one by one.
    (0..rows).map(|_| budget.spend(&Cell::Missing).map(|()| Cell::Missing)).collect()
}

/// Decodes all values of a column chunk by the column's type.
fn decode(reader: ColumnReader, column: &ColumnDescriptor, budget: &mut Budget) -> Result<Vec<Cell>, String> {
    match (reader, interpretation(column)) {
        (ColumnReader::ByteArrayColumnReader(reader), Some(Interpretation::Plain)) => {
            values(reader, column, budget, |value| {
                let text =
                    value.as_utf8().map_err(|_| format!("column {:?} holds bytes that are no text", column.name()))?;
                Ok(Cell::Text(text.to_owned()))
            })
        }
        (ColumnReader::BoolColumnReader(reader), Some(Interpretation::Plain)) => {
            values(reader, column, budget, |value| Ok(Cell::Text(value.to_string())))
        }
        (ColumnReader::Int32ColumnReader(reader), Some(Interpretation::Plain)) => {
            values(reader, column, budget, |&value| Ok(Cell::Integer(value.into())))
        }
        (ColumnReader::Int32ColumnReader(reader), Some(Interpretation::Unsigned)) => {
            values(reader, column, budget, |&value| Ok(Cell::Integer(value.cast_unsigned().into())))
        }
        (ColumnReader::Int64ColumnReader(reader), Some(Interpretation::Plain)) => {
            values(reader, column, budget, |&value| Ok(Cell::Integer(value)))
        }
        (ColumnReader::Int64ColumnReader(reader), Some(Interpretation::Unsigned)) => {
            values(reader, column, budget, |&value| {
                let value = value.cast_unsigned();
                Ok(i64::try_from(value).map_or_else(|_| Cell::Text(value.to_string()), Cell::Integer))
            })
        }
        (ColumnReader::FloatColumnReader(reader), Some(Interpretation::Plain)) => {
            values(reader, column, budget, |&value| Ok(Cell::Number(value.into())))
        }
        (ColumnReader::DoubleColumnReader(reader), Some(Interpretation::Plain)) => {
            values(reader, column, budget, |&value| Ok(Cell::Number(value)))
        }
        _ => {
            let kind = match column.converted_type() {
                ConvertedType::NONE => column.physical_type().to_string(),
                converted => converted.to_string(),
            };
            Err(format!("column {:?} holds {kind}, which is neither text nor a plain number", column.name()))
        }
    }
}

/// The interpretation of a stored value.
#[derive(Clone, Copy)]
enum Interpretation {
    /// The stored value itself.
    Plain,
    /// An unsigned integer, stored in the bits of a signed one.
    Unsigned,
}

/// The interpretation of a column's values; `None` for dates, decimal fractions and other types.
fn interpretation(column: &ColumnDescriptor) -> Option<Interpretation> {
    match column.logical_type_ref() {
        Some(LogicalType::Integer(int)) if !int.is_signed => return Some(Interpretation::Unsigned),
        Some(LogicalType::Integer(_) | LogicalType::String | LogicalType::Enum | LogicalType::Json) => {
            return Some(Interpretation::Plain);
        }
        Some(_) => return None,
        None => {}
    }
    match column.converted_type() {
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
            Some(Interpretation::Unsigned)
        }
        ConvertedType::NONE
        | ConvertedType::UTF8
        | ConvertedType::ENUM
        | ConvertedType::JSON
        | ConvertedType::INT_8
        | ConvertedType::INT_16
        | ConvertedType::INT_32
        | ConvertedType::INT_64 => Some(Interpretation::Plain),
        _ => None,
    }
}

/// Decodes all values with `cell`; a null becomes [`Cell::Missing`].
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    column: &ColumnDescriptor,
    budget: &mut Budget,
    cell: impl Fn(&T::T) -> Result<Cell, String>,
) -> Result<Vec<Cell>, String> {
    // The definition level of a value that is not null.
    let present = column.max_def_level();
    let (mut levels, mut values, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (rows, ..) = reader
            .read_records(BATCH, (present > 0).then_some(&mut levels), None, &mut values)
            .map_err(|e| e.to_string())?;
        if rows == 0 {
            return Ok(cells);
        }
        if present == 0 {
            levels.resize(rows, 0);
        }
        let mut values = values.iter();
        for &level in &levels {
            let value = if level == present { values.next() } else { None };
            let cell = value.map_or(Ok(Cell::Missing), &cell)?;
            budget.spend(&cell)?;
            cells.push(cell);
        }
    }
}
