//! The demonstration: a plan that ends with a report, through any kill.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Map, Value, json};

use crate::common::{Seen, at, bytes, files, object, start, tamt};
use crate::study_plans::runs;

fn line(output: &str) -> String {
    format!("demo --tiny --output-dir {output} --threads 2")
}

/// The page of a demonstration's report.
fn page_of(output: &str) -> String {
    format!("{output}/report/report.html")
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
    assert!(!order.is_empty());
    assert!(
        order.iter().all(|step| step["pairs"] == 1 && step["outcome"] == "open"),
        "one pair shows nothing: {order:?}"
    );

    let again = object(&tamt(&format!("{} --json --quiet", line(&output))).success());
    assert_eq!(first, again);
    // The same for a reader: the order of scores in a sentence, and the table of methods.
    tamt(&line(&output))
        .success()
        .stdout(contains("* At 80 % the scores do not tell apart"))
        .stdout(contains("magnitude").and(contains("random")).and(contains(page_of(&output))));
    // On every processor, so that the numbers are those of the README.
    let record = fs::read_to_string(format!("{output}/config.toml")).unwrap();
    assert!(record.contains("precision = \"f32\""), "{record}");
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

/// Kills a demonstration, begins it again and kills it again, each time when there are so many more files and directories
/// below `output`. False if it ended ahead of a kill.
fn is_killed_often(output: &str, moments: &[u64]) -> bool {
    let mut seen = Seen::default();
    for moment in moments {
        let mut child = start(&format!("{} --quiet", line(output)));
        let moment = seen.look(Path::new(output)) + moment;
        while seen.look(Path::new(output)) < moment && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal() == Some(9) || status.success(), "{status}");
        if status.success() {
            return false;
        }
    }
    true
}

#[test]
fn a_demonstration_that_is_killed_goes_on_to_the_same_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let whole = at(&directory, "whole");
    let expected = object(&tamt(&format!("{} --json --quiet", line(&whole))).success());
    let total = Seen::default().look(Path::new(&whole));
    // At the first file, at the second, and in each of four parts; where a part went by unseen, in parts of less.
    let killed = (6..14).find_map(|share| {
        let output = at(&directory, format!("parts-{share}"));
        let part = total / share;
        is_killed_often(&output, &[1, 1, part, part, part, part]).then_some(output)
    });
    let output = killed.expect("no demonstration was killed six times");
    let parts = object(&tamt(&format!("{} --resume --json --quiet", line(&output))).success());
    assert_eq!(numbers(&parts), numbers(&expected));
    assert!(Path::new(&output).join("report/report.html").is_file());
}

#[test]
fn a_language_is_not_written_over_files_of_others() {
    let directory = tempfile::tempdir().unwrap();
    for (i, name) in ["train.txt", "tokenizer/vocab.txt", "tasks/RTE/dev.tsv"].into_iter().enumerate() {
        let output = at(&directory, i.to_string());
        let path = Path::new(&output).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "a text of somebody else\n").unwrap();
        for flag in ["--data-only", "--output-dir"] {
            tamt(&format!("demo --tiny {flag} {output}"))
                .code(1)
                .stderr(contains(format!("{} is there with another content;", path.display())));
            assert_eq!(bytes(&path), b"a text of somebody else\n");
            assert_eq!(files(Path::new(&output)).len(), 1, "{name} {flag}");
        }
    }
    let output = at(&directory, "language");
    let written = || {
        tamt(&format!("demo --tiny --data-only {output} --quiet")).success();
        files(Path::new(&output)).into_iter().map(|(name, path)| (name, bytes(path))).collect::<Vec<_>>()
    };
    let first = written();
    assert!(first.len() > 20, "{}", first.len());
    assert!(first == written(), "the second call writes other bytes");
}
