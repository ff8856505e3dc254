//! Whether methods are in the paper's order, of scores and losses that the test chooses.

use std::path::Path;

use tamt_report::document::{Cell, Table};
use tamt_report::report::report;
use tamt_report::sections::overview::overview;
use tamt_report::sections::paper_order::{Measure, Outcome, Step, sentences, steps};

use crate::study::{Builder, DENSE, Of, Reader, set};

/// Three seeds of three methods at 90 % on two tasks. Per seed, the accuracy of `tamt-mlm` is above that of magnitude by
/// 1, 1.5 and 2 points, and magnitude above random by 3, 0 and -3.
fn study(root: &Path) {
    let mut study = Builder::new(root);
    for (seed, gain, luck) in [(1, 0.01, 0.03), (2, 0.015, 0.0), (3, 0.02, -0.03)] {
        for (task, level) in [("sst2", 0.7), ("rte", 0.5)] {
            let mut tuned = |of: &Of, score: f64| set(&study.tune(of, task, seed, 8000), &[("best_accuracy", score)]);
            tuned(&DENSE, 0.9);
            tuned(&Of::new("magnitude", 0.9, 1), level);
            tuned(&Of::new("tamt-mlm", 0.9, seed), level + gain);
            tuned(&Of::new("random", 0.9, seed), level - luck);
        }
    }
    let mut lost = |of: &Of, mlm: f64, kd: f64| {
        study.losses(of);
        let name = of.name().replace('/', "-");
        set(&root.join("losses").join(name), &[("mlm_loss", mlm), ("kd_cosine", kd)]);
    };
    lost(&DENSE, 2.0, 0.0);
    lost(&Of::new("magnitude", 0.9, 1), 4.0, 0.5);
    for (seed, mlm) in [(1, 3.0), (2, 2.5), (3, 2.0)] {
        lost(&Of::new("tamt-mlm", 0.9, seed), mlm, 0.6);
        lost(&Of::new("random", 0.9, seed), 6.0 + 0.1 * seed as f64, 0.9 + 0.01 * seed as f64);
    }
}

fn found(steps: &[Step], measure: Measure, higher: &str) -> Step {
    steps.iter().find(|step| step.measure == measure && step.higher.name == higher).unwrap().clone()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn a_step_is_shown_where_it_is_more_than_noise() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    let report = report(&[directory.path().to_owned()], &directory.path().join("out"), &Reader).unwrap();
    let steps = steps(&report.study);

    // numpy.mean([1, 1.5, 2]), scipy.stats.sem([1, 1.5, 2]); p = 0.035
    let trained = found(&steps, Measure::Score, "tamt-mlm");
    assert!(close(trained.gain, 1.5) && close(trained.error.unwrap(), 0.288_675_134_595), "{trained:?}");
    assert_eq!((trained.pairs, trained.outcome()), (3, Outcome::Shown));
    // numpy.mean([3, 0, -3]), scipy.stats.sem([3, 0, -3])
    let magnitude = found(&steps, Measure::Score, "magnitude");
    assert!(close(magnitude.gain, 0.0) && close(magnitude.error.unwrap(), 1.732_050_807_569), "{magnitude:?}");
    assert_eq!((magnitude.lower.name.as_str(), magnitude.outcome()), ("random", Outcome::Open));
    // Magnitude draws nothing: its one loss stands beside each of the other's, 4 - [3, 2.5, 2].
    let mlm = found(&steps, Measure::MlmLoss, "tamt-mlm");
    assert!(close(mlm.gain, 1.5) && close(mlm.error.unwrap(), 0.288_675_134_595), "{mlm:?}");
    assert_eq!((mlm.pairs, mlm.outcome()), (3, Outcome::Shown));
    // A method is judged by the losses that it trains on.
    let of_kd: Vec<&str> =
        steps.iter().filter(|step| step.measure == Measure::KdLoss).map(|step| step.higher.name.as_str()).collect();
    assert_eq!(of_kd, ["magnitude"]);
    assert_eq!(
        sentences(&steps),
        [
            "At 90 % the scores do not tell apart magnitude and random: tamt-mlm − magnitude +1.5 ± 0.3, \
             magnitude − random 0.0 ± 1.7 (3 pairs)",
            "At 90 % the MLM losses are in the order trained < magnitude < random: tamt-mlm − magnitude −1.50 ± 0.29, \
             magnitude − random −2.20 ± 0.06 (3 pairs)",
            "At 90 % the KD losses are in the order magnitude < random: magnitude − random −0.420 ± 0.006 \
             (3 pairs)",
        ]
    );
    let [Table { columns, rows, .. }] = &overview(&report.study)[..] else { panic!("one base has one table") };
    assert_eq!(columns.len(), 4);
    let shown: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().map(|cell| match cell {
                Cell::Text(text) | Cell::Code(text) => text.clone(),
                Cell::Number(number) => number.shown(),
                Cell::Empty => "-".to_owned(),
            });
            cells.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        shown,
        ["dense 2.00 0.000 90.0", "random 6.20 0.920 60.0", "magnitude 4.00 0.500 60.0", "tamt-mlm 2.50 0.600 61.5"]
    );
}

#[test]
fn differences_that_do_not_vary_show_nothing() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    for seed in 1..=3 {
        let name = Of::new("random", 0.9, seed).name();
        set(&directory.path().join("losses").join(name), &[("mlm_loss", 6.0)]);
    }
    let report = report(&[directory.path().to_owned()], &directory.path().join("out"), &Reader).unwrap();
    let random = found(&steps(&report.study), Measure::MlmLoss, "magnitude");
    assert_eq!((random.error, random.outcome()), (Some(0.0), Outcome::Open));
}

#[test]
fn the_opposite_order_is_said_as_well() {
    let directory = tempfile::tempdir().unwrap();
    study(directory.path());
    for seed in 1..=3 {
        let name = Of::new("random", 0.9, seed).name();
        set(&directory.path().join("losses").join(name), &[("mlm_loss", 1.0 + 0.1 * seed as f64)]);
    }
    let report = report(&[directory.path().to_owned()], &directory.path().join("out"), &Reader).unwrap();
    let steps = steps(&report.study);
    assert_eq!(found(&steps, Measure::MlmLoss, "magnitude").outcome(), Outcome::Reversed);
    let sentence = &sentences(&steps)[1];
    assert!(
        sentence.starts_with("At 90 % the MLM losses have the opposite order of magnitude and random"),
        "{sentence}"
    );
}
