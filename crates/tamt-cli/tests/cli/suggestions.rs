//! The nearest name beside a mistyped one: of model directories, of values, of keys in files of flags.

use std::fs;
use std::path::Path;

use assert_cmd::assert::Assert;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::common::{copy_of_bert, corpus, split, stderr, tamt_command};

/// Runs the binary in a directory, without a network: with a hub that nobody answers for, or with its cache only.
fn tamt(directory: &Path, offline: bool, line: &str) -> Assert {
    let mut command = tamt_command();
    command.current_dir(directory).env("HF_HUB_CACHE", directory.join("hub")).env_remove("TRANSFORMERS_OFFLINE");
    if offline {
        command.env("HF_HUB_OFFLINE", "1");
    } else {
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", "http://127.0.0.1:1");
    }
    command.args(split(line)).assert()
}

#[test]
fn a_mistyped_model_directory_is_met_with_the_nearest_one_and_a_hub_id_is_still_one() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    copy_of_bert(&place.join("encoder"));
    copy_of_bert(&place.join("runs/encoder"));
    fs::write(place.join("encode.txt"), "").unwrap();
    let near = |model: &str, offline: bool, expected: &str| {
        for verb in ["find --method magnitude --sparsity 0.5", "pretrain --corpus text.txt --max-steps 1"] {
            let said = stderr(&tamt(place, offline, &format!("{verb} --output-dir out --model {model}")).failure());
            let is_path = model.starts_with('.') || model.starts_with("runs/");
            assert_eq!(said.contains("taken as a hub id"), !is_path, "{said}");
            let hint = said.lines().find(|line| line.starts_with("hint: ")).unwrap_or_else(|| panic!("{said}"));
            assert!(
                hint.ends_with(&format!("; did you mean {expected}?"))
                    || hint == format!("hint: did you mean {expected}?"),
                "{said}"
            );
        }
        assert!(!place.join("out").exists());
    };
    near("encdoer", true, "encoder");
    near("encdoer", false, "encoder");
    near("./encdoer", true, "./encoder");
    near("runs/encdoer", true, "runs/encoder");
    near("rusn/encoder", true, "runs/encoder");
    near("./rusn/encdoer", true, "./runs/encoder");
    near("en--coder", true, "encoder");
    tamt(place, true, "find --method magnitude --sparsity 0.5 --output-dir out --model bert-base-uncased")
        .failure()
        .stderr(contains("did you mean").not());

    // A model of the hub with such a name, in the cache.
    let model = place.join("hub/models--encdoer");
    copy_of_bert(&model.join("snapshots/c0ffee"));
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), "c0ffee").unwrap();
    tamt(place, true, "find --method magnitude --sparsity 0.5 --output-dir out --model encdoer")
        .success()
        .stderr(contains("no directory encdoer, so that it is taken as a hub id; did you mean encoder?"));
}

#[test]
fn a_value_that_is_part_of_a_name_is_met_with_that_name() {
    let directory = tempfile::tempdir().unwrap();
    for (line, expected) in [
        ("find --method kd", "some similar values exist: 'tamt-kd', 'tamt-mlm-kd'"),
        ("find --method mlm_kd", "a similar value exists: 'tamt-mlm-kd'"),
        ("find --lr-schedule linear-decay", "a similar value exists: 'linear'"),
        ("eval --objective mml", "a similar value exists: 'mlm'"),
        ("find --preset ppaer", "a similar value exists: 'paper'"),
    ] {
        tamt(directory.path(), true, line).code(2).stderr(contains(expected));
    }
}

#[test]
fn a_table_in_a_file_of_flags_is_told_with_the_flag_that_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let (file, text) = (directory.path().join("flags.toml"), corpus());
    for (verb, toml, expected) in [
        (
            "find",
            "[train]\nmaxsteps = 3",
            "line 2: unknown key `train`; it is a table, and flags stand at the top level; \
             did you mean max-steps instead of train.maxsteps?",
        ),
        ("pretrain", "[train]\nmax_steps = 3", "did you mean max-steps instead of train.max_steps?"),
        ("find", "train.optimizer.kind = 'adamw'", "did you mean optimizer instead of train.optimizer.kind?"),
        ("find", "[seed]", "`seed` is a string or a number, not a table; flags stand at the top level\n"),
        ("find", "[tool]\nxyzzy = 1", "unknown key `tool`; it is a table, and flags stand at the top level\n"),
    ] {
        fs::write(&file, format!("corpus = '{text}'\n{toml}\n")).unwrap();
        tamt(directory.path(), true, &format!("{verb} --config flags.toml --output-dir out"))
            .code(2)
            .stderr(contains(expected));
    }
}
