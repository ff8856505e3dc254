//! The demonstration: a plan that ends with a report, through any kill.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use predicates::str::contains;
use serde_json::{Map, Value, json};

use crate::common::{at, object, start, tamt};
use crate::study_plans::runs;

fn line(output: &str) -> String {
    format!("demo --tiny --output-dir {output} --threads 2")
}

/// What does not depend on the place of the output.
fn numbers(result: &Map<String, Value>) -> Value {
    json!([result["base"], result["results"], result["order"], result["runs"], result["seed"]])
}

#[test]
fn a_demonstration_ends_with_a_report_and_the_same_command_touches_no_run() {
    let directory = tempfile::tempdir().unwrap();
    let output = at(&directory, "demo");
    let first = object(&tamt(&format!("{} --json --quiet", line(&output))).success());
    let page = fs::read_to_string(first["report"].as_str().unwrap()).unwrap();
    for text in ["tamt-mlm", "CoLA", "SQuAD", "SST-2"] {
        assert!(page.contains(text), "{text}");
    }
    // Five tickets; their losses and scores on three tasks, and those of the dense model.
    let study = format!("{output}/study");
    let expected = [("tickets/", 5), ("losses/", 6), ("tasks/", 18)];
    for (kind, count) in expected {
        assert_eq!(runs(&study).iter().filter(|name| name.starts_with(kind)).count(), count, "{kind}");
    }
    let order = first["order"].as_array().unwrap();
    assert!(
        order.iter().all(|step| step["pairs"] == 1 && step["outcome"] == "open"),
        "one pair shows nothing: {order:?}"
    );

    let again = object(&tamt(&format!("{} --json --quiet", line(&output))).success());
    assert_eq!(first, again);
    let plan = format!("{output}/plan.toml");
    tamt(&format!("study {plan} --output-dir {study}")).success().stdout(contains("29 of 29 runs are done"));
    // A reader who adds a sparsity to the plan gets the runs of that sparsity.
    let text = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, text.replace("sparsities = [0.8]", "sparsities = [0.7, 0.8]")).unwrap();
    let longer = object(&tamt(&format!("{} --json --quiet", line(&output))).success());
    // Four searches, since one of iterative pruning passes through both sparsities; their losses and scores.
    assert_eq!(longer["runs"], 29 + 4 + 5 + 15);
    tamt(&format!("{} --seed 7", line(&output))).failure().stderr(contains("seed is 42 there and 7 here"));
}

#[test]
fn a_demonstration_that_is_killed_goes_on_to_the_same_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let whole = object(&tamt(&format!("{} --json --quiet", line(&at(&directory, "whole")))).success());
    let output = at(&directory, "parts");
    for milliseconds in [30, 150, 400, 900, 1500] {
        let mut child = start(&line(&output));
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let parts = object(&tamt(&format!("{} --resume --json --quiet", line(&output))).success());
    assert_eq!(numbers(&parts), numbers(&whole));
    assert!(Path::new(&output).join("report/report.html").is_file());
}
