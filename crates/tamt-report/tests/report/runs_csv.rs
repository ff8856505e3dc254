//! A report of the `runs.csv` of another report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tamt_report::error::Error;
use tamt_report::report::{Report, report};

use crate::study::{self, Builder, DENSE, Of, Reader};

fn write(root: &Path, output: &Path) -> Report {
    report(&[root.to_owned()], output, &Reader).unwrap()
}

/// The files of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named =
        |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap());
    paths.map(named).collect()
}

/// Expects a report of the `runs.csv` of a report to have the same tables and figures, but for some.
fn compare(root: &Path, tables: &[&str], figures: &[&str]) {
    let [of_directories, of_file] = ["directories", "file"].map(|name| root.join("reports").join(name));
    let first = write(root, &of_directories);
    let second = write(&of_directories.join("runs.csv"), &of_file);
    assert_eq!(second.study.name, "runs");
    assert_eq!(first.study.runs.len(), second.study.runs.len());
    let [runs, again] = [&of_directories, &of_file].map(|of| fs::read_to_string(of.join("runs.csv")).unwrap());
    assert!(runs == again, "{again}");
    for (folder, without) in [("tables", tables), ("figures", figures)] {
        let [all, mut left] = [&of_directories, &of_file].map(|of| files(&of.join(folder)));
        for (name, content) in all.into_iter().filter(|(name, _)| !name.ends_with(".tex")) {
            let again = left.remove(&name);
            let may_differ = without.iter().any(|part| name.contains(part));
            assert!(may_differ || again.as_ref() == Some(&content), "{name}\n{content}\n{again:?}");
        }
        left.retain(|name, _| !name.ends_with(".tex"));
        assert!(left.is_empty(), "{:?}", left.keys());
    }
}

#[test]
fn the_runs_of_a_file_have_the_report_of_their_directories_but_for_what_other_files_have() {
    let directory = tempfile::tempdir().unwrap();
    study::whole(directory.path());
    // Operations, the clock of searches, steps of fine-tuning, settings and commands; masks.
    compare(
        directory.path(),
        &["cost-search", "cost-tuning", "steps-", "runs.csv", "settings-"],
        &["operations", "seconds", "similarity", "distance", "rates"],
    );
}

#[test]
fn settings_that_set_runs_apart_do_so_in_a_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = Builder::new(root);
    let of = Of::new("tamt-mlm", 0.7, 1);
    study.find(&of, &[]);
    study.losses(&of);
    for of in [&DENSE, &of] {
        study.tune(of, "sst2", 1, 8000);
        let run = study.tune(of, "sst2", 2, 8000);
        let config = fs::read_to_string(run.join("config.toml")).unwrap();
        fs::write(run.join("config.toml"), config.replace("0.0003", "0.001")).unwrap();
        study.tune(of, "sst2", 3, 300);
    }
    study.finish("rates");
    compare(root, &["cost-", "runs.csv", "settings-"], &["similarity"]);
    let heading = fs::read_to_string(root.join("reports/file/tables/scores-70.csv")).unwrap();
    for rate in ["0.0003", "0.001"] {
        assert!(heading.contains(&format!("SST-2, learning-rate {rate} (accuracy)")), "{heading}");
    }
}

/// The error of a report of one file.
fn refused(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    match report(&[path.to_owned()], &path.with_extension("out"), &Reader).unwrap_err() {
        Error::Damaged { reason, .. } => reason,
        error => panic!("{error}"),
    }
}

const HEAD: &str = "run,kind,base,method,sparsity,task,metric,best_score,ticket,settings\n";

#[test]
fn a_file_that_is_no_table_of_runs_is_refused_with_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.csv");
    let good = "a,tune,b,imp,0.7,sst2,accuracy,80,,\n";
    for (text, expected) in [
        ("", "has no column \"run\""),
        (HEAD, "no runs"),
        ("run,kind,base,method,colour\na,tune,b,imp,red\n", "unknown field `colour`"),
        ("kind,base,method\ntune,b,imp\n", "has no column \"run\""),
        ("run,kind,method\na,tune,imp\n", "missing field `base`"),
        (&format!("{HEAD}{good}b,tuned,b,imp,0.7,sst2,accuracy,80,,\n"), "line: 3"),
        (&format!("{HEAD}{good}b,tune,b,imp,0.7,sst2,accuracy,,,\n"), "line 3: a fine-tuning has no metric"),
        (&format!("{HEAD}{good}{good}"), "line 3: there is a run a above"),
        (&format!("{HEAD}a,tune,b,imp,,sst2,accuracy,80,,\n"), "line 2: a ticket has no sparsity"),
        (&format!("{HEAD}a,tune,b,imp,0.7,,accuracy,80,,\n"), "line 2: a fine-tuning has no task"),
        (&format!("{HEAD}a,losses,b,imp,0.7,,,,,\n"), "line 2: a run of losses"),
        (&format!("{HEAD}a,tune,b,imp,0.7,sst2\n"), "found record with 6 fields"),
    ] {
        let reason = refused(&path, text);
        assert!(reason.contains(expected), "{expected:?} is not in {reason:?}");
    }
}

#[test]
fn runs_that_no_column_sets_apart_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.csv");
    for (first, second) in [
        ("a,tune,b,imp,0.7,sst2,accuracy,80,,", "c,tune,b,imp,0.7,sst2,accuracy,90,,"),
        ("a,tune,b,imp,0.7,sst2,accuracy,80,x,", "c,tune,b,imp,0.7,trec,accuracy,90,y,"),
    ] {
        let reason = refused(&path, &format!("{HEAD}{first}\n{second}\n"));
        assert_eq!(reason, "no column tells what sets a and c apart; report their directories");
    }
    fs::write(
        &path,
        format!("{HEAD}a,tune,b,imp,0.7,sst2,accuracy,80,,\nc,tune,b,imp,0.7,sst2,accuracy,90,,epochs 8\n"),
    )
    .unwrap();
    assert_eq!(write(&path, &directory.path().join("out")).study.scores.len(), 2);
}

#[test]
fn a_file_has_a_report_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.csv");
    fs::write(&path, HEAD).unwrap();
    let together = report(&[directory.path().to_owned(), path.clone()], &directory.path().join("out"), &Reader);
    assert!(matches!(together.unwrap_err(), Error::NotAlone { path: file } if file == path));
    let nowhere = report(&[directory.path().join("nowhere.csv")], &directory.path().join("out"), &Reader);
    assert!(matches!(nowhere.unwrap_err(), Error::Io { .. }));
}
