//! The record of a run, its `config.toml`, as a source of flags: for a run like it, to go on, and to go on for longer.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::common::{
    at, bert, bytes, copy_files, corpus, long_enough, magnitude, record_of, stopped_at, tamt, tamt_in,
};
use crate::task_files::{cola, squad, with_pooler};

fn find(method: &str, output: &str, steps: u64) -> String {
    format!(
        "find --model {} --method {method} --sparsity 0.7 --corpus {} --output-dir {output} --max-steps {steps} \
         --batch-size 2 --block-size 12 --learning-rate 1e-3 --logging-steps 5",
        bert(),
        corpus()
    )
}

/// Runs with flags of every kind, all but the output directory.
fn runs(directory: &tempfile::TempDir) -> Vec<String> {
    let (model, text) = (bert(), corpus());
    let pooled = with_pooler(&model, &directory.path().join("pooled"));
    let ticket = magnitude(&pooled, 0.5, &at(directory, "ticket"));
    let (cola, squad) = (cola(&directory.path().join("cola")), squad(&directory.path().join("squad"), true));
    let common =
        format!("--model {model} --corpus {text} --batch-size 2 --block-size 12 --precision f32 --kernel dense");
    vec![
        format!(
            "find {common} --method tamt-mlm-kd --sparsity 0.3 --max-steps 3 --layers 0,1 --scope global --eval-every 2 \
             --eval-corpus {text} --rethreshold-every 0 --score-init double-uniform --init random --threshold 0.02 \
             --kd-weight 0.15 --kd-representation cls --kd-distance mse --kd-attention --kd-relation token \
             --kd-relation-layers last-layer --mlm-probability 0.2 --dropout 0 --seed 7 --optimizer bert-adam \
             --learning-rate 0.0003 --lr-schedule cosine --lr-horizon-steps 9 --warmup-steps 1 --weight-decay 0.1 \
             --adam-epsilon 1e-7 --clip per-tensor --max-grad-norm 0.7 --save-minutes 3 --freeze-head"
        ),
        format!(
            "find {common} --method tamt-kd --sparsity 0.5 --max-steps 2 --binarizer sign --score-init uniform \
             --init-scale 0.05 --save-every 1"
        ),
        format!("find {common} --method imp --sparsity 0.3 --steps-per-round 2 --rewind none --save-every 0"),
        format!("find {common} --method imp --sparsity 0.3 --max-steps 4 --preset paper"),
        format!("find {common} --method tamt-kd --sparsity 0.45 --max-steps 4 --preset short"),
        format!("find --model {model} --method random --sparsity 0.25 --seed 3"),
        format!("find --model {model} --method magnitude --sparsity 0.5 --preset short"),
        format!("find --model {model} --method magnitude --sparsity 0.5 --preset short --eval-corpus {text}"),
        format!("find --model {model} --method magnitude --sparsity 0.5 --eval-corpus {text} --block-size 16"),
        format!(
            "pretrain --new {model}/config.json --tokenizer {model} --corpus {text} --max-steps 20 --block-size 12"
        ),
        format!("pretrain {common} --train head --max-steps 3 --warmup-steps 2").replace(" --kernel dense", ""),
        format!(
            "tune --model {model} --task cola --data {cola} --max-steps 3 --batch-size 4 --seeds 3,4 --keep final \
             --train-examples 9 --eval-every 2 --early-stopping 3 --predict-test --dropout 0.2 --max-length 14"
        ),
        format!(
            "tune --model {model} --task squad2 --data {squad} --epochs 0.5 --max-length 24 --doc-stride 6 --n-best 3 \
             --max-query-length 9 --max-answer-length 4 --null-threshold 0.5 --new-head"
        ),
        format!(
            "tune --model {pooled} --ticket {ticket} --dense-pooler --task cola --data {cola} --max-steps 2 \
             --seeds 3,4 --batch-size 4"
        ),
    ]
}

#[test]
fn the_record_of_a_run_is_a_configuration_file_for_a_run_like_it() {
    let directory = tempfile::tempdir().unwrap();
    for (i, line) in runs(&directory).into_iter().enumerate() {
        let (first, second) = (at(&directory, format!("{i}-first")), at(&directory, format!("{i}-second")));
        tamt(&format!("{line} --output-dir {first}")).success();
        let verb = line.split_once(' ').unwrap().0;
        tamt(&format!("{verb} --config {first}/config.toml --output-dir {second}"))
            .success()
            .stdout(contains("no effect").not());
        assert_eq!(record_of(&first), record_of(&second), "{line}");
        // The same settings are those of the same run.
        tamt(&format!("{verb} --output-dir {first} --resume")).success();
    }
}

#[test]
fn the_record_of_another_verb_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    tamt(&find("magnitude", &run, 1)).success();
    tamt(&format!("pretrain --config {run}/config.toml --output-dir {}", at(&directory, "other")))
        .code(2)
        .stderr(contains("it records a `tamt find`, and this is `tamt pretrain`"));
}

/// The command line of a run by its output directory and its steps.
type Line<'a> = dyn Fn(&str, u64) -> String + 'a;

