//! Reports of runs that no study started.

use std::fs;
use std::path::Path;

use predicates::str::contains;
use serde_json::Value;

use crate::common::{at, bert, corpus, json_file, object, tamt};
use crate::task_files::cola;

/// Finds two tickets, and fine-tunes both and the dense model with two seeds.
fn runs(directory: &tempfile::TempDir) {
    let data = cola(&directory.path().join("CoLA"));
    let (model, text) = (bert(), corpus());
    for method in ["magnitude", "random"] {
        let output = at(directory, format!("runs/{method}"));
        tamt(&format!(
            "find --model {model} --method {method} --sparsity 0.5 --eval-corpus {text} --output-dir {output} --quiet"
        ))
        .success();
    }
    let course = "--learning-rate 5e-3 --batch-size 8 --max-steps 20 --seeds 1,2";
    for (name, ticket) in [("dense", None), ("magnitude", Some("magnitude")), ("random", Some("random"))] {
        let output = at(directory, format!("runs/cola-{name}"));
        let ticket =
            ticket.map_or(String::new(), |ticket| format!("--ticket {}", at(directory, format!("runs/{ticket}"))));
        tamt(&format!(
            "tune --model {model} {ticket} --task cola --data {data} {course} --output-dir {output} --quiet"
        ))
        .success();
    }
}

fn score(directory: &Path) -> f64 {
    100.0 * json_file(directory.join("eval_results.json"))["best_matthews_correlation"].as_f64().unwrap()
}

#[test]
fn plain_runs_have_a_report_with_scores_losses_and_masks() {
    let directory = tempfile::tempdir().unwrap();
    runs(&directory);
    let runs = at(&directory, "runs");
    let result = object(&tamt(&format!("report {runs} --json")).success());
    assert_eq!((&result["runs"], &result["left_out"]), (&8.into(), &Value::Array(vec![])));
    let page = fs::read_to_string(result["page"].as_str().unwrap()).unwrap();
    for section in ["scores", "winning", "sparsity", "masks", "transfer", "cost"] {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    let csv = fs::read_to_string(Path::new(&runs).join("report/tables/scores-50.csv")).unwrap();
    for method in ["dense", "magnitude", "random"] {
        let line = csv.lines().find(|line| line.starts_with(method)).unwrap();
        let shown: f64 = line.split(',').nth(1).unwrap().parse().unwrap();
        let of = |seed: u64| score(&Path::new(&runs).join(format!("cola-{method}/seed-{seed}")));
        assert!((shown - (of(1) + of(2)) / 2.0).abs() < 1e-9, "{line}");
    }
    // The report lies in the directory that it is a report of, and is no run; nor is what a demonstration says of itself.
    fs::write(Path::new(&runs).join("config.toml"), "verb = 'demo'\n").unwrap();
    let again = object(&tamt(&format!("report {runs} --json")).success());
    assert_eq!((&again["runs"], &again["left_out"]), (&8.into(), &Value::Array(vec![])));
}

#[test]
fn a_ticket_that_moved_is_known_by_its_digest_and_what_is_gone_or_damaged_is_named() {
    let directory = tempfile::tempdir().unwrap();
    runs(&directory);
    let moved = directory.path().join("runs/moved");
    fs::rename(directory.path().join("runs/magnitude"), &moved).unwrap();
    fs::remove_dir_all(directory.path().join("runs/random")).unwrap();
    fs::write(directory.path().join("runs/cola-dense/seed-1/config.toml"), "verb = ").unwrap();
    let output = at(&directory, "out");
    let result = object(&tamt(&format!("report {} --output-dir {output} --json", at(&directory, "runs"))).success());
    let left_out = result["left_out"].as_array().unwrap();
    let with = |reason: &str| left_out.iter().filter(|run| run["reason"].as_str().unwrap().contains(reason)).count();
    assert_eq!((&result["runs"], left_out.len()), (&4.into(), 3));
    assert_eq!((with("random cannot be read"), with("config.toml is damaged")), (2, 1), "{left_out:?}");
}

#[test]
fn a_directory_without_runs_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    tamt(&format!("report {path}")).failure().code(1).stderr(contains(format!("{path} holds no run")));
}
