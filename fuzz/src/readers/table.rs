//! Task files and tables of examples.

use std::fs;
use std::path::Path;

use tamt_data::tasks::{Examples, Head, Label, Split, Task, read};

use crate::readers::files;

const FILES: [&str; 8] = [
    "task.toml",
    "train.tsv",
    "dev.tsv",
    "train.csv",
    "train.jsonl",
    "dev.jsonl",
    "train-0-of-2.csv",
    "train-1-of-2.csv",
];

/// The columns that the parquet files of the tests have, as tasks.
const TASKS: [&str; 3] = [
    "name = 'a'\nkind = 'classification'\nlabels = ['0', '1', '2']\n[files]\ntrain = 'train.parquet'\n\
     [columns]\nfirst = 'text'\nlabel = 'stars'\n",
    "name = 'b'\nkind = 'regression'\n[files]\ntest = 'train.parquet'\n\
     [columns]\nfirst = 'uint32'\nsecond = 'words'\nlabel = 'double'\nid = 'bool'\n",
    "name = 'c'\nkind = 'classification'\nlabels = ['x', 'y', 'z']\n[files]\ntest = 'train.parquet'\n\
     [columns]\nfirst = 'premise'\nsecond = 'hypothesis'\nlabel = 'label'\n",
];

/// A task file with its tables in text formats, also read by a task of GLUE.
pub(crate) fn table(input: &[u8]) -> bool {
    let dir = files::several(input, &FILES);
    for name in ["cola", "rte", "stsb"] {
        examples(Task::by_name(name).expect("the task exists"), dir.path(), Split::Train, input.len());
    }
    let Ok(task) = Task::from_file(&dir.path().join("task.toml")) else { return false };
    assert!(task.metrics.contains(&task.primary) && !task.sources.is_empty());
    assert!(task.labels().len() != 1);
    Split::ALL.into_iter().filter(|&split| examples(&task, dir.path(), split, input.len())).count() > 0
}

/// A parquet file, read by tasks with other columns.
pub(crate) fn parquet(input: &[u8]) -> bool {
    let dir = files::one("train.parquet", input);
    let mut is_read = false;
    for text in TASKS {
        let path = dir.path().join("task.toml");
        fs::write(&path, text).expect("a file can be written");
        let task = Task::from_file(&path).expect("the task is valid");
        for split in [Split::Train, Split::Test] {
            // A dictionary gives a row for a bit or less: a run of equal values has a few bytes.
            is_read |= examples(&task, dir.path(), split, usize::MAX);
        }
    }
    is_read
}

/// Reads a split, whose rows are at most `most`. Whether there are examples.
fn examples(task: &Task, dir: &Path, split: Split, most: usize) -> bool {
    let Ok(Examples { items, skipped, unlabelled, files }) = read(task, dir, split) else { return false };
    assert!(!items.is_empty() && !files.is_empty());
    assert!(items.len() + skipped.len() + unlabelled.len() <= most);
    for example in &items {
        match (&task.head, example.label) {
            (Head::Classification { labels }, Some(Label::Class(class))) => assert!((class as usize) < labels.len()),
            (Head::Regression { range }, Some(Label::Value(value))) => {
                assert!(value.is_finite());
                assert!(range.is_none_or(|(least, greatest)| (least..=greatest).contains(&value)));
            }
            (_, None) => assert!(!split.is_labelled()),
            (head, label) => panic!("{label:?} for {head:?}"),
        }
    }
    if split.is_labelled() {
        let gold: Vec<Label> = items.iter().filter_map(|example| example.label).collect();
        task.score(&items, &gold).expect("labels score as predictions");
    }
    true
}