#[test]
fn a_directory_and_resume_are_enough_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let pretrain = |output: &str, steps: u64| {
        format!(
            "pretrain --new {}/config.json --tokenizer {0} --corpus {} --output-dir {output} --max-steps {steps} \
             --batch-size 2 --block-size 12",
            bert(),
            corpus()
        )
    };
    let tune = |output: &str, steps: u64| {
        format!(
            "tune --model {} --task cola --data {data} --output-dir {output} --max-steps {steps} --batch-size 4 \
             --eval-every 25",
            bert()
        )
    };
    let kinds: [(&str, &Line<'_>); 3] = [
        ("ticket.safetensors", &|output, steps| find("tamt-mlm", output, steps)),
        ("model.safetensors", &pretrain),
        ("model.safetensors", &tune),
    ];
    for (i, (file, line)) in kinds.into_iter().enumerate() {
        let (stopped, steps) = long_enough(400, |steps| {
            let stopped = at(&directory, format!("{i}-stopped-{steps}"));
            let line = format!("{} --save-every 15", line(&stopped, steps));
            stopped_at(&line, &stopped, 30, ("INT", 130)).map(|_| (stopped, steps))
        });
        let whole = at(&directory, format!("{i}-whole"));
        tamt(&line(&whole, steps)).success();
        let verb = line("", 1).split_once(' ').unwrap().0.to_owned();
        tamt(&format!("{verb} --output-dir {stopped} --resume --seed 7")).code(1).stderr(contains("seed is 42 there"));
        tamt(&format!("{verb} --output-dir {stopped} --resume")).success().stderr(contains("resuming from"));
        assert_eq!(bytes(format!("{whole}/{file}")), bytes(format!("{stopped}/{file}")), "{verb}");
    }
}

#[test]
fn a_resumed_run_without_a_checkpoint_says_that_it_starts() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let line = find("tamt-kd", &run, 5);
    tamt(&format!("{line} --resume")).success().stderr(contains("holds no run: a new one begins"));
    fs::remove_file(format!("{run}/eval_results.json")).unwrap();
    tamt(&format!("find --output-dir {run} --resume"))
        .success()
        .stderr(contains("holds no checkpoint: the run starts over"));
}

#[test]
fn a_run_becomes_longer_where_the_learning_rates_allow_it() {
    let directory = tempfile::tempdir().unwrap();
    for (i, schedule) in ["--lr-schedule constant", "--lr-horizon-steps 90"].into_iter().enumerate() {
        let [long, short] = ["long", "short"].map(|name| at(&directory, format!("{i}-{name}")));
        tamt(&format!("{} {schedule}", find("tamt-mlm-kd", &long, 40))).success();
        tamt(&format!("{} {schedule}", find("tamt-mlm-kd", &short, 15))).success();
        tamt(&format!("find --output-dir {short} --resume --max-steps 40"))
            .success()
            .stderr(contains("max-steps 40 instead of 15").and(contains("checkpoint-15")));
        for file in ["ticket.safetensors", "mlm_head.safetensors"] {
            assert_eq!(bytes(format!("{long}/{file}")), bytes(format!("{short}/{file}")), "{schedule}: {file}");
        }
        tamt(&format!("find --output-dir {short} --resume --max-steps 20")).code(1).stderr(contains("not shorter"));
    }
    let data = cola(&directory.path().join("data"));
    let tune = |output: &str, epochs: u64| {
        format!(
            "tune --model {} --task cola --data {data} --output-dir {output} --epochs {epochs} --batch-size 4 \
             --eval-every 5 --lr-schedule constant --seeds 1,2",
            bert()
        )
    };
    let [long, short] = ["tune-long", "tune-short"].map(|name| at(&directory, name));
    tamt(&tune(&long, 3)).success();
    tamt(&tune(&short, 1)).success();
    tamt(&tune(&short, 3)).code(1);
    tamt(&format!("{} --resume", tune(&short, 3))).success().stderr(contains("epochs 3.0 instead of 1.0"));
    for seed in ["seed-1", "seed-2"] {
        let file = format!("{seed}/model.safetensors");
        assert_eq!(bytes(format!("{long}/{file}")), bytes(format!("{short}/{file}")), "{file}");
    }
}

#[test]
fn a_run_whose_learning_rates_would_have_been_others_stays_as_long_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    tamt(&find("tamt-kd", &run, 9)).success();
    let ticket = bytes(format!("{run}/ticket.safetensors"));
    tamt(&format!("find --output-dir {run} --resume --max-steps 20"))
        .code(1)
        .stderr(contains("max-steps is 9 there and 20 here").and(contains("would change its learning rates")));
    assert_eq!(bytes(format!("{run}/ticket.safetensors")), ticket);
    tamt(&format!("find --output-dir {run} --resume")).success().stderr(contains("resuming").not());
}

/// `tests/fixtures/run-0.1.0` is what version 0.1.0 left when it was killed after its checkpoint of step 45, in the
/// folder of the repository:
///
/// ```text
/// tamt find --model tests/golden/bert --method tamt-mlm-kd --sparsity 0.7 --corpus tests/golden/corpus.txt \
///   --output-dir run --max-steps 60 --batch-size 2 --block-size 12 --learning-rate 1e-3 --rethreshold-every 7 \
///   --logging-steps 10 --save-every 15 --precision f32 --kernel dense --threads 1
/// ```
#[test]
fn a_run_that_an_earlier_version_began_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (fixture, run) = (root.join("tests/fixtures/run-0.1.0"), directory.path().join("run"));
    copy_files(&fixture, &run);
    copy_files(fixture.join("checkpoint-45"), &run.join("checkpoint-45"));
    let line = format!("find --output-dir {} --resume", run.display());
    let resume = || tamt_in(root.join("../.."), &line);
    resume()
        .success()
        .stderr(contains("version 0.1.0 began this run").and(contains("resuming from").and(contains("checkpoint-45"))));
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    let steps = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].take());
    assert_eq!(steps.collect::<Vec<_>>(), [10, 20, 30, 40, 50, 60]);
    tamt(&format!("inspect {}", run.display())).success().stdout(contains("for 60 steps"));
    resume().success().stdout(contains("this run has finished"));
}
