//! Flags of runs, which all verbs that train share: their length, log, checkpoints, evaluations and output.

use serde_json::Value;

use crate::compare::{Shows, differ, with};
use crate::run::outcome;

/// `file` is a file of a finished run.
#[track_caller]
pub(crate) fn output_dir(line: &str, file: &str) {
    let outcomes = differ(&[], line, &["--output-dir elsewhere/deep"], Shows::Names);
    let names = outcomes[1].names();
    assert!(names.iter().all(|name| name.starts_with("elsewhere/deep/")), "{names:?}");
    assert!(names.contains(&format!("elsewhere/deep/{file}").as_str()), "{names:?}");
}

#[track_caller]
pub(crate) fn max_steps(line: &str) {
    let outcomes = differ(&[], line, &["--max-steps 3"], Shows::Result("steps"));
    assert_eq!(outcomes[1].result("steps"), 3);
    assert_eq!(outcomes[1].log("loss").len(), 3);
}

/// Half of the sequences have half of the tokens.
#[track_caller]
pub(crate) fn batch_size(line: &str) {
    let outcomes = differ(&[], line, &["--batch-size 2"], Shows::Log("loss"));
    let [all, half] = [0, 1].map(|i| outcomes[i].state("num_input_tokens_seen"));
    assert_eq!(all, 2 * half);
}

#[track_caller]
pub(crate) fn eval_corpus(line: &str) {
    let outcomes =
        differ(&[], line, &["--eval-corpus short.txt", "--eval-corpus other.txt"], Shows::Result("mlm_loss"));
    assert!(outcomes[0].result("mlm_loss").is_null());
    // Evaluating does not change the training.
    assert_eq!(outcomes[0].log("loss"), outcomes[1].log("loss"));
}

#[track_caller]
pub(crate) fn eval_every(line: &str, metric: &'static str) {
    let outcomes = differ(&[], line, &["--eval-every 1", "--eval-every 2"], Shows::Log(metric));
    let counts = [0, 1, 2].map(|i| outcomes[i].log(metric).len());
    assert_eq!(counts, [1, 4, 2]);
}

/// Without a checkpoint at the last step, the checkpoint of the third step is the only one.
#[track_caller]
pub(crate) fn save_every(line: &str) {
    let outcomes = differ(&[], line, &["--save-every 3", "--save-every 1"], Shows::Names);
    let saved = |i: usize, step: u64| {
        outcomes[i].names().iter().any(|name| name.starts_with(&format!("run/checkpoint-{step}/")))
    };
    assert_eq!([1, 2, 3].map(|step| saved(0, step)), [false; 3]);
    assert_eq!([1, 2, 3].map(|step| saved(1, step)), [false, false, true]);
    assert_eq!([1, 2, 3].map(|step| saved(2, step)), [true; 3]);
}

/// A run that fails names its last checkpoint. A step takes longer than 60 ns.
#[track_caller]
pub(crate) fn save_minutes(line: &str) {
    let line = with(line, "--learning-rate 1e38");
    let outcomes = differ(&[], &line, &["--save-minutes 1e-9"], Shows::Said("no checkpoint was saved before it"));
    let said = &outcomes[1].stderr;
    assert!(said.contains("the last good checkpoint is run/checkpoint-"), "{said}");
}

#[track_caller]
pub(crate) fn logging_steps(line: &str) {
    let outcomes = differ(&[], line, &["--logging-steps 2"], Shows::Log("loss"));
    assert_eq!([0, 1].map(|i| outcomes[i].log("loss").len()), [4, 2]);
}

#[track_caller]
pub(crate) fn resume(line: &str) {
    let outcomes = differ(&[line], line, &["--resume"], Shows::Code);
    assert_eq!((outcomes[0].code, outcomes[1].code), (1, 0));
    assert!(outcomes[0].says("hint: give --resume") && outcomes[1].says("this run has finished"));
}

#[track_caller]
pub(crate) fn json(line: &str) {
    let outcomes = differ(&[], line, &["--json"], Shows::Said("\"seconds\":"));
    let result: Value = serde_json::from_str(&outcomes[1].stdout).unwrap();
    assert_eq!(result["steps"], 4);
}

/// `headline` begins what a run prints ahead of its result.
#[track_caller]
pub(crate) fn quiet(line: &str, headline: &'static str) {
    let outcomes = differ(&[], line, &["--quiet"], Shows::Said(headline));
    assert!(outcomes[1].stdout.contains("4 steps in") && outcomes[1].stderr.is_empty(), "{:?}", outcomes[1]);
}

/// The record holds the number of threads that the pool has, whatever the flag.
#[track_caller]
pub(crate) fn threads(line: &str) {
    let of_pool = [3, 5].map(|threads| {
        let outcome = outcome(&[&with(line, &format!("--threads {threads}"))], 0);
        outcome.record()["threads"].as_integer()
    });
    assert_eq!(of_pool, [Some(3), Some(5)]);
}

#[track_caller]
pub(crate) fn config(line: &str) {
    let outcomes = differ(&[], line, &["--config seed.toml", "--seed 8"], Shows::Log("loss"));
    let typed = outcome(&[&with(line, "--seed 7")], 0);
    assert_eq!(outcomes[1].log("loss"), typed.log("loss"));
}
