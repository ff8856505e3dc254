//! Files of tasks: the benchmark's, the hub's and malformed ones.

use std::fs;
use std::path::{Path, PathBuf};

use tamt_data::Error;
use tamt_data::tasks::{Defaults, Example, Examples, Label, Split, Task, read, read_noted};
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
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn read_from(files: &[(&str, &str)], name: &str, split: Split) -> Result<Examples, Error> {
    read(task(name), dir(files).path(), split)
}

fn class(example: &Example) -> u32 {
    match example.label {
        Some(Label::Class(class)) => class,
        other => panic!("{other:?} is no class"),
    }
}

#[test]
fn every_task_is_declared_whole() {
    let names: Vec<&str> = Task::all().iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "squad", "squad2"]);
    for task in Task::all() {
        assert!(task.metrics.contains(&task.primary), "{}", task.name);
        assert!(task.metrics.iter().all(|metric| metric.fits(&task.head)), "{}", task.name);
        assert!(task.has(Split::Train) && task.dev_splits().count() >= 1, "{}", task.name);
        let test: Vec<Split> = task.test_splits().collect();
        let submitted: Vec<Split> = task.submissions.iter().map(|&(split, _)| split).collect();
        assert_eq!(test, submitted, "{}", task.name);
    }
    assert_eq!(Task::by_name("STS-B").unwrap().name, "stsb");
    assert_eq!(Task::by_name("SST-2").unwrap().name, "sst2");
    assert!(Task::by_name("glue").is_none());
    assert_eq!(task("mnli").dev_splits().collect::<Vec<_>>(), [Split::Dev, Split::DevMismatched]);
    assert_eq!(task("mnli").labels(), ["contradiction", "entailment", "neutral"]);
}

#[test]
fn defaults_are_those_of_the_reference() {
    let small = Defaults { batch_size: 32, learning_rate: 2e-5, epochs: 3, max_length: 128, eval_every: 50 };
    for name in ["cola", "sst2", "stsb", "mrpc", "rte"] {
        assert_eq!(task(name).defaults, small, "{name}");
    }
    assert_eq!(task("mnli").defaults, Defaults { eval_every: 500, ..small });
    let squad = Defaults { batch_size: 16, learning_rate: 3e-5, epochs: 2, max_length: 384, eval_every: 1000 };
    assert_eq!(task("squad").defaults, squad);
}

/// The layouts of the benchmark, with `|` for tabs: a task, a file, its lines, and the expected label.
const LAYOUTS: &[(&str, &str, Split, &str, Option<Label>)] = {
    use Label::{Class, Value};
    use Split::{Dev, DevMismatched, Test, TestMismatched, Train};
    &[
        ("cola", "CoLA/train.tsv", Train, "gj04|0|*|one", Some(Class(0))),
        ("cola", "CoLA/dev.tsv", Dev, "gj04|1||one", Some(Class(1))),
        ("cola", "CoLA/test.tsv", Test, "index|sentence\n3|one", None),
        ("sst2", "SST-2/dev.tsv", Dev, "sentence|label\none|1", Some(Class(1))),
        ("sst2", "SST-2/test.tsv", Test, "index|sentence\n3|one", None),
        ("mrpc", "MRPC/train.tsv", Train, "Quality|#1 ID|#2 ID|#1 String|#2 String\n1|10|11|one|two", Some(Class(1))),
        ("mrpc", "MRPC/test.tsv", Test, "index|#1 ID|#2 ID|#1 String|#2 String\n3|10|11|one|two", None),
        (
            "stsb",
            "STS-B/train.tsv",
            Train,
            "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score\n0|g|f|y|1|s|s|one|two|3.800",
            Some(Value(3.8)),
        ),
        (
            "stsb",
            "STS-B/test.tsv",
            Test,
            "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2\n3|g|f|y|1|s|s|one|two",
            None,
        ),
        ("qqp", "QQP/dev.tsv", Dev, "id|qid1|qid2|question1|question2|is_duplicate\n9|1|2|one|two|1", Some(Class(1))),
        ("qqp", "QQP/test.tsv", Test, "id|question1|question2\n3|one|two", None),
        (
            "mnli",
            "MNLI/train.tsv",
            Train,
            "index|promptID|pairID|genre|sentence1_binary_parse|sentence2_binary_parse|sentence1_parse|sentence2_parse\
             |sentence1|sentence2|label1|gold_label\n0|p|q|g|(b)|(b)|(p)|(p)|one|two|neutral|entailment",
            Some(Class(1)),
        ),
        (
            "mnli",
            "MNLI/dev_matched.tsv",
            Dev,
            "index|sentence1|sentence2|label1|label2|gold_label\n0|one|two|entailment|neutral|neutral",
            Some(Class(2)),
        ),
        (
            "mnli",
            "MNLI/dev_mismatched.tsv",
            DevMismatched,
            "index|sentence1|sentence2|label1|label2|gold_label\n0|one|two|entailment|neutral|contradiction",
            Some(Class(0)),
        ),
        ("mnli", "MNLI/test_mismatched.tsv", TestMismatched, "index|sentence1|sentence2\n3|one|two", None),
        ("qnli", "QNLI/train.tsv", Train, "index|question|sentence|label\n0|one|two|not_entailment", Some(Class(1))),
        ("rte", "RTE/dev.tsv", Dev, "index|sentence1|sentence2|label\n0|one|two|entailment", Some(Class(0))),
        ("wnli", "WNLI/train.tsv", Train, "index|sentence1|sentence2|label\n0|one|two|1", Some(Class(1))),
        ("wnli", "WNLI/test.tsv", Test, "index|sentence1|sentence2\n3|one|two", None),
    ]
};

