//! Runs that are killed, stopped or refused, and runs that resume.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use serde_json::Value;

use crate::common::{
    at, bert, bytes, copy_of_bert, corpus, is_killed_at, json_file, log_of, long_enough, object, start, stderr,
    stopped_at, tamt, wait_for_step,
};

/// Long enough to be interrupted on most machines, short enough for a test.
const STEPS: u64 = 600;

/// No machine comes to the end of so many.
const ENDLESS: u64 = 100_000_000;

fn line(method: &str, output: &str, steps: u64) -> String {
    format!(
        "find --model {} --method {method} --sparsity 0.7 --corpus {} --output-dir {output} --max-steps {steps} \
         --batch-size 2 --block-size 12 --learning-rate 1e-3 --rethreshold-every 7 --logging-steps 50",
        bert(),
        corpus()
    )
}

fn pretraining(output: &str, steps: u64) -> String {
    format!(
        "pretrain --new {}/config.json --tokenizer {0} --corpus {} --output-dir {output} --max-steps {steps} \
         --batch-size 2 --block-size 12 --logging-steps 50",
        bert(),
        corpus()
    )
}

#[test]
fn a_run_that_was_killed_ends_as_one_that_was_not() {
    let directory = tempfile::tempdir().unwrap();
    for (method, files) in [
        ("tamt-mlm-kd", &["ticket.safetensors", "mlm_head.safetensors"][..]),
        ("imp", &["ticket.safetensors", "sparsity-0.3/ticket.safetensors", "sparsity-0.7/ticket.safetensors"]),
    ] {
        let (killed, steps) = long_enough(STEPS, |steps| {
            let killed = at(&directory, format!("{method}-killed-{steps}"));
            is_killed_at(&format!("{} --save-every 15", line(method, &killed, steps)), &killed, 150)
                .then_some((killed, steps))
        });
        tamt(&format!("{} --resume", line(method, &killed, steps)))
            .success()
            .stderr(contains("resuming from").and(contains("checkpoint-")));

        let whole = at(&directory, format!("{method}-whole"));
        tamt(&format!("{} --threads 1", line(method, &whole, steps))).success();
        for file in files {
            assert_eq!(bytes(format!("{whole}/{file}")), bytes(format!("{killed}/{file}")), "{method}: {file}");
        }
        assert_eq!(log_of(&whole), log_of(&killed), "{method}");
        // The time of a resumed run is that of all its parts, as in its log.
        let result = json_file(format!("{killed}/eval_results.json"));
        let logged = fs::read_to_string(format!("{killed}/log.jsonl")).unwrap();
        let last: Value = serde_json::from_str(logged.lines().last().unwrap()).unwrap();
        let seconds = |value: &Value| value["seconds"].as_f64().unwrap();
        assert!(seconds(&result) >= seconds(&last), "{method}: {result} {last}");
    }
}

#[test]
fn a_signal_saves_a_checkpoint_and_the_printed_command_goes_on_from_it() {
    let directory = tempfile::tempdir().unwrap();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let (run, steps, said) = long_enough(STEPS, |steps| {
            let run = at(&directory, format!("{name}-{steps}"));
            let line = format!("{} --save-every 15", line("tamt-mlm", &run, steps));
            stopped_at(&line, &run, 30, (name, code)).map(|said| (run, steps, said))
        });
        let saved = said.lines().find_map(|line| line.split_once("; saved ")).expect(&said).1;
        assert!(
            saved.starts_with(&format!("{run}/checkpoint-")) && Path::new(saved).join("state.safetensors").is_file()
        );
        let command = said.lines().find_map(|line| line.strip_prefix("hint: to go on: ")).expect(&said);
        let (binary, arguments) = command.split_once(' ').unwrap();
        let line = line("tamt-mlm", &run, steps);
        assert!(binary.ends_with("tamt") && arguments == format!("{line} --save-every 15 --resume"), "{command}");
        tamt(arguments).success();

        let whole = at(&directory, format!("{name}-whole"));
        tamt(&format!("{} --threads 1", line.replace(&run, &whole))).success();
        assert_eq!(bytes(format!("{whole}/ticket.safetensors")), bytes(format!("{run}/ticket.safetensors")));
    }
}

