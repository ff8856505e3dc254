//! The reference's own numbers of steps, learning rates and lengths.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::find::settings::Method;
use crate::prune::Sparsity;

/// Settings that the reference's scripts fix for a method and a sparsity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// The step whose mask the reference fine-tunes.
    pub max_steps: u64,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub block_size: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Epochs over the corpus after which the learning rate would reach zero.
    pub horizon_epochs: u64,
    /// Steps between re-settings of the thresholds.
    pub rethreshold_every: u64,
}

/// The reference's steps by sparsity. They follow the budget of iterative pruning, 2,792 steps for each tenth.
const STEPS: [(f64, u64); 8] = [
    (0.2, 3_000),
    (0.3, 6_000),
    (0.4, 8_000),
    (0.5, 11_000),
    (0.6, 14_000),
    (0.7, 17_000),
    (0.8, 20_000),
    (0.9, 22_000),
];

/// Optimiser steps of a round of iterative pruning.
const IMP_ROUND: u64 = 2_792;

/// The reference's settings for a method at one of the sparsities 0.2, 0.3, ..., 0.9; the same for BERT and RoBERTa.
///
/// # Errors
/// [`Error::Setting`] at another sparsity, for which the reference has none.
pub fn paper(method: Method, sparsity: Sparsity) -> Result<Preset> {
    let known = STEPS.iter().find(|(share, _)| (share - sparsity.share()).abs() < 1e-9);
    let Some(&(share, steps)) = known else {
        let reason =
            format!("the paper has no run at sparsity {}; it has 0.2 to 0.9 in steps of 0.1", sparsity.share());
        return Err(Error::setting("preset", reason));
    };
    let tenths = (share * 10.0).round() as u64;
    Ok(Preset {
        max_steps: match method {
            Method::Random | Method::Magnitude => 0,
            Method::Imp => IMP_ROUND * (tenths - 1),
            Method::TamtMlm | Method::TamtKd | Method::TamtMlmKd => steps,
        },
        batch_size: 16,
        block_size: 512,
        learning_rate: method.optimizer().learning_rate,
        horizon_epochs: 2,
        rethreshold_every: if method == Method::TamtKd { 100 } else { 1000 },
    })
}