#[test]
fn every_glue_task_is_read_from_its_tsv_columns() {
    for &(name, file, split, lines, label) in LAYOUTS {
        let unix = format!("{}\n", lines.replace('|', "\t"));
        let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
        for content in [unix, windows] {
            let examples = read_from(&[(file, &content)], name, split).unwrap();
            let expected = Example {
                id: if split.is_labelled() { "0" } else { "3" }.to_owned(),
                first: "one".to_owned(),
                second: lines.contains("|two").then(|| "two".to_owned()),
                label,
            };
            assert_eq!(examples.items, [expected], "{file}");
            assert_eq!(examples.skipped, []);
        }
    }
}

#[test]
fn quotation_marks_in_tsv_files_are_text() {
    let content = "sentence\tlabel\n\"unbalanced , he said\t1\nshe said \"\" and 'left\t0\n";
    let examples = read_from(&[("dev.tsv", content)], "sst2", Split::Dev).unwrap();
    assert_eq!(examples.items[0].first, "\"unbalanced , he said");
    assert_eq!(examples.items[1].first, "she said \"\" and 'left");
}

#[test]
fn a_tsv_file_that_is_quoted_as_csv_is_noted_once() {
    let quoted = "sentence\tlabel\nplain\t1\n\"she said \"\"no\"\".\"\t0\n\"\"\"no\"\" again\"\t1\n";
    let dir = dir(&[("train.tsv", quoted), ("dev.tsv", "sentence\tlabel\n\"no\"\t1\nshe said \"\"\t0\n")]);
    let (examples, notes) = read_noted(task("sst2"), dir.path(), Split::Train).unwrap();
    assert_eq!(examples.items[1].first, "\"she said \"\"no\"\".\"");
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    assert!(note.contains("train.tsv:3: a value is quoted as in CSV"), "{note}");
    assert_eq!(read_noted(task("sst2"), dir.path(), Split::Dev).unwrap().1, Vec::<String>::new());
}

#[test]
fn ragged_and_empty_lines_are_skipped_with_file_and_line() {
    let mut content = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n".to_owned();
    for i in 0..30 {
        content += match i {
            7 => "7\t1\t2\tcut off\n",
            9 => "\n",
            _ => "1\t1\t2\tone\ttwo\t0\n",
        };
    }
    content += "\n\r\n";
    let dir = dir(&[("QQP/train.tsv", &content)]);
    let examples = read(task("qqp"), dir.path(), Split::Train).unwrap();
    assert_eq!(examples.items.len(), 28);
    let file = dir.path().join("QQP/train.tsv");
    let skipped: Vec<String> = examples.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(
        skipped,
        [format!("{}:9: 4 columns, not 6", file.display()), format!("{}:11: the line is empty", file.display())]
    );
}

#[test]
fn a_file_whose_lines_are_mostly_unusable_is_refused() {
    let content = "sentence\tlabel\ngood\t1\nbad\nworse\n";
    let error = read_from(&[("train.tsv", content)], "sst2", Split::Train).unwrap_err();
    assert!(matches!(error, Error::Unusable { line: 3, skipped: 2, rows: 3, .. }), "{error}");
    assert!(error.to_string().ends_with("train.tsv:3: 1 columns, not 2; 2 of 3 rows are like that"), "{error}");
}

