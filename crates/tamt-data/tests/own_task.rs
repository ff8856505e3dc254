//! A user's own task, declared in a file, and what damaged files do to readers.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tamt_data::Error;
use tamt_data::metrics::Metric;
use tamt_data::squad::Dataset;
use tamt_data::tasks::{Example, Head, Label, Split, Task, read};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn task(name: &str) -> &'static Task {
    Task::by_name(name).unwrap()
}

/// A directory with these files.
fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn class(example: &Example) -> u32 {
    match example.label {
        Some(Label::Class(class)) => class,
        other => panic!("{other:?} is no class"),
    }
}

const OWN: &str = r#"
name = "reviews"
kind = "classification"
labels = ["no", "yes"]
metrics = ["accuracy", "f1"]
primary = "f1"

[files]
train = "data.FORMAT"

[columns]
first = "text"
label = "stars"

[defaults]
epochs = 5
"#;

fn own(declaration: &str) -> Result<Task, Error> {
    let dir = dir(&[("task.toml", declaration)]);
    Task::from_file(&dir.path().join("task.toml"))
}

#[test]
fn a_users_task_is_read_alike_from_all_formats() {
    let tsv = "stars\tother\ttext\nyes\t1\tgood, \"very\"\nno\t2\tbad\n";
    let csv = "stars,other,text\nyes,1,\"good, \"\"very\"\"\"\nno,2,bad\n";
    let jsonl = r#"{"stars": "yes", "text": "good, \"very\""}

{"text": "bad", "stars": "no", "x": [1]}"#;
    for (format, content) in [("tsv", tsv), ("csv", csv), ("jsonl", jsonl)] {
        let task = own(&OWN.replace("FORMAT", format)).unwrap();
        assert_eq!((task.primary, task.defaults.epochs, task.defaults.batch_size), (Metric::F1, 5, 32));
        let examples = read(&task, dir(&[(&format!("data.{format}"), content)]).path(), Split::Train).unwrap();
        let found: Vec<_> = examples.items.iter().map(|e| (e.first.as_str(), class(e))).collect();
        assert_eq!(found, [("good, \"very\"", 1), ("bad", 0)], "{format}");
    }
    // A missing value is a row to skip, here too many; a column that is not wanted may hold anything.
    let task = own(&OWN.replace("FORMAT", "parquet")).unwrap();
    let error = read(&task, &fixtures().join("hub/own"), Split::Train).unwrap_err();
    assert!(
        error.to_string().ends_with("data.parquet:3: no value in column \"text\"; 1 of 3 rows are like that"),
        "{error}"
    );
    let nested = own(&OWN.replace("FORMAT", "parquet").replace("\"text\"", "\"tags\"")).unwrap();
    let error = read(&nested, &fixtures().join("hub/own"), Split::Train).unwrap_err();
    assert!(error.to_string().contains("column \"tags\" holds lists or records"), "{error}");
}

#[test]
fn a_users_regression_on_pairs_without_a_header_is_read() {
    let declaration = r#"
        name = "closeness"
        kind = "regression"
        header = false
        [files]
        train = "part-*.csv"
        [columns]
        first = 1
        second = 2
        label = 0
    "#;
    let task = own(declaration).unwrap();
    assert_eq!((&task.head, task.primary), (&Head::Regression { range: None }, Metric::Pearson));
    let dir = dir(&[("part-b.csv", "-1,a,b\n"), ("part-a.csv", "0.5,\"c\nd\",e\n2,f,g\n"), ("other.csv", "x")]);
    let examples = read(&task, dir.path(), Split::Train).unwrap();
    let found: Vec<_> = examples.items.iter().map(|e| (e.first.as_str(), e.label.unwrap())).collect();
    assert_eq!(found, [("c\nd", Label::Value(0.5)), ("f", Label::Value(2.0)), ("a", Label::Value(-1.0))]);
    assert_eq!(examples.items[2].id, "2");
}

