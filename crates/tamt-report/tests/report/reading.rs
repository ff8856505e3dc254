//! Which runs a report is of, and which of them are one cell.

use std::fs;
use std::path::Path;

use tamt_report::report::{Report, report};

use crate::study::{Builder, DENSE, Of, Reader, set};

fn written(root: &Path) -> Report {
    report(&[root.to_owned()], &root.join("out"), &Reader).unwrap()
}

/// Two tickets and the dense model on a task, and what `study.json` lists.
fn small(root: &Path) -> Builder {
    let mut study = Builder::new(root);
    for of in [DENSE, Of::new("magnitude", 0.7, 1), Of::new("tamt-mlm", 0.7, 1)] {
        study.tune(&of, "sst2", 1, 8000);
    }
    study.finish("small");
    study
}

fn heading(root: &Path) -> String {
    let table = fs::read_to_string(root.join("out/tables/scores-70.csv")).unwrap();
    table.lines().next().unwrap().to_owned()
}

#[test]
fn another_setting_with_another_seed_is_a_column_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = small(root);
    let run = study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 2, 8000);
    study.finish("small");
    written(root);
    assert!(heading(root).contains("SST-2 (accuracy)"), "{}", heading(root));
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    fs::write(run.join("config.toml"), config.replace("0.0003", "0.001")).unwrap();
    written(root);
    for rate in ["0.0003", "0.001"] {
        assert!(heading(root).contains(&format!("\"SST-2, learning-rate {rate} (accuracy)\"")), "{}", heading(root));
    }
}

/// Adds a line to the settings of a run.
fn add(run: &Path, line: &str) {
    let path = run.join("config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{line}\n{config}")).unwrap();
}

#[test]
fn a_teacher_of_its_own_for_each_seed_sets_no_seeds_apart() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = Builder::new(root);
    for seed in 1..=3 {
        for of in [DENSE, Of::new("tamt-mlm", 0.7, 1)] {
            add(&study.tune(&of, "sst2", seed, 8000), &format!("teacher-sha256 = \"{}\"", seed.to_string().repeat(64)));
        }
    }
    study.finish("teachers");
    written(root);
    assert!(heading(root).starts_with("method,SST-2 (accuracy),"), "{}", heading(root));
}

#[test]
fn tickets_of_unknown_searches_are_told_apart_by_their_digests() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = small(root);
    let first = study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 2, 8000);
    let second = study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 3, 8000);
    study.finish("small");
    for (run, digit) in [(&first, "a"), (&second, "b")] {
        add(run, &format!("ticket-sha256 = \"{}\"", digit.repeat(64)));
    }
    written(root);
    let table = fs::read_to_string(root.join("out/tables/scores-70.csv")).unwrap();
    for ticket in ["\"tamt-mlm, ticket aaaaaaaa\"", "\"tamt-mlm, ticket bbbbbbbb\""] {
        assert!(table.contains(ticket), "{table}");
    }
}

#[test]
fn runs_that_have_not_begun_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    small(root);
    assert!(written(root).study.left_out.is_empty());
    let study = root.join("study.json");
    let text = fs::read_to_string(&study).unwrap();
    fs::write(&study, text.replace("\"runs\":[", "\"runs\":[\"tasks/one\",\"tasks/two\",")).unwrap();
    let report = written(root);
    let reasons: Vec<&str> = report.study.left_out.iter().map(|left| left.reason.as_str()).collect();
    assert_eq!(reasons, ["2 of the 5 runs of the study have not begun"]);
}

#[test]
fn a_study_below_the_given_directory_has_the_runs_of_its_plan() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("demo/study");
    let mut study = small(&root);
    // The store keeps the run of an earlier plan.
    set(&study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 3, 8000), &[("best_accuracy", 0.1)]);
    let runs =
        |given: &Path| report(&[given.to_owned()], &directory.path().join("out"), &Reader).unwrap().study.runs.len();
    assert_eq!((runs(&root), runs(root.parent().unwrap())), (3, 3));
}
