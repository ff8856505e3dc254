//! Tests, verdicts and sums of a report, of scores that the test chooses.
//!
//! Expected p are those of Student's t with two degrees of freedom, `1 - |t| / sqrt(2 + t²)`, computed outside of the
//! project.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use tamt_report::report::{Report, report};

use crate::study::{Builder, DENSE, Of, Reader, set};

/// Accuracies of a task, a method and a sparsity with the seeds of fine-tuning 1, 2 and 3.
const SCORES: [(&str, &str, f64, [f64; 3]); 12] = [
    ("sst2", "dense", 0.0, [0.90, 0.91, 0.92]),
    ("rte", "dense", 0.0, [0.70, 0.72, 0.71]),
    ("sst2", "magnitude", 0.5, [0.897, 0.898, 0.899]),
    ("rte", "magnitude", 0.5, [0.705, 0.705, 0.706]),
    ("sst2", "tamt-mlm", 0.5, [0.90, 0.91, 0.915]),
    ("rte", "tamt-mlm", 0.5, [0.69, 0.70, 0.695]),
    ("sst2", "magnitude", 0.7, [0.80, 0.82, 0.81]),
    ("rte", "magnitude", 0.7, [0.60, 0.61, 0.63]),
    ("sst2", "tamt-mlm", 0.7, [0.902, 0.905, 0.908]),
    ("rte", "tamt-mlm", 0.7, [0.66, 0.68, 0.67]),
    ("sst2", "random", 0.7, [0.78, 0.80, 0.83]),
    ("rte", "random", 0.7, [0.55, 0.60, 0.56]),
];

fn study(root: &Path) -> Report {
    let mut study = Builder::new(root);
    let mut last = root.to_owned();
    for (task, method, sparsity, scores) in SCORES {
        let of = if method == "dense" { DENSE } else { Of::new(method, sparsity, 1) };
        for (seed, score) in (1..).zip(scores) {
            last = study.tune(&of, task, seed, 8000);
            set(&last, &[("best_accuracy", score)]);
        }
    }
    // The last run once more, in another directory.
    let again = last.with_file_name("again");
    fs::create_dir(&again).unwrap();
    for file in ["config.toml", "eval_results.json", "study-run.json"] {
        fs::copy(last.join(file), again.join(file)).unwrap();
    }
    report(&[root.to_owned()], &root.join("out"), &Reader).unwrap()
}

/// The rows of a table of the report, by the titles of its columns.
pub(crate) fn table(root: &Path, name: &str) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(root.join("out/tables").join(name)).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

pub(crate) fn row<'t>(rows: &'t [HashMap<String, String>], method: &str) -> &'t HashMap<String, String> {
    rows.iter().find(|row| row["method"] == method).unwrap_or_else(|| panic!("no {method} in {rows:?}"))
}

#[track_caller]
pub(crate) fn close(row: &HashMap<String, String>, column: &str, expected: f64) {
    let found: f64 = row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"));
    assert!((found - expected).abs() < 1e-9, "{column}: {found}, not {expected}");
}

#[test]
fn each_sparsity_has_its_own_scores_and_a_repeated_run_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let report = study(root);
    assert_eq!(report.study.left_out.len(), 1, "{:?}", report.study.left_out);
    let (half, most) = (table(root, "scores-50.csv"), table(root, "scores-70.csv"));
    assert_eq!(half.iter().map(|row| &row["method"]).collect::<Vec<_>>(), ["dense", "magnitude", "tamt-mlm"]);
    for (rows, method, sst2, rte) in [
        (&half, "dense", 91.0, 71.0),
        (&half, "magnitude", 89.8, 211.6 / 3.0),
        (&half, "tamt-mlm", 272.5 / 3.0, 69.5),
        (&most, "dense", 91.0, 71.0),
        (&most, "magnitude", 81.0, 184.0 / 3.0),
        (&most, "tamt-mlm", 90.5, 67.0),
        (&most, "random", 241.0 / 3.0, 57.0),
    ] {
        close(row(rows, method), "SST-2 (accuracy)", sst2);
        close(row(rows, method), "RTE (accuracy)", rte);
    }
}

