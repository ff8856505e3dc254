//! Tasks that a task file declares.

use std::fs;
use std::path::{Path, PathBuf};

use tamt_data::Error;
use tamt_data::metrics::Metric;
use tamt_data::tasks::{Defaults, Example, Head, Label, Split, Task, read, read_noted};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
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
    // A row without a value is skipped, and here more than a tenth of the rows. Undeclared columns may hold any values.
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
fn integer_labels_are_spellings_or_else_indices() {
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
fn labels_are_read_by_one_rule_from_all_text_formats() {
    // The spellings of the same labels as integers, floats and text, then all forms of no label.
    let cells = ["0", "1.0", "2", "no", "", "-1", "-1.0"];
    let table = |separator: char| {
        let row = |cell: &&str| format!("a{separator}{cell}\n");
        format!("text{separator}stars\n{}", cells.iter().map(row).collect::<String>())
    };
    let values = ["0", "1.0", "2", "\"no\"", "null", "-1", "-1.0"];
    let line = |value: &str| format!("{{\"text\": \"a\", \"stars\": {value}}}\n");
    let numbers = values.map(line).concat();
    let texts = cells.map(|cell| line(&format!("\"{cell}\""))).concat();
    for (format, content, first_line) in
        [("tsv", table('\t'), 2), ("csv", table(','), 2), ("jsonl", numbers, 1), ("jsonl", texts, 1)]
    {
        let task = own(&OWN
            .replace("FORMAT", format)
            .replace("[\"no\", \"yes\"]", "[\"no\", \"yes\", \"maybe\"]")
            .replace(", \"f1\"]", "]")
            .replace("primary = \"f1\"", ""))
        .unwrap();
        let examples = read(&task, dir(&[(&format!("data.{format}"), &content)]).path(), Split::Train).unwrap();
        assert_eq!(examples.items.iter().map(class).collect::<Vec<_>>(), [0, 1, 2, 0], "{content}");
        let unlabelled: Vec<_> = examples.unlabelled.iter().map(|row| (row.line, row.reason.as_str())).collect();
        assert_eq!(unlabelled, [4, 5, 6].map(|i| (first_line + i, "no label")), "{content}");
        assert_eq!(examples.skipped, []);
        for wrong in ["3", "0.5", "-2", "-1.5"] {
            let content = content.replacen('2', wrong, 1);
            let error = read(&task, dir(&[(&format!("data.{format}"), &content)]).path(), Split::Train).unwrap_err();
            assert!(error.to_string().contains(&format!("unknown label \"{wrong}\"")), "{error}");
        }
    }
}

#[test]
fn labels_that_are_numbers_are_values_and_no_positions() {
    let classes = |labels: &str, cells: &[&str]| {
        let task = own(&OWN.replace("FORMAT", "csv").replace(r#"["no", "yes"]"#, labels)).unwrap();
        let rows: String = cells.iter().map(|cell| format!("a,{cell}\n")).collect();
        let examples = read(&task, dir(&[("data.csv", &format!("text,stars\n{rows}"))]).path(), Split::Train)?;
        Ok::<_, Error>(examples.items.iter().map(class).collect::<Vec<_>>())
    };
    assert_eq!(classes(r#"["1", "2"]"#, &["1", "2.0", "1.0"]).unwrap(), [0, 1, 0]);
    assert_eq!(classes(r#"["0.0", "1.0"]"#, &["0", "1", "1.0"]).unwrap(), [0, 1, 1]);
    // A label may be -1, and then it is no sign for a missing one.
    assert_eq!(classes(r#"["-1", "1"]"#, &["-1", "1", "-1.0"]).unwrap(), [0, 1, 0]);
    let error = classes(r#"["1", "2"]"#, &["1", "0"]).unwrap_err();
    assert!(error.to_string().ends_with("data.csv:3: unknown label \"0\"; expected 1, 2"), "{error}");
}

#[test]
fn half_a_character_in_json_lines_is_read_as_the_replacement_character() {
    let task = own(&OWN.replace("FORMAT", "jsonl")).unwrap();
    let jsonl = "{\"text\": \"good \\ud83d\\ude00\", \"stars\": 1}\n{\"text\": \"bad \\ud83d\", \"stars\": 0}\n";
    let examples = read(&task, dir(&[("data.jsonl", jsonl)]).path(), Split::Train).unwrap();
    let texts: Vec<_> = examples.items.iter().map(|example| example.first.as_str()).collect();
    assert_eq!(texts, ["good \u{1f600}", "bad \u{fffd}"]);
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
        ("\"accuracy\", \"f1\"]", "\"acuracy\"]", "matthews_correlation; did you mean accuracy?"),
        ("kind = \"classification\"", "kind = \"clasification\"", "did you mean classification?"),
        ("epochs = 5", "epoch = 5", "did you mean epochs?"),
        ("first = \"text\"", "frist = \"text\"", "did you mean first?"),
        ("\"accuracy\", \"f1\"]", "\"pearson\"]", "pearson does not fit this task; accuracy, f1"),
        ("primary = \"f1\"", "primary = \"matthews_correlation\"", "is not among the metrics"),
        ("data.tsv", "data.txt", "no format for \"data.txt\""),
        ("train = \"data.tsv\"", "", "files names no file"),
        ("name = \"reviews\"", "name = \"reviews\"\nheader = false", "column \"text\" must be given by number"),
        ("first = \"text\"", "first = \"text\"\nthird = \"x\"", "unknown field `third`"),
        ("\"accuracy\", \"f1\"]", "\"accuracy\", \"f1\", \"accuracy\"]", "the metric \"accuracy\" is listed twice"),
        ("[\"no\", \"yes\"]", "[\"no\", \"yes \"]", "the label \"yes \" cannot be told from others"),
        ("name = \"reviews\"", "name = \"../reviews\"", "must be of letters, digits, - and _"),
        ("data.tsv", "*/data.tsv", "* can stand in a file's name, not in a directory's"),
        ("first = \"text\"", "first = \"stars\"", "first and label are the same column, \"stars\""),
        ("first = \"text\"", "first = \"text\"\nsecond = \"stars\"", "second and label are the same column, \"stars\""),
        ("epochs = 5", "epochs = 0", "must be at least 1"),
        ("epochs = 5", "learning_rate = -1.0", "learning_rate = -1 must be above 0"),
        ("name = \"reviews\"", "name = ", "TOML parse error at line 2"),
    ] {
        let message = own(from, to);
        assert!(message.contains("task.toml: not a usable task file") && message.contains(reason), "{message}");
    }
}

#[test]
fn a_column_that_stands_twice_in_the_header_is_refused_if_it_is_read() {
    for (format, separator) in [("tsv", "\t"), ("csv", ",")] {
        let task = own(&OWN.replace("FORMAT", format)).unwrap();
        let read = |table: &str| {
            let dir = dir(&[(&format!("data.{format}"), &table.replace('|', separator))]);
            read(&task, dir.path(), Split::Train)
        };
        for (header, column) in [("text|text |stars", "text"), ("stars|text|stars", "stars")] {
            let error = read(&format!("{header}\na|b|yes\n")).unwrap_err().to_string();
            let expected = format!("data.{format}:1: column {column:?} stands twice in the header");
            assert!(error.ends_with(&expected), "{error}");
        }
        let examples = read("other|text|other|stars\na|b|c|yes\n").unwrap();
        assert_eq!(examples.items[0].first, "b");
    }
}

#[test]
fn a_pattern_may_go_into_directories_and_have_several_stars() {
    let task = own(&OWN.replace("data.FORMAT", "parts/*-of-*.csv")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("parts/2-of-2.csv.csv")).unwrap();
    for (name, content) in [("1-of-2.csv", "text,stars\na,yes\n"), ("2-of-2.csv", "text,stars\nb,no\n")] {
        fs::write(dir.path().join("parts").join(name), content).unwrap();
    }
    let examples = read(&task, dir.path(), Split::Train).unwrap();
    assert_eq!(examples.items.iter().map(|e| e.first.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let error = read(&task, dir.path(), Split::Dev).unwrap_err();
    assert!(matches!(error, Error::NoSuchSplit { split: "dev", .. }), "{error}");
}

#[test]
fn a_file_that_is_one_of_several_by_its_name_is_read_with_a_note() {
    let row = "text,stars\na,yes\n";
    let dir = dir(&[("part-0-of-2.csv", row), ("part-1-of-2.csv", row), ("best-of-3.csv", row), ("0-of-1.csv", row)]);
    let of = |file: &str| {
        let (read, notes) =
            read_noted(&own(&OWN.replace("data.FORMAT", file)).unwrap(), dir.path(), Split::Train).unwrap();
        (read.items.len(), notes)
    };
    let (count, notes) = of("part-0-of-2.csv");
    assert_eq!((count, notes.len()), (1, 1));
    let expected =
        "part-0-of-2.csv: it is one of 2 files by its name, and the only one that is read; part-*-of-*.csv names";
    assert!(notes[0].contains(expected), "{}", notes[0]);
    assert_eq!(of("part-*-of-*.csv"), (2, Vec::new()));
    for whole in ["0-of-1.csv", "best-of-3.csv"] {
        assert_eq!(of(whole), (1, Vec::new()), "{whole}");
    }
}

#[test]
fn several_byte_order_marks_of_a_csv_file_are_ignored() {
    let task = own(&OWN.replace("FORMAT", "csv")).unwrap();
    for marks in ["", "\u{feff}", "\u{feff}\u{feff}", "\u{feff}\u{feff}\u{feff}"] {
        let content = format!("{marks}text,stars\na,\"yes\"\n\u{65e5}\u{672c},no\nb,maybe\n");
        let error = read(&task, dir(&[("data.csv", &content)]).path(), Split::Train).unwrap_err();
        assert!(error.to_string().ends_with("data.csv:4: unknown label \"maybe\"; expected no, yes"), "{error}");
    }
}

#[test]
fn csv_records_are_named_by_the_line_they_start_in() {
    let task = own(&OWN.replace("FORMAT", "csv")).unwrap();
    let read_csv = |content: &str| read(&task, dir(&[("data.csv", content)]).path(), Split::Train);
    let mut content = "text,stars\r\n\"two\r\nlines\",yes\r\n\r\n\r\nragged\r\n".to_owned();
    content += &"a,no\r\n".repeat(9);
    let examples = read_csv(&content).unwrap();
    assert_eq!((examples.items.len(), examples.items[0].first.as_str()), (10, "two\r\nlines"));
    let skipped: Vec<(usize, &str)> = examples.skipped.iter().map(|s| (s.line, s.reason.as_str())).collect();
    assert_eq!(skipped, [(6, "1 columns, not 2")]);

    let error = read_csv("text,stars\na,yes\nb,\"no\nc,yes\n").unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("data.csv:3: a quotation mark is not closed, so the rest of the file is one record")
    );
    let error = read_csv("text,stars\na,yes\nb,\"maybe\"\n").unwrap_err();
    assert!(error.to_string().ends_with("data.csv:3: unknown label \"maybe\"; expected no, yes"), "{error}");
}

/// The fenced blocks of `docs/tasks.md` in a language, in order.
fn documented(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tasks.md");
    let text = fs::read_to_string(path).unwrap();
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}

#[test]
fn the_documented_tasks_are_read_with_the_documented_data() {
    let [reviews, similarity]: [Task; 2] =
        documented("toml").iter().map(|toml| own(toml).unwrap()).collect::<Vec<_>>().try_into().unwrap();
    let (csv, jsonl) = (documented("csv").concat(), documented("jsonl").concat());

    let data = dir(&[("train.csv", &csv), ("dev.csv", &csv)]);
    assert_eq!((reviews.primary, reviews.defaults), (Metric::F1, Defaults::default()));
    for split in [Split::Train, Split::Dev] {
        let examples = read(&reviews, data.path(), split).unwrap();
        assert_eq!(examples.items.iter().map(class).collect::<Vec<_>>(), [1, 0, 0, 1]);
        assert_eq!(examples.items[2].first, "The seller wrote \"new\", but it was used.");
        assert_eq!(examples.skipped, []);
    }
    let error = read(&reviews, data.path(), Split::Test).unwrap_err();
    assert!(matches!(error, Error::NoSuchSplit { .. }), "{error}");

    let unlabelled = jsonl.lines().map(|line| format!("{}}}\n", line.split_once(", \"score\"").unwrap().0));
    let unlabelled = unlabelled.collect::<String>();
    let data = dir(&[("train-1.jsonl", &jsonl), ("dev.jsonl", &jsonl), ("test.jsonl", &unlabelled)]);
    assert_eq!(similarity.metrics, [Metric::Pearson, Metric::Spearman]);
    let defaults = Defaults { epochs: 4, ..Defaults::default() };
    assert_eq!(similarity.defaults, defaults);
    for (split, labelled) in [(Split::Train, true), (Split::Dev, true), (Split::Test, false)] {
        let examples = read(&similarity, data.path(), split).unwrap().items;
        let expected = [("a", 3.5), ("b", 5.0), ("c", 0.25)].map(|(id, score)| (id, labelled.then_some(score)));
        let value = |label| match label {
            Label::Value(value) => value,
            Label::Class(class) => panic!("{class} is no number"),
        };
        let found: Vec<_> = examples.iter().map(|e| (e.id.as_str(), e.label.map(value))).collect();
        assert_eq!(found, expected);
        assert!(examples.iter().all(|e| e.second.is_some()));
    }
}

#[test]
fn the_documented_defaults_and_metrics_are_those_of_the_reader() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tasks.md")).unwrap();
    let Defaults { batch_size, learning_rate, epochs, max_length, eval_every } = Defaults::default();
    for value in [
        format!("`batch_size = {batch_size}`"),
        format!("`learning_rate = {learning_rate:e}`"),
        format!("`epochs = {epochs}`"),
        format!("`max_length = {max_length}`"),
        format!("`eval_every = {eval_every}`"),
    ] {
        assert!(text.contains(&value), "{value}");
    }
    for metric in Metric::ALL.into_iter().filter(|&metric| metric != Metric::ExactMatch) {
        assert!(text.contains(&format!("`{}`", metric.key())), "{}", metric.key());
    }
}

#[test]
fn integers_of_any_size_keep_their_digits_as_ids() {
    let declaration = OWN.replace("FORMAT", "jsonl").replace("first =", "id = \"id\"\nfirst =");
    let ids = ["18446744073709551615", "18446744073709551616", "-340282366920938463463374607431768211456", "7"];
    let rows: String = ids.iter().map(|id| format!("{{\"id\": {id}, \"text\": \"a\", \"stars\": \"no\"}}\n")).collect();
    let dir = dir(&[("task.toml", &declaration), ("data.jsonl", &rows)]);
    let task = Task::from_file(&dir.path().join("task.toml")).unwrap();
    let examples = read(&task, dir.path(), Split::Train).unwrap();
    assert_eq!(examples.items.iter().map(|example| example.id.as_str()).collect::<Vec<_>>(), ids);
}
