//! Measurements of speed: the measured operations, not their times.

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use serde_json::Value;

use crate::common::{at, bert, magnitude, object, tamt};

const SHAPE: &str = "--layers 1 --hidden 16 --heads 2 --vocab 50 --batch-size 2 --length 8 --steps 2";

#[test]
fn every_kind_of_step_is_timed_with_every_kernel_and_sparsity() {
    let report = object(&tamt(&format!("bench {SHAPE} --sparsity 0.5,0.9 --json --quiet")).success());
    let steps = report["steps"].as_array().unwrap();
    // Three kinds of steps, each dense once and sparse twice.
    assert_eq!(steps.len(), 9);
    for work in ["mask training", "fine-tuning", "inference"] {
        let variants: Vec<(&str, f64)> = steps
            .iter()
            .filter(|step| step["name"] == work)
            .map(|step| (step["kernel"].as_str().unwrap(), step["sparsity"].as_f64().unwrap()))
            .collect();
        assert_eq!(variants, [("dense", 0.5), ("sparse", 0.5), ("sparse", 0.9)]);
    }
    let operations = report["operations"].as_array().unwrap();
    for timing in steps.iter().chain(operations) {
        assert!(timing["median_seconds"].as_f64().unwrap() > 0.0, "{timing}");
        let is_product =
            ["linear", "decoder", "attention"].iter().any(|p| timing["name"].as_str().unwrap().starts_with(p));
        let is_loss = timing["name"].as_str().unwrap().ends_with("cross-entropy");
        assert_eq!(timing.get("gflops").is_some(), steps.contains(timing) || is_product && !is_loss, "{timing}");
    }
    assert!(steps.iter().all(|step| step["seconds"].as_array().unwrap().len() == 2));
    assert!(report["peak_gflops"].as_f64().unwrap() > 0.1);
    assert!((0.0..=1.0).contains(&report["sparse_up_to"].as_f64().unwrap()));
}

#[test]
fn one_step_as_a_run_would_do_it_is_timed_alone() {
    let line = format!("bench {SHAPE} --work inference --sparsity 0.7 --kernel auto --no-operations --precision bf16");
    let report = object(&tamt(&format!("{line} --json --quiet")).success());
    assert_eq!((report["steps"].as_array().unwrap().len(), &report["steps"][0]["kernel"]), (1, &Value::from("auto")));
    assert_eq!((&report["operations"], &report["peak_gflops"]), (&Value::Array(Vec::new()), &Value::Null));
    assert_eq!(report["precision"], "bf16");
    tamt(&line).success().stdout(contains("inference  auto         0.7"));
}

#[test]
fn shapes_that_no_encoder_has_are_refused() {
    tamt("bench --hidden 16 --heads 3")
        .code(2)
        .stdout(is_empty())
        .stderr(contains("--hidden: it is 16, not divisible by 3 attention heads"));
    tamt("bench --length 100000000")
        .code(2)
        .stdout(is_empty())
        .stderr(contains("--length: it is 100000000, which with the other sizes makes more than"));
    tamt("bench --hidden 60000 --heads 100")
        .code(2)
        .stdout(is_empty())
        .stderr(contains("--hidden: four times it, the inner size of the FFN, is 240000, which"));
    tamt("bench --layers 2000").code(2).stdout(is_empty()).stderr(contains("--layers: it is 2000, more than 1024"));
    tamt("bench --batch-size 1000000000000")
        .code(2)
        .stdout(is_empty())
        .stderr(contains("--batch-size: the hidden states of 1000000000000 sequences of 128 tokens take"));
    tamt("bench --layers 0").code(2).stdout(is_empty()).stderr(contains("--layers"));
    tamt("bench --sparsity 1.5").code(2).stdout(is_empty()).stderr(contains("--sparsity"));
}

#[test]
fn whole_steps_of_a_model_and_its_ticket_are_timed() {
    let directory = tempfile::tempdir().unwrap();
    let run = magnitude(&bert(), 0.6, &at(&directory, "run"));
    let line = format!("bench --model {} --ticket {run} --batch-size 2 --steps 2", bert());
    let report = object(&tamt(&format!("{line} --json --quiet")).success());
    // The golden model has 40 positions, fewer than the 128 tokens of the default.
    assert_eq!((&report["layers"], &report["hidden"], &report["length"]), (&2.into(), &16.into(), &40.into()));
    assert_eq!((&report["model"], &report["with_ticket"]), (&bert().into(), &true.into()));
    assert_eq!(report["operations"], Value::Array(Vec::new()));
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 6);
    // Of each matrix floor(0.6 n) weights: 921 of 1,536, and 2 x (4 x 153 + 2 x 307) of 4,096.
    assert!(steps.iter().all(|step| step["sparsity"] == (921 + 2452) as f64 / 5632.0), "{steps:?}");
    tamt(&line).success().stdout(contains("2 layers of width 16, 2 x 40 tokens").and(contains(bert())));
    tamt(&format!("bench --model {} --work inference --sparsity 0.5", bert())).success();

    tamt(&format!("bench --ticket {run}")).code(2).stderr(contains("--model <MODEL>"));
    tamt(&format!("{line} --hidden 32")).code(2).stderr(contains("--hidden"));
    tamt(&format!("{line} --sparsity 0.5")).code(2).stderr(contains("--sparsity"));
}