#[test]
fn pretraining_stopped_and_resumed_ends_in_the_same_weights() {
    let directory = tempfile::tempdir().unwrap();
    let (stopped, steps) = long_enough(STEPS, |steps| {
        let stopped = at(&directory, format!("stopped-{steps}"));
        let line = format!("{} --save-every 15", pretraining(&stopped, steps));
        stopped_at(&line, &stopped, 30, ("TERM", 143)).map(|_| (stopped, steps))
    });
    tamt(&format!("{} --resume", pretraining(&stopped, steps))).success();
    let whole = at(&directory, "whole");
    tamt(&format!("{} --threads 1", pretraining(&whole, steps))).success();
    assert_eq!(bytes(format!("{whole}/model.safetensors")), bytes(format!("{stopped}/model.safetensors")));
}

#[test]
fn an_occupied_directory_is_refused_before_anything_is_read_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let magnitude = format!("find --model {} --method magnitude --sparsity 0.5 --output-dir {run}", bert());
    tamt(&magnitude).success();
    let ticket = bytes(format!("{run}/ticket.safetensors"));
    for again in
        [magnitude.clone(), format!("find --model ./no-such-model --method random --sparsity 0.9 --output-dir {run}")]
    {
        tamt(&again)
            .code(1)
            .stdout(is_empty())
            .stderr(contains("already holds a run").and(contains("hint: give --resume")));
    }
    assert_eq!(bytes(format!("{run}/ticket.safetensors")), ticket);
}

#[test]
fn a_finished_run_is_told_again() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let line = line("tamt-kd", &run, 20);
    let first = object(&tamt(&format!("{line} --eval-corpus {} --json", corpus())).success());
    let ticket = bytes(format!("{run}/ticket.safetensors"));
    let again = tamt(&format!("{line} --eval-corpus {} --json --resume", corpus())).success();
    assert_eq!(object(&again), first);
    assert!(stderr(&again).contains("this run has finished"));
    assert_eq!(bytes(format!("{run}/ticket.safetensors")), ticket);
}

#[test]
fn other_settings_or_other_data_are_refused_on_resume_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let (run, text, model) = (at(&directory, "run"), at(&directory, "text.txt"), directory.path().join("model"));
    fs::copy(corpus(), &text).unwrap();
    let model = copy_of_bert(&model);
    let line = line("tamt-mlm", &run, 20).replace(&corpus(), &text).replace(&bert(), &model);
    tamt(&line).success();

    tamt(&format!("{line} --resume --seed 7").replace("1e-3", "2e-3")).code(1).stderr(
        contains("seed is 42 there and 7 here")
            .and(contains("train.optimizer.learning-rate is 0.001 there and 0.002 here")),
    );
    // Another spelling of the same settings, and other threads, are no difference.
    let spelled = line.replace(&run, &format!("{run}/../run")).replace(&text, &at(&directory, "./text.txt"));
    tamt(&format!("{spelled} --resume --threads 1 --save-every 3")).success();

    fs::write(&text, fs::read_to_string(corpus()).unwrap() + "one more line\n").unwrap();
    tamt(&format!("{line} --resume")).code(1).stderr(contains("corpus-sha256 is "));
    fs::copy(corpus(), &text).unwrap();
    fs::write(format!("{model}/vocab.txt"), fs::read_to_string(bert() + "/vocab.txt").unwrap() + "more\n").unwrap();
    tamt(&format!("{line} --resume")).code(1).stderr(contains("tokenizer-sha256 is "));
}

#[test]
fn resuming_where_nothing_is_starts_and_where_a_strange_run_is_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    tamt(&format!("{} --resume", line("tamt-mlm", &run, 5))).success();
    fs::remove_file(format!("{run}/config.toml")).unwrap();
    tamt(&format!("{} --resume", line("tamt-mlm", &run, 5)))
        .code(1)
        .stderr(contains("no config.toml").and(contains("hint: give another --output-dir")));
}

#[test]
fn a_run_directory_that_vanishes_stops_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let mut child = start(&format!("{} --save-every 15", line("tamt-kd", &run, ENDLESS)));
    wait_for_step(&run, 30, &mut child);
    fs::rename(&run, at(&directory, "elsewhere")).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("error: {run} is gone"))
            || said.contains("error: cannot ") && said.contains(&run) && said.contains("caused by: No such file"),
        "{said}"
    );
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let line = line("tamt-kd", &run, ENDLESS);
    let mut child = start(&format!("{line} --save-every 15"));
    wait_for_step(&run, 15, &mut child);
    tamt(&format!("{line} --resume")).code(1).stderr(contains("is being written by another process"));
    child.kill().unwrap();
    child.wait().unwrap();
}