#[test]
fn unknown_labels_are_refused_with_file_line_and_the_known_ones() {
    let rte = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\ta\tb\tneutral\n";
    let error = read_from(&[("RTE/train.tsv", rte)], "rte", Split::Train).unwrap_err();
    assert!(
        error.to_string().ends_with("train.tsv:3: unknown label \"neutral\"; expected entailment, not_entailment"),
        "{error}"
    );
    let rte = rte.replace("neutral", "not_entailmnt");
    let error = read_from(&[("RTE/train.tsv", &rte)], "rte", Split::Train).unwrap_err();
    let expected = "\"not_entailmnt\"; expected entailment, not_entailment; did you mean not_entailment?";
    assert!(error.to_string().ends_with(expected), "{error}");
    let similarity = |score: &str| {
        let content = format!("sentence1\tsentence2\tscore\na\tb\t{score}\n");
        read_from(&[("train.tsv", &content)], "stsb", Split::Train)
    };
    assert!(similarity("5.000").is_ok());
    for score in ["5.1", "-2", "NaN", "inf", "good"] {
        let error = similarity(score).unwrap_err();
        assert!(error.to_string().contains("expected a number from 0 to 5"), "{score}: {error}");
    }
}

#[test]
fn a_labelled_file_without_labels_is_refused() {
    for score in ["-1", "-1.000", "", " "] {
        let content = format!("sentence1\tsentence2\tscore\na\tb\t{score}\n");
        let error = read_from(&[("train.tsv", &content)], "stsb", Split::Train).unwrap_err();
        assert!(error.to_string().ends_with("train.tsv: none of its 1 rows has a label"), "{score}: {error}");
        let test =
            read_from(&[("test.tsv", &format!("index\t{content}").replace("\na", "\n7\ta"))], "stsb", Split::Test);
        assert_eq!(test.unwrap().items[0].label, None, "{score}");
    }
}

#[test]
fn an_unknown_label_of_a_test_file_is_none() {
    let content = "index\tsentence\tlabel\n0\tone\t?\n1\ttwo\t1\n2\tthree\tunknown\n";
    let dir = dir(&[("test.tsv", content), ("train.tsv", content)]);
    let labels: Vec<_> =
        read(task("sst2"), dir.path(), Split::Test).unwrap().items.iter().map(|row| row.label).collect();
    assert_eq!(labels, [None, Some(Label::Class(1)), None]);
    assert!(matches!(read(task("sst2"), dir.path(), Split::Train), Err(Error::UnknownLabel { line: 2, .. })));
}

#[test]
fn integers_in_tsv_files_are_those_of_the_hub() {
    let content = "sentence1\tsentence2\tgold_label\na\tb\t0\na\tb\t1\na\tb\t2.0\na\tb\tneutral\na\tb\t-1\n";
    let examples = read_from(&[("train.tsv", content)], "mnli", Split::Train).unwrap();
    // 0, 1, 2 are entailment, neutral, contradiction in `nyu-mll/glue`, as in its parquet files.
    assert_eq!(examples.items.iter().map(class).collect::<Vec<_>>(), [1, 2, 0, 2]);
    assert_eq!(examples.unlabelled.len(), 1);
}

#[test]
fn missing_files_splits_and_columns_are_named() {
    let error = read_from(&[], "cola", Split::Train).unwrap_err();
    let message = error.to_string();
    let files = "no train split of cola: looked for train.tsv, train-*.parquet or data/train-*.parquet in ";
    assert!(message.starts_with(files), "{message}");
    assert!(message.contains("/CoLA, ") && message.contains("/cola or "), "{message}");

    let error = read_from(&[("train.tsv", "text\tlabel\na\t1\n")], "sst2", Split::Train).unwrap_err();
    assert!(error.to_string().ends_with("no column \"sentence\"; its columns are \"text\", \"label\""), "{error}");

    let error = read_from(&[("train.tsv", "a\t1\n")], "cola", Split::Train).unwrap_err();
    assert!(error.to_string().contains("no column number 3 (from 0)"), "{error}");

    assert!(matches!(read_from(&[], "rte", Split::DevMismatched), Err(Error::NoSuchSplit { .. })));
    for empty in ["", "\n\n", "sentence\tlabel\n"] {
        let error = read_from(&[("train.tsv", empty)], "sst2", Split::Train).unwrap_err();
        assert!(matches!(error, Error::NoExamples { .. }), "{empty:?}: {error}");
    }
    let binary = dir(&[]);
    fs::write(binary.path().join("train.tsv"), b"sentence\tlabel\na\t1\n\xff\t0\n").unwrap();
    let error = read(task("sst2"), binary.path(), Split::Train).unwrap_err();
    assert!(matches!(error, Error::NotText { line: 3, .. }), "{error}");
    assert!(matches!(
        read(task("squad"), dir(&[("dev-v1.1.json", "{}")]).path(), Split::Dev),
        Err(Error::WrongKind { .. })
    ));
}