#[test]
fn integer_labels_are_spellings_or_else_places() {
    let jsonl = "{\"text\": \"a\", \"stars\": 1}\n{\"text\": \"b\", \"stars\": 0}\n";
    let classes = |labels: &str| {
        let task = own(&OWN.replace("FORMAT", "jsonl").replace(r#"["no", "yes"]"#, labels)).unwrap();
        let examples = read(&task, dir(&[("data.jsonl", jsonl)]).path(), Split::Train).unwrap();
        examples.items.iter().map(class).collect::<Vec<_>>()
    };
    assert_eq!(classes(r#"["no", "yes"]"#), [1, 0]);
    assert_eq!(classes(r#"["1", "0"]"#), [0, 1]);
}

#[test]
fn a_wrong_declaration_is_refused_with_the_reason() {
    let own = |from: &str, to: &str| {
        let declaration = OWN.replace("FORMAT", "tsv");
        assert!(declaration.contains(from), "{from}");
        own(&declaration.replace(from, to)).unwrap_err().to_string()
    };
    for (from, to, reason) in [
        ("kind = \"classification\"", "kind = \"ranking\"", "unknown variant `ranking`"),
        ("labels = [\"no\", \"yes\"]", "", "a classification needs labels"),
        ("[\"no\", \"yes\"]", "[\"no\", \"no\"]", "the label \"no\" is listed twice"),
        ("[\"no\", \"yes\"]", "[\"no\"]", "at least two labels"),
        ("\"accuracy\", \"f1\"]", "\"accuracy\", \"bleu\"]", "unknown metric \"bleu\""),
        ("\"accuracy\", \"f1\"]", "\"pearson\"]", "pearson does not fit this task; accuracy, f1"),
        ("primary = \"f1\"", "primary = \"matthews_correlation\"", "is not among the metrics"),
        ("data.tsv", "data.txt", "no format for \"data.txt\""),
        ("train = \"data.tsv\"", "", "files names no file"),
        ("name = \"reviews\"", "name = \"reviews\"\nheader = false", "column \"text\" must be given by number"),
        ("first = \"text\"", "first = \"text\"\nthird = \"x\"", "unknown field `third`"),
        ("name = \"reviews\"", "name = ", "TOML parse error at line 2"),
    ] {
        let message = own(from, to);
        assert!(message.contains("task.toml: not a usable task file") && message.contains(reason), "{message}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let dir = dir(&[]);
        for (file, name) in [("train.tsv", "sst2"), ("train-a.parquet", "rte"), ("train-v1.1.json", "squad")] {
            fs::write(dir.path().join(file), &bytes).unwrap();
            let _ = read(task(name), dir.path(), Split::Train);
            let _ = Dataset::read(task(name), dir.path(), Split::Train);
        }
        for format in ["csv", "jsonl"] {
            fs::write(dir.path().join(format!("data.{format}")), &bytes).unwrap();
            let _ = read(&own(&OWN.replace("FORMAT", format)).unwrap(), dir.path(), Split::Train);
        }
    }

    /// Half-right files get further than random ones.
    #[test]
    fn no_damage_to_a_parquet_file_makes_its_reader_panic(
        at in 0_usize..1589,
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = fs::read(fixtures().join("hub/mnli/test_matched-00000-of-00001.parquet")).unwrap();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let dir = dir(&[]);
        fs::write(dir.path().join("test_matched-a.parquet"), &bytes).unwrap();
        let _ = read(task("mnli"), dir.path(), Split::Test);
    }

    #[test]
    fn no_lines_of_tabs_and_words_make_the_tsv_reader_panic(text in "([a1]{0,2}[\t\r\n\"]{0,2}){0,30}") {
        for (file, name) in [("train.tsv", "cola"), ("dev.tsv", "stsb")] {
            let dir = dir(&[(file, &text)]);
            for split in Split::ALL {
                let _ = read(task(name), dir.path(), split);
            }
        }
    }
}
