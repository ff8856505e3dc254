//! Errors about files and names: what is there, and what was meant, as a stranger reads it.

use std::fs;
use std::os::unix::fs::symlink;

use assert_cmd::assert::Assert;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};

use crate::common::{bert, corpus, tamt_in};
use crate::task_files::cola;

/// A working directory with a ticket `tk`, a tuned model `tuned`, a pre-trained model `pre`, task files `cola`, and files
/// of other kinds.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("void")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("text.txt"), "hello\n").unwrap();
    fs::write(root.join("mask.pt"), b"PK\x03\x04\0\0\0\0\0\0mask/data.pkl").unwrap();
    fs::copy(bert() + "/model.safetensors", root.join("weights.safetensors")).unwrap();
    cola(&root.join("cola"));
    for line in [
        "find --model BERT --method magnitude --sparsity 0.7 --output-dir tk",
        "tune --model BERT --task cola --data cola --max-steps 1 --batch-size 2 --output-dir tuned",
        "pretrain --model BERT --corpus CORPUS --max-steps 1 --batch-size 2 --block-size 16 --output-dir pre",
    ] {
        tamt(&directory, line).success();
    }
    directory
}

fn tamt(directory: &tempfile::TempDir, line: &str) -> Assert {
    tamt_in(directory, &line.replace("BERT", &bert()).replace("CORPUS", &corpus()))
}

/// Runs the head of a line with each of its ends, and expects the text beside the end on stderr.
#[track_caller]
fn say(directory: &tempfile::TempDir, line: &str, cases: &[(&str, &str)]) {
    for (end, expected) in cases {
        let expected = expected.replace("BERT", &bert());
        tamt(directory, &format!("{line} {end}"))
            .failure()
            .stdout(is_empty())
            .stderr(contains(expected).and(contains("panicked").not()));
    }
}

#[test]
fn what_is_no_model_is_told() {
    say(
        &place(),
        "find --method magnitude --sparsity 0.7 --output-dir out --model",
        &[
            ("./nosuch", "no such directory: ./nosuch"),
            ("void", "void is no model directory: it has no config.json; it is empty"),
            ("empty", "empty is a file; a model is the directory"),
            ("weights.safetensors", "weights.safetensors is a file; a model is the directory"),
            ("tk", "hint: tk holds a ticket of BERT: the model to give is that one"),
        ],
    );
}

#[test]
fn what_is_no_ticket_is_told() {
    let directory = place();
    let cases = [
        ("tk/ticket.safetensor", "hint: tk has no ticket.safetensor; did you mean tk/ticket.safetensors?"),
        ("nosuch/ticket", "hint: the working directory has no nosuch"),
        ("void", "hint: void is an empty directory"),
        ("empty", "empty is damaged: it is empty"),
        ("text.txt", "text.txt is no ticket but a text file"),
        ("mask.pt", "mask.pt is no ticket but a PyTorch file (`tamt import` makes a ticket of masks of PyTorch)"),
        ("tuned", "hint: tuned is a directory with config.json, config.toml, eval_results.json"),
        ("pre", "pre is no ticket but a directory without ticket.safetensors"),
        ("weights.safetensors", "is no ticket but a safetensors file with tensors such as bert.embeddings"),
    ];
    say(&directory, "inspect", &cases);
    say(&directory, "eval --model BERT --corpus CORPUS --block-size 16 --ticket", &cases);
    say(&directory, "apply --model BERT --output-dir out --ticket", &cases);
    say(&directory, "tune --model BERT --task cola --data cola --output-dir out --ticket", &cases);
    let find =
        "find --model BERT --method tamt-kd --sparsity 0.5 --corpus CORPUS --max-steps 1 --output-dir out --init";
    say(&directory, find, &cases);
    say(&directory, find, &[("magnitud", "there is no such file; did you mean magnitude?")]);
    symlink("missing", directory.path().join("tkl")).unwrap();
    say(&directory, "inspect", &[("tkl", "hint: tkl is a link to missing, which does not exist")]);
}

#[test]
fn what_is_no_text_is_told() {
    let directory = place();
    let cases = [
        ("texst.txt", "hint: the working directory has no texst.txt; did you mean text.txt?"),
        ("void", "hint: void is an empty directory"),
        ("tuned", "hint: tuned is a directory with config.json"),
        ("tk/ticket.safetensors", "tk/ticket.safetensors:1: not text: "),
    ];
    say(&directory, "pretrain --model BERT --max-steps 1 --output-dir out --corpus", &cases);
    say(&directory, "eval --model BERT --corpus", &cases);
    say(&directory, "encode --model BERT --output vectors --input", &cases);
    say(
        &directory,
        "encode --model BERT --input text.txt --output",
        &[
            ("void", "--output: void is a directory"),
            ("empty/v", "--output: there is no directory empty; empty is an empty file"),
            ("runs/v", "--output: there is no directory runs; the working directory has no runs, but cola, empty"),
        ],
    );
}

