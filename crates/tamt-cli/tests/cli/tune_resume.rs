//! Fine-tunings that are killed, stopped, refused or shown again end in the same bits.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::Value;

use crate::common::{at, bert, bytes, is_killed_at, log_of, long_enough, object, result_of, stopped_at, tamt};
use crate::task_files::{cola, squad};

/// Long enough to be interrupted on most machines, short enough for a test.
const STEPS: u64 = 400;

fn line(task: &str, output: &str, steps: u64) -> String {
    format!(
        "tune --model {} {task} --output-dir {output} --max-steps {steps} --batch-size 4 --learning-rate 2e-3 \
         --eval-every 25 --logging-steps 50",
        bert()
    )
}

/// Expects two runs to have these files, the log and the result alike, but for seconds and directories.
#[track_caller]
fn same(one: &str, other: &str, files: &[&str]) {
    for file in files {
        assert_eq!(bytes(format!("{one}/{file}")), bytes(format!("{other}/{file}")), "{file}");
    }
    assert_eq!(log_of(one), log_of(other));
    assert_eq!(result_of(one), result_of(other));
}

/// Runs `line`, a command line by its output directory and its steps, in three directories: killed by SIGKILL and resumed,
/// stopped by SIGINT and continued with the printed command, and without interruption on one thread. Expects the same files
/// in all of them.
#[track_caller]
fn ends_in_the_same_bits(directory: &tempfile::TempDir, line: impl Fn(&str, u64) -> String, files: &[&str]) {
    let (steps, [killed, stopped], said) = long_enough(STEPS, |steps| {
        let [killed, stopped] = ["killed", "stopped"].map(|name| at(directory, format!("{name}-{steps}")));
        let to_kill = format!("{} --save-every 15 --threads 2", line(&killed, steps));
        if !is_killed_at(&to_kill, &killed, 60) {
            return None;
        }
        let said = stopped_at(&format!("{} --save-every 15", line(&stopped, steps)), &stopped, 30, ("INT", 130))?;
        Some((steps, [killed, stopped], said))
    });
    let whole = at(directory, "whole");
    tamt(&format!("{} --threads 1", line(&whole, steps))).success();

    tamt(&format!("{} --resume --threads 2", line(&killed, steps))).success().stderr(contains("resuming from"));
    same(&whole, &killed, files);

    let command = said.lines().find_map(|line| line.strip_prefix("hint: to go on: ")).expect(&said);
    assert!(command.ends_with(" --resume"), "{command}");
    tamt(command.split_once(' ').unwrap().1).success();
    same(&whole, &stopped, files);
}

#[test]
fn a_ticket_is_tuned_to_the_same_bits_by_any_number_of_threads_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (data, half) = (cola(&directory.path().join("data")), at(&directory, "half"));
    tamt(&format!("find --model {} --method random --sparsity 0.5 --output-dir {half}", bert())).success();
    let task = format!("--task cola --data {data} --ticket {half} --predict-test");
    let files = ["model.safetensors", "config.json", "predictions.tsv", "test_predictions/CoLA.tsv"];
    ends_in_the_same_bits(&directory, |output, steps| line(&task, output, steps), &files);
}

#[test]
fn so_is_a_student_of_a_teacher() {
    let directory = tempfile::tempdir().unwrap();
    let (data, teacher) = (cola(&directory.path().join("data")), at(&directory, "teacher"));
    let task = format!("--task cola --data {data}");
    tamt(&line(&task, &teacher, 40)).success();
    let task = format!("{task} --teacher {teacher} --train-examples 50");
    // Early stopping needs three quarters of the steps, however many these are.
    let line = |output: &str, steps| format!("{} --early-stopping {}", line(&task, output, steps), 12 * steps / STEPS);
    ends_in_the_same_bits(&directory, line, &["model.safetensors", "predictions.tsv"]);
}

#[test]
fn so_is_a_model_of_spans() {
    let directory = tempfile::tempdir().unwrap();
    let task =
        format!("--task squad2 --data {} --max-length 24 --doc-stride 6", squad(&directory.path().join("d"), true));
    let files = ["model.safetensors", "predictions.json", "nbest_predictions.json", "null_odds.json"];
    ends_in_the_same_bits(&directory, |output, steps| line(&task, output, steps), &files);
}

#[test]
fn a_finished_run_is_told_again() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (cola(&directory.path().join("data")), at(&directory, "run"));
    let line = line(&format!("--task cola --data {data}"), &run, 20);
    let first = object(&tamt(&format!("{line} --json")).success());
    let weights = bytes(format!("{run}/model.safetensors"));
    let again = tamt(&format!("{line} --json --resume")).success().stderr(contains("this run has finished"));
    assert_eq!(object(&again), first);
    assert_eq!(bytes(format!("{run}/model.safetensors")), weights);
}

#[test]
fn several_seeds_go_on_where_they_were_killed() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let line =
        |output: &str, steps| format!("{} --seeds 7,3", line(&format!("--task cola --data {data}"), output, steps));
    let (killed, steps) = long_enough(STEPS, |steps| {
        let killed = at(&directory, format!("killed-{steps}"));
        // What many steps say is more than a pipe holds.
        let line = format!("{} --save-every 15 --quiet", line(&killed, steps));
        is_killed_at(&line, &format!("{killed}/seed-3"), 30).then_some((killed, steps))
    });
    assert!(Path::new(&killed).join("seed-7/eval_results.json").exists());
    assert!(!Path::new(&killed).join("eval_results.json").exists());

    let result = object(&tamt(&format!("{} --json --resume", line(&killed, steps))).success());
    let whole = at(&directory, "whole");
    let expected = object(&tamt(&format!("{} --json", line(&whole, steps))).success());
    let measured = |result: &serde_json::Map<String, Value>, key: &str| {
        let mut values = result[key].as_object().unwrap().clone();
        values.remove("seconds");
        values
    };
    assert_eq!(measured(&result, "mean"), measured(&expected, "mean"));
    assert_eq!(measured(&result, "std"), measured(&expected, "std"));
    for seed in ["seed-7", "seed-3"] {
        same(&format!("{whole}/{seed}"), &format!("{killed}/{seed}"), &["model.safetensors", "predictions.tsv"]);
    }
}

#[test]
fn other_settings_or_other_data_are_refused_on_resume_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (cola(&directory.path().join("data")), at(&directory, "run"));
    let line = line(&format!("--task cola --data {data}"), &run, 8);
    tamt(&line).success();
    tamt(&line).code(1).stderr(contains("already holds a run").and(contains("hint: give --resume")));
    tamt(&format!("{line} --resume --seed 7 --train-examples 9"))
        .code(1)
        .stderr(contains("seed is 42 there and 7 here").and(contains("train-examples is unset there and 9 here")));
    // Checkpoints and threads have no effect on the result.
    tamt(&format!("{line} --resume --threads 1 --save-every 3")).success();
    let dev = fs::read_to_string(format!("{data}/dev.tsv")).unwrap();
    fs::write(format!("{data}/dev.tsv"), format!("{dev}made\t1\t\tlis lordil\n")).unwrap();
    tamt(&format!("{line} --resume")).code(1).stderr(contains("dev-sha256 is "));
}
