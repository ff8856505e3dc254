//! Flags that the losses show, which all verbs that train share: those of the optimiser above all.

use crate::compare::{Setup, Shows, differ};

const LOSSES: Shows = Shows::Log("loss");
const RATES: Shows = Shows::Log("learning_rate");

/// The losses show a change that takes effect in the first update, ahead of which is the first loss.
#[track_caller]
pub(crate) fn same_first_loss(line: &str, changes: &[&str]) {
    let outcomes = differ(&[], line, changes, LOSSES);
    let first: Vec<_> = outcomes.iter().map(|outcome| outcome.log("loss")[0].clone()).collect();
    assert!(first.iter().all(|loss| *loss == first[0]), "the first loss precedes the first update: {first:?}");
}

#[track_caller]
pub(crate) fn optimizer(line: &str, other: &str) {
    same_first_loss(line, &[&format!("--optimizer {other}")]);
}

#[track_caller]
pub(crate) fn learning_rate(line: &str) {
    let outcomes = differ(&[], line, &["--learning-rate 0.00125"], RATES);
    assert_eq!(outcomes[1].log("learning_rate")[0], 0.00125);
    same_first_loss(line, &["--learning-rate 0.00125"]);
}

#[track_caller]
pub(crate) fn lr_schedule(line: &str) {
    let outcomes = differ(&[], line, &["--lr-schedule constant", "--lr-schedule cosine"], RATES);
    let constant = outcomes[1].log("learning_rate");
    assert!(constant.iter().all(|rate| *rate == constant[0]), "{constant:?}");
    same_first_loss(line, &["--lr-schedule constant", "--lr-schedule cosine"]);
}

/// After one of 100 steps the learning rate has fallen by a hundredth.
#[track_caller]
pub(crate) fn lr_horizon_steps(line: &str) {
    let outcomes = differ(&[], line, &["--lr-horizon-steps 100"], RATES);
    let rates = outcomes[1].log("learning_rate");
    let [first, second] = [0, 1].map(|i| rates[i].as_f64().unwrap());
    assert!((second / first - 0.99).abs() < 1e-9, "{rates:?}");
    same_first_loss(line, &["--lr-horizon-steps 100"]);
}

#[track_caller]
pub(crate) fn warmup_steps(line: &str) {
    differ(&[], line, &["--warmup-steps 2"], RATES);
    differ(&[], line, &["--warmup-steps 2"], LOSSES);
}

#[track_caller]
pub(crate) fn weight_decay(line: &str) {
    same_first_loss(line, &["--weight-decay 0.5"]);
}

#[track_caller]
pub(crate) fn adam_epsilon(line: &str) {
    same_first_loss(line, &["--adam-epsilon 0.1"]);
}

#[track_caller]
pub(crate) fn clip(line: &str) {
    let line = format!("{line} --max-grad-norm 0.01");
    same_first_loss(&line, &["--clip per-tensor", "--clip none"]);
}

#[track_caller]
pub(crate) fn max_grad_norm(line: &str) {
    same_first_loss(line, &["--max-grad-norm 0.01"]);
}

/// The losses show a change.
#[track_caller]
pub(crate) fn other_losses(line: &str, changes: &[&str]) {
    differ(&[], line, changes, LOSSES);
}

/// The gradients show a change of the arithmetic that is too small for the loss of a small model.
#[track_caller]
pub(crate) fn other_gradients_after(setup: Setup<'_>, line: &str, changes: &[&str]) {
    differ(setup, line, changes, Shows::Log("grad_norm"));
}

/// The first loss shows a change of the data, of dropout, or of the arithmetic.
#[track_caller]
pub(crate) fn other_first_loss(line: &str, changes: &[&str]) {
    other_first_loss_after(&[], line, changes);
}

/// As [`other_first_loss`], after the lines of `setup`.
#[track_caller]
pub(crate) fn other_first_loss_after(setup: Setup<'_>, line: &str, changes: &[&str]) {
    let outcomes = differ(setup, line, changes, LOSSES);
    let first: Vec<_> = outcomes.iter().map(|outcome| outcome.log("loss")[0].clone()).collect();
    assert!(first[1..].iter().all(|loss| *loss != first[0]), "{first:?}");
}