#[test]
fn the_hubs_parquet_files_are_read_with_the_hubs_label_order() {
    let hub = fixtures().join("hub");
    let cola = read(task("cola"), &hub, Split::Train).unwrap();
    assert_eq!(cola.items.len(), 1200);
    assert_eq!(cola.items[2].first, "Map the kept\ther.");
    assert_eq!(cola.items[..4].iter().map(class).collect::<Vec<_>>(), [1, 1, 0, 1]);

    // Two shards, zstd and snappy; 0, 1, 2 are entailment, neutral, contradiction.
    let train = read(task("mnli"), &hub, Split::Train).unwrap();
    assert_eq!(train.files.len(), 2);
    assert_eq!(train.items.iter().map(class).collect::<Vec<_>>(), [1, 2, 0, 1]);
    let texts: Vec<_> = train.items.iter().map(|e| (e.first.as_str(), e.second.as_deref().unwrap())).collect();
    assert_eq!(texts, [("p00", "h00"), ("p01", "h01"), ("p10", "h10"), ("p11", "h11")]);
    assert_eq!(class(&read(task("mnli"), &hub, Split::Dev).unwrap().items[0]), 2);
    let mismatched = read(task("mnli"), &hub.join("mnli"), Split::DevMismatched).unwrap();
    assert_eq!((mismatched.items[0].first.as_str(), class(&mismatched.items[0])), ("validation_mismatched", 0));
    assert_eq!(read(task("mnli"), &hub, Split::Test).unwrap().items[0].label, None);

    let similarity = read(task("stsb"), &hub, Split::Dev).unwrap();
    assert_eq!(similarity.items[1].label, Some(Label::Value(1.75)));
    assert_eq!(read(task("stsb"), &hub, Split::Test).unwrap().items[0].label, None);
}

#[test]
fn a_missing_shard_is_noticed() {
    let shard = "train-00000-of-00002.parquet";
    let dir = dir(&[]);
    fs::copy(fixtures().join("hub/mnli").join(shard), dir.path().join(shard)).unwrap();
    let error = read(task("mnli"), dir.path(), Split::Train).unwrap_err();
    assert!(matches!(error, Error::MissingShards { found: 1, expected: 2, .. }), "{error}");
    // Another file, first in the order of names, that no shard counts.
    fs::rename(dir.path().join(shard), dir.path().join("train-00000-of-00003.parquet")).unwrap();
    fs::write(dir.path().join("train--more.parquet"), "").unwrap();
    let error = read(task("mnli"), dir.path(), Split::Train).unwrap_err();
    assert!(matches!(error, Error::MissingShards { found: 2, expected: 3, .. }), "{error}");
}

#[test]
fn a_copy_of_a_shard_is_no_other_shard() {
    let train = "train-00000-of-00002.parquet";
    let dir = dir(&[]);
    let copy = |from: &str, to: &str| fs::copy(fixtures().join("hub/mnli").join(from), dir.path().join(to)).unwrap();
    copy(train, train);
    copy(train, "train-00000-of-00002-0123456789abcdef.parquet");
    let error = read(task("mnli"), dir.path(), Split::Train).unwrap_err();
    assert!(matches!(error, Error::RepeatedShard { number: 0, of: 2, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("-0123456789abcdef.parquet and ") && message.contains(train), "{message}");
    // With the other shard, too, the copy is one file too many.
    copy("train-00001-of-00002.parquet", "train-00001-of-00002.parquet");
    let error = read(task("mnli"), dir.path(), Split::Train).unwrap_err();
    assert!(matches!(error, Error::RepeatedShard { .. }), "{error}");
}