#[test]
fn an_average_deviates_as_the_averages_of_its_seeds_do() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    let rows = table(directory.path(), "scores-70.csv");
    // numpy.std([78.1, 79.25, 78.9], ddof=1) and so on; the mean of the tasks' deviations is 0.65.
    for (method, mean, deviation) in [
        ("dense", 81.0, 0.866_025_403_784_439),
        ("tamt-mlm", 78.75, 0.589_491_306_127_584),
        ("magnitude", 213.5 / 3.0, 1.040_832_999_733_066),
        ("random", 206.0 / 3.0, 1.892_969_448_600_091),
    ] {
        close(row(&rows, method), "average (2 tasks)", mean);
        close(row(&rows, method), "average (2 tasks) deviation", deviation);
    }
}

#[test]
fn a_difference_beyond_noise_is_said_to_be_one() {
    let directory = tempfile::tempdir().unwrap();
    let report = study(directory.path());
    let order = "tamt-mlm > magnitude > random";
    assert!(report.findings.iter().any(|finding| finding.contains(order)), "{:?}", report.findings);
    let rows = table(directory.path(), "scores-70.csv");
    let clear = |method, column: &str| row(&rows, method)[&format!("{column} more than noise")].clone();
    // p 0.342 and 0.0033 on SST-2, 0.008 on average.
    assert_eq!(clear("tamt-mlm", "SST-2 (accuracy)"), "false");
    assert_eq!(clear("magnitude", "SST-2 (accuracy)"), "true");
    assert_eq!(clear("tamt-mlm", "average (2 tasks)"), "true");
}

#[test]
fn comparisons_have_both_ps_and_the_interval_of_the_paired_test() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    let rows = table(directory.path(), "comparisons.csv");
    let rows: Vec<_> = rows.iter().filter(|row| row["sparsity"] == "70 %").collect();
    let expected = [
        ("tamt-mlm", "magnitude", 22.75 / 3.0, "6.1 to 9.1", 0.002_200_180_316_690, 0.006_600_540_950_069),
        ("tamt-mlm", "random", 30.25 / 3.0, "6.8 to 13.4", 0.005_626_628_574_452, 0.011_253_257_148_905),
        ("magnitude", "random", 2.5, "0.0 to 5.0", 0.049_413_624_213_283, 0.049_413_624_213_283),
    ];
    // The mean of the differences on the two tasks, and 12.706 times half their distance.
    let over_tasks = ["−16.8 to 31.9", "9.0 to 11.1", "−20.8 to 25.8"];
    assert_eq!(rows.len(), expected.len());
    for ((row, over_tasks), (higher, lower, difference, interval, p, corrected)) in
        rows.into_iter().zip(over_tasks).zip(expected)
    {
        assert_eq!((row["higher"].as_str(), row["lower"].as_str()), (higher, lower));
        assert_eq!((row["95 % interval"].as_str(), row["pairs"].as_str()), (interval, "3"));
        close(row, "difference", difference);
        close(row, "p (t)", p);
        close(row, "p (t, Holm)", corrected);
        assert_eq!((row["higher on"].as_str(), row["95 % interval (tasks)"].as_str()), ("2 of 2", over_tasks));
        close(row, "p (tasks)", 0.5);
    }
}

#[test]
fn a_table_of_fewer_seeds_has_the_dense_model_with_these_seeds() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = Builder::new(root);
    for (seed, score) in (1..).zip([0.90, 0.91, 0.92]) {
        set(&study.tune(&DENSE, "sst2", seed, 8000), &[("best_accuracy", score)]);
        set(&study.tune(&Of::new("magnitude", 0.7, 1), "sst2", seed, 8000), &[("best_accuracy", 0.85)]);
    }
    for (method, score) in [("magnitude", 0.89), ("tamt-mlm", 0.905)] {
        set(&study.tune(&Of::new(method, 0.8, 1), "sst2", 1, 8000), &[("best_accuracy", score)]);
    }
    report(&[root.to_owned()], &root.join("out"), &Reader).unwrap();
    let (three, one) = (table(root, "scores-70.csv"), table(root, "scores-80.csv"));
    close(row(&three, "dense"), "SST-2 (accuracy)", 91.0);
    close(row(&one, "dense"), "SST-2 (accuracy)", 90.0);
    close(row(&one, "tamt-mlm"), "SST-2 (accuracy) difference to dense", 0.5);
    assert!(!row(&one, "tamt-mlm").contains_key("SST-2 (accuracy) more than noise"), "one pair has no test");
    let pairs = table(root, "comparisons.csv");
    assert_eq!((pairs[0]["pairs"].as_str(), pairs[0]["p (t)"].as_str()), ("1", ""));
}

