//! The stored tokens of texts, through the verbs that read text.

use std::fs;
use std::path::PathBuf;

use assert_cmd::assert::Assert;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{at, bert, bytes, corpus, object, split, stderr, tamt_command};

/// Runs the binary with `directory/cache` as its cache directory.
fn tamt(directory: &TempDir, size: &str, line: &str) -> Assert {
    let mut command = tamt_command();
    command.env("TAMT_CACHE", directory.path().join("cache")).env("TAMT_CACHE_SIZE", size);
    command.args(split(line)).assert()
}

/// A text that is long enough to be kept.
fn long_text(directory: &TempDir) -> String {
    let path = at(directory, "long.txt");
    let text = fs::read_to_string(corpus()).unwrap();
    fs::write(&path, text.repeat((1 << 16) / text.len() + 1)).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 1 << 16);
    path
}

fn entries(directory: &TempDir) -> Vec<PathBuf> {
    let listed = object(&tamt(directory, "1G", "cache --json").success());
    assert_eq!(listed["path"], at(directory, "cache/tokens"));
    let entries = listed["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["file"].as_str().unwrap().into()).collect()
}

#[test]
fn every_verb_that_reads_text_takes_the_stored_tokens_and_mends_damaged_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (model, text) = (bert(), long_text(&directory));
    let eval = format!("eval --model {model} --corpus {text} --block-size 12 --max-tokens 500 --json");
    let first = tamt(&directory, "1G", &eval).success();
    let stored = entries(&directory);
    let [entry] = &stored[..] else { panic!("{stored:?}") };
    let good = bytes(entry);
    let second = tamt(&directory, "1G", &eval).success();
    assert_eq!(object(&first), object(&second));
    assert!(!stderr(&second).contains("stored tokens"));

    let run = |verb: &str, more: &str| {
        let output = at(&directory, verb);
        format!(
            "{verb} --model {model} --corpus {text} --output-dir {output} --max-steps 1 --batch-size 2 --block-size 12 {more}"
        )
    };
    let find = run("find", "--method tamt-mlm --sparsity 0.5");
    for line in [eval, find.clone(), run("pretrain", ""), format!("{find} --resume")] {
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(entry, damaged).unwrap();
        let said = stderr(&tamt(&directory, "1G", &line).success());
        assert!(said.contains("are damaged: they do not have the recorded SHA-256"), "{line}: {said}");
        assert!(bytes(entry) == good, "{line}");
        assert_eq!(entries(&directory), stored);
    }
}

#[test]
fn stored_tokens_are_listed_and_cleared() {
    let directory = tempfile::tempdir().unwrap();
    tamt(&directory, "1G", "cache").success().stdout(contains("0 texts, 0.0 of at most 1000.0 MB"));
    let (model, text) = (bert(), long_text(&directory));
    let eval = format!("eval --model {model} --corpus {text} --block-size 12 --max-tokens 500");
    tamt(&directory, "1G", &eval).success();
    tamt(&directory, "1G", "cache").success().stdout(contains(&text).and(contains("1 texts")));
    let listed = object(&tamt(&directory, "1G", "cache --json").success());
    assert_eq!(listed["limit"], 1_000_000_000);
    assert_eq!(listed["entries"][0]["texts"], Value::from(vec![text]));
    assert_eq!(listed["entries"][0]["bytes"], listed["bytes"]);

    let cleared = object(&tamt(&directory, "1G", "cache clear --json").success());
    assert_eq!((&cleared["removed"], &cleared["bytes"]), (&Value::from(1), &listed["bytes"]));
    assert_eq!(entries(&directory), Vec::<PathBuf>::new());
}

#[test]
fn a_size_bounds_the_stored_tokens_and_zero_switches_them_off() {
    let directory = tempfile::tempdir().unwrap();
    let (model, text) = (bert(), long_text(&directory));
    let eval = format!("eval --model {model} --corpus {text} --block-size 12 --max-tokens 500");
    tamt(&directory, "0", &eval).success();
    assert_eq!(entries(&directory), Vec::<PathBuf>::new());
    tamt(&directory, "0", "cache").success().stdout(contains("no tokens are stored: TAMT_CACHE_SIZE is 0"));
    tamt(&directory, "1K", &eval).success().stderr(contains("not kept for later runs"));
    assert_eq!(entries(&directory), Vec::<PathBuf>::new());
    tamt(&directory, "much", &eval).code(2).stderr(contains("TAMT_CACHE_SIZE=much: a size is a number of bytes"));
    // An unwritable cache directory costs a notice.
    fs::write(at(&directory, "cache/tokens"), "a file in the way").unwrap_or_else(|_| {
        fs::create_dir_all(at(&directory, "cache")).unwrap();
        fs::write(at(&directory, "cache/tokens"), "a file in the way").unwrap();
    });
    tamt(&directory, "1G", &eval).success().stderr(contains("not kept for later runs"));
}