#[test]
fn what_is_no_data_of_a_task_is_told() {
    let directory = place();
    say(
        &directory,
        "tune --model BERT --output-dir out --task cola --data",
        &[
            ("colla", "hint: the working directory has no colla; did you mean cola?"),
            ("void", "hint: void is an empty directory"),
            ("text.txt", "hint: text.txt is a file"),
            ("tk", "hint: tk is a directory with config.toml, eval_results.json, ticket.safetensors"),
        ],
    );
    say(&directory, "tune --model BERT --output-dir out --data cola --task", &[("colla", "did you mean cola?")]);
    say(
        &directory,
        "tune --model BERT --output-dir out --data cola --task-file",
        &[
            ("nosuch.toml", "hint: the working directory has no nosuch.toml, but cola, empty, mask.pt"),
            ("void", "hint: void is an empty directory"),
            ("tk/config.toml", "unknown field `allow-other-base`"),
        ],
    );
    say(
        &directory,
        "tune --model BERT --task cola --data cola --output-dir out --teacher",
        &[("tk", "hint: tk holds a ticket of BERT"), ("BERT", "it has no head for cola; it was not fine-tuned")],
    );
}

#[test]
fn what_is_no_head_is_told() {
    say(
        &place(),
        "eval --model BERT --ticket tk --corpus CORPUS --block-size 16 --mlm-head",
        &[
            ("empty", "empty holds no MLM head: it is an empty file"),
            ("text.txt", "text.txt holds no MLM head: it is a text file"),
            ("tk/ticket.safetensors", "tk/ticket.safetensors holds no MLM head: it is a ticket"),
            ("tk", "hint: tk is a directory with config.toml"),
            ("tickt", "there is no such file; did you mean ticket?"),
            ("ticket", "hint: tk has no mlm_head.safetensors, but config.toml"),
        ],
    );
}

#[test]
fn what_is_no_study_is_told() {
    let directory = place();
    let cases = [
        ("nosuch.toml", "hint: the working directory has no nosuch.toml, but cola, empty"),
        ("void", "hint: void is an empty directory"),
    ];
    say(&directory, "study --output-dir out", &cases);
    say(
        &directory,
        "report",
        &[
            ("nosuch", "hint: the working directory has no nosuch, but cola, empty"),
            ("tkk", "hint: the working directory has no tkk; did you mean tk?"),
            ("void", "hint: void is an empty directory"),
            ("text.txt", "text.txt: it is no runs.csv of a report: its first line has no column \"run\""),
            ("text.txt tk", "text.txt is a file: a report of a runs.csv has no other runs"),
        ],
    );
}

#[test]
fn what_is_no_place_for_a_run_is_told() {
    let directory = place();
    fs::create_dir(directory.path().join("plain")).unwrap();
    fs::write(directory.path().join("plain/config.json"), "{}").unwrap();
    say(
        &directory,
        "find --model BERT --method magnitude --sparsity 0.7 --output-dir",
        &[
            ("empty", "hint: empty is an empty file"),
            ("text.txt/run", "hint: text.txt is a file"),
            ("tk", "tk already holds a run (config.toml)\nhint: give --resume to go on with that run, or another"),
            ("plain", "plain already holds a model (config.json)\nhint: give another --output-dir\n"),
            ("tuned --resume", "tuned/config.toml: it records a `tamt tune`, and this is `tamt find`"),
        ],
    );
    say(
        &directory,
        "find --resume --output-dir",
        &[
            ("void", "tip: --resume takes the flags from the record of a run, config.toml; void is an empty directory"),
            ("tkk", "config.toml; the working directory has no tkk; did you mean tk?"),
            ("tuned", "it records a `tamt tune`"),
        ],
    );
    say(
        &directory,
        "eval --model BERT --corpus CORPUS --block-size 16 --output-dir",
        &[("tk", "tk already holds a run (config.toml)\nhint: give another --output-dir\n")],
    );
    say(&directory, "apply --model BERT --ticket tk --output-dir", &[("tuned", "tuned already holds config.json")]);
    tamt(&directory, "demo --output-dir empty").failure().stderr(contains("hint: empty is an empty file"));
}

#[test]
fn what_is_no_configuration_is_told() {
    let directory = place();
    say(
        &directory,
        "find --config",
        &[
            ("void", "void: it is a directory, not a file"),
            ("tk", "tk: it is a directory, not a file; it holds tk/config.toml"),
            ("tk/config.tml", "there is no such file; tk has no config.tml; did you mean tk/config.toml?"),
            ("weights.safetensors", "weights.safetensors: it is no text, so it holds no flags"),
        ],
    );
    let new = "pretrain --tokenizer BERT --corpus CORPUS --max-steps 1 --output-dir out --new";
    say(
        &directory,
        new,
        &[
            ("cnfig.json", "hint: the working directory has no cnfig.json, but cola"),
            ("BERT", "is a directory with classifier, config.json, model.safetensors"),
            ("empty", "unusable model configuration empty"),
            ("text.txt", "unusable model configuration text.txt"),
        ],
    );
    let tokenizer = "pretrain --new BERT/config.json --corpus CORPUS --max-steps 1 --output-dir out --tokenizer";
    say(
        &directory,
        tokenizer,
        &[
            ("./nosuch", "no such directory: ./nosuch"),
            ("./empty", "./empty is a file"),
            ("tk", "hint: tk holds a ticket"),
        ],
    );
}

#[test]
fn mistyped_verbs_flags_and_values_are_met_with_the_nearest() {
    let directory = tempfile::tempdir().unwrap();
    for (line, expected) in [
        ("inpsect tk", "similar subcommands exist: 'predict', 'inspect'"),
        ("find --sparsty 0.5", "a similar argument exists: '--sparsity'"),
        ("find --method magnitde", "a similar value exists: 'magnitude'"),
        ("tune --model m --task mrcp --data d --output-dir o", "there is no task \"mrcp\"; known are"),
    ] {
        tamt(&directory, line).code(2).stdout(is_empty()).stderr(contains(expected));
    }
}