#[test]
fn methods_that_are_no_neighbours_are_told_apart_too() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = Builder::new(root);
    for (method, scores) in
        [("tamt-mlm", [0.80, 0.82, 0.81]), ("imp", [0.79, 0.80, 0.815]), ("magnitude", [0.78, 0.78, 0.78])]
    {
        for (seed, score) in (1..).zip(scores) {
            set(&study.tune(&Of::new(method, 0.7, 1), "sst2", seed, 8000), &[("best_accuracy", score)]);
        }
    }
    let report = report(&[root.to_owned()], &root.join("out"), &Reader).unwrap();
    // p 0.37 (tamt-mlm and imp), 0.097 (imp and magnitude), 0.035 (tamt-mlm and magnitude).
    let finding = &report.findings[0];
    assert!(finding.starts_with("At 70 %: tamt-mlm ≈ imp ≈ magnitude; tamt-mlm > magnitude ("), "{finding}");
    let page = fs::read_to_string(root.join("out/report.md")).unwrap();
    let sentence = "noise (paired t test over seeds); of the other pairs, these are: tamt-mlm > magnitude.";
    assert!(page.contains(sentence), "{page}");
    let rows = table(root, "comparisons.csv");
    assert!(rows.iter().all(|row| !row.contains_key("higher on")), "one task is no sample of tasks");
}

#[test]
fn a_ticket_wins_from_one_deviation_below_the_dense_model_on() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    // The bars are 90 (SST-2) and 70 (RTE).
    let highest = table(directory.path(), "winning-highest.csv");
    for (method, rte, sst2) in [("magnitude", 50.0, 0.0), ("tamt-mlm", 0.0, 70.0), ("random", 0.0, 0.0)] {
        close(row(&highest, method), "RTE", rte);
        close(row(&highest, method), "SST-2", sst2);
    }
    let counts = table(directory.path(), "winning-counts.csv");
    for (method, half, most) in [("magnitude", "1", "0"), ("tamt-mlm", "1", "1"), ("random", "", "0")] {
        let row = row(&counts, method);
        assert_eq!((row["50 %"].as_str(), row["70 %"].as_str()), (half, most), "{method}");
    }
}

#[test]
fn gains_are_over_magnitude() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    let rows = table(directory.path(), "transfer-70.csv");
    close(row(&rows, "tamt-mlm"), "SST-2", 9.5);
    close(row(&rows, "tamt-mlm"), "RTE", 17.0 / 3.0);
    close(row(&rows, "random"), "SST-2", -2.0 / 3.0);
}

#[test]
fn what_random_tickets_lose_does_not_set_the_scale_of_gains() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut study = Builder::new(root);
    for (method, score) in [("magnitude", 0.80), ("tamt-mlm", 0.85), ("random", 0.20)] {
        set(&study.tune(&Of::new(method, 0.7, 1), "sst2", 1, 8000), &[("best_accuracy", score)]);
    }
    report(&[root.to_owned()], &root.join("out"), &Reader).unwrap();
    let figure = fs::read_to_string(root.join("out/figures/transfer-70.svg")).unwrap();
    // The field of random, and both ends of the scale.
    assert!(["−60.0", "−5.0", ">5.0<"].iter().all(|text| figure.contains(text)), "{figure}");
    assert!(!figure.contains(">60.0<"), "{figure}");
}
