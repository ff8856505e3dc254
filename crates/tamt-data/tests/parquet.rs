//! Parquet files in all supported encodings, made by `tests/fixtures/make_parquet.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use tamt_data::Error;
use tamt_data::tasks::{Examples, Label, Split, Task, read};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hub")
}

/// The examples of one of the files in `own`, with these columns as text and label.
fn own(file: &str, text: &str, label: &str, more: &str) -> Result<Examples, Error> {
    let declaration = format!(
        "name = \"own\"\n{more}\n[files]\ntrain = \"own/{file}.parquet\"\n\
         [columns]\nfirst = \"{text}\"\nlabel = \"{label}\"\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("task.toml");
    fs::write(&path, declaration).unwrap();
    read(&Task::from_file(&path).unwrap(), &fixtures(), Split::Train)
}

const CLASSES: &str = "kind = \"classification\"\nlabels = [\"0\", \"1\", \"2\"]";
const NUMBERS: &str = "kind = \"regression\"";

#[test]
fn every_encoding_page_version_and_compression_gives_the_same_rows() {
    let files = ["delta_length_1", "delta_length_2", "delta_1", "delta_2", "plain_1", "plain_2", "dictionary_2"];
    for file in files {
        let Examples { items, skipped, .. } = own(file, "text", "stars", CLASSES).unwrap();
        let expected: Vec<(String, Option<Label>)> = (0..500)
            .filter(|i| i % 50 != 3)
            .map(|i| (format!("the keeper kept map {i}"), Some(Label::Class(i % 3))))
            .collect();
        // The file has three row groups of several pages each.
        let found: Vec<_> = items.into_iter().map(|row| (row.first, row.label)).collect();
        assert_eq!(found, expected, "{file}");
        let lines: Vec<usize> = skipped.iter().map(|row| row.line).collect();
        assert_eq!(lines, (0..10).map(|i| 50 * i + 4).collect::<Vec<_>>(), "{file}");
        assert_eq!(skipped[0].reason, "no value in column \"text\"");
    }
}

#[test]
fn values_of_all_plain_kinds_are_read() {
    let texts = |column: &str| -> Vec<String> {
        own("kinds", column, "idx", CLASSES).unwrap().items.into_iter().map(|row| row.first).collect()
    };
    assert_eq!(texts("int8"), ["1", "-2", "3"]);
    assert_eq!(texts("uint32"), ["4294967295", "0", "1"]);
    assert_eq!(texts("uint64"), ["18446744073709549568", "0", "1"]);
    assert_eq!(texts("large"), ["x", "y", "z"]);
    assert_eq!(texts("binary"), ["bytes", "", "café"]);
    assert_eq!(texts("words"), ["p", "q", "p"]);
    let truth = own("kinds", "bool", "idx", CLASSES).unwrap_err();
    assert!(truth.to_string().ends_with("kinds.parquet:2: no value in column \"bool\"; 1 of 3 rows are like that"));
    let numbers = own("kinds", "idx", "int8", NUMBERS).unwrap();
    assert_eq!(
        numbers.items.iter().map(|row| row.label.unwrap()).collect::<Vec<_>>(),
        [1.0, -2.0, 3.0].map(Label::Value)
    );
}

/// Writes a column of optional values.
fn write_column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, fs::File>, values: &[Option<T::T>]) {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.iter().flatten().cloned().collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
}

#[test]
fn labels_are_read_by_the_rule_of_the_text_formats() {
    let dir = tempfile::tempdir().unwrap();
    let schema = "message m { optional binary text (UTF8); optional int64 integer; optional double float; \
        optional binary word (UTF8); optional binary digits (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(dir.path().join("data.parquet")).unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |texts: [&str; 5]| texts.map(|text| Some(ByteArray::from(text)));
    write_column::<ByteArrayType>(&mut group, &texts(["a", "b", "c", "d", "e"]));
    write_column::<Int64Type>(&mut group, &[Some(0), None, Some(-1), Some(2), Some(1)]);
    write_column::<DoubleType>(&mut group, &[Some(0.0), None, Some(-1.0), Some(2.0), Some(1.0)]);
    write_column::<ByteArrayType>(&mut group, &texts(["entailment", "", "-1", "contradiction", " neutral "]));
    write_column::<ByteArrayType>(&mut group, &texts(["0", "", "-1.0", "2", "1.0"]));
    group.close().unwrap();
    writer.close().unwrap();

    for column in ["integer", "float", "word", "digits"] {
        let declaration = format!(
            "name = \"own\"\nkind = \"classification\"\nlabels = [\"entailment\", \"neutral\", \"contradiction\"]\n\
             [files]\ntrain = \"data.parquet\"\n[columns]\nfirst = \"text\"\nlabel = \"{column}\"\n"
        );
        fs::write(dir.path().join("task.toml"), declaration).unwrap();
        let task = Task::from_file(&dir.path().join("task.toml")).unwrap();
        let examples = read(&task, dir.path(), Split::Train).unwrap();
        let found: Vec<_> = examples.items.iter().map(|example| (example.first.as_str(), example.label)).collect();
        let expected = [("a", 0), ("d", 2), ("e", 1)].map(|(text, class)| (text, Some(Label::Class(class))));
        assert_eq!(found, expected, "{column}");
        assert_eq!(examples.unlabelled.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 3], "{column}");
    }
}

#[test]
fn a_column_of_the_null_type_has_a_null_in_every_row() {
    let dir = tempfile::tempdir().unwrap();
    // As `pq.write_table(pa.table({"text": ["a", "b"], "label": [None, None]}), path)` of pyarrow writes it.
    let schema = "message m { optional binary text (UTF8); optional int32 label (UNKNOWN); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(dir.path().join("data.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    write_column::<ByteArrayType>(&mut group, &["a", "b"].map(|text| Some(ByteArray::from(text))));
    write_column::<Int32Type>(&mut group, &[None, None]);
    group.close().unwrap();
    writer.close().unwrap();

    let declaration = format!(
        "name = \"own\"\n{CLASSES}\n[files]\ntrain = \"data.parquet\"\ntest = \"data.parquet\"\n\
         [columns]\nfirst = \"text\"\nlabel = \"label\"\n"
    );
    let path = dir.path().join("task.toml");
    fs::write(&path, &declaration).unwrap();
    let task = Task::from_file(&path).unwrap();
    let test = read(&task, dir.path(), Split::Test).unwrap().items;
    let found: Vec<_> = test.iter().map(|row| (row.first.as_str(), row.label)).collect();
    assert_eq!(found, [("a", None), ("b", None)]);
    let error = read(&task, dir.path(), Split::Train).unwrap_err();
    assert!(matches!(error, Error::NoLabels { rows: 2, .. }), "{error}");
    // Texts have to be there.
    let exchanged = declaration.replace("first = \"text\"\nlabel = \"label\"", "first = \"label\"\nlabel = \"text\"");
    fs::write(&path, exchanged).unwrap();
    let error = read(&Task::from_file(&path).unwrap(), dir.path(), Split::Test).unwrap_err();
    assert!(error.to_string().ends_with(":1: no value in column \"label\"; 2 of 2 rows are like that"), "{error}");
}

/// A file with the columns `text` and `label`.
fn write_file(path: &Path, compression: Compression, texts: &[Option<ByteArray>]) {
    let schema = "message m { optional binary text (UTF8); optional int64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    // A page holds any number of values.
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_data_page_row_count_limit(usize::MAX)
        .set_dictionary_enabled(texts.len() > 1);
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    write_column::<ByteArrayType>(&mut group, texts);
    write_column::<Int64Type>(&mut group, &vec![Some(0); texts.len()]);
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn a_small_file_cannot_claim_much_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.parquet");
    let refusal = || {
        let task = "name = \"own\"\nkind = \"classification\"\nlabels = [\"a\", \"b\"]\n\
             [files]\ntrain = \"data.parquet\"\n[columns]\nfirst = \"text\"\nlabel = \"label\"\n";
        fs::write(dir.path().join("task.toml"), task).unwrap();
        let task = Task::from_file(&dir.path().join("task.toml")).unwrap();
        read(&task, dir.path(), Split::Train).unwrap_err().to_string()
    };
    // A run of equal values has a few bytes.
    write_file(&path, Compression::UNCOMPRESSED, &vec![Some(ByteArray::from("x")); 2_500_000]);
    assert!(fs::metadata(&path).unwrap().len() < 10_000);
    let error = refusal();
    assert!(error.contains("data.parquet") && error.contains("its values take more than"), "{error}");
    // Zeros shrink to almost nothing.
    let zeros = ByteArray::from(vec![b'0'; 100 << 20]);
    write_file(&path, Compression::ZSTD(ZstdLevel::default()), &[Some(zeros)]);
    let error = refusal();
    assert!(error.contains("column \"text\": a page claims to unpack to"), "{error}");
}

#[test]
fn a_column_of_neither_text_nor_numbers_is_refused_by_name() {
    for (file, column, reason) in [
        ("kinds", "record", "column \"record\" holds lists or records, not values"),
        ("kinds", "date", "column \"date\" holds DATE, which is neither text nor a plain number"),
        ("kinds", "price", "column \"price\" holds DECIMAL, which is neither text nor a plain number"),
        ("kinds", "latin", "column \"latin\" holds bytes that are no text"),
        (
            "gzip",
            "text",
            "column \"text\" is compressed with GZIP; only snappy and zstd are read: write the file again with one of them",
        ),
    ] {
        let error = own(file, column, "idx", CLASSES).unwrap_err();
        assert!(matches!(error, Error::BadFile { kind: "parquet", .. }), "{error}");
        assert!(error.to_string().ends_with(reason), "{error}");
    }
}

#[test]
fn a_repository_of_one_task_has_its_files_in_a_data_directory() {
    let task = Task::by_name("sst2").unwrap();
    let examples = read(task, &fixtures().join("single"), Split::Train).unwrap();
    let texts: Vec<_> = examples.items.iter().map(|example| (example.first.as_str(), example.label.unwrap())).collect();
    assert_eq!(texts, [("a good map", Label::Class(1)), ("a bad map", Label::Class(0))]);
}
