//! Numbers of steps, learning rates and lengths that belong together: the reference's own, and those of short runs.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::find::settings::Method;
use crate::prune::Sparsity;

/// Settings for a method and a sparsity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// Optimiser steps of the run; 0 for methods that do not train.
    pub max_steps: u64,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence.
    pub block_size: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Epochs over the corpus after which the learning rate would reach zero; `None` for the last step of the run,
    /// whatever their number.
    pub horizon_epochs: Option<u64>,
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

/// Optimiser steps of a short run.
const SHORT: u64 = 600;

/// The reference's settings for a method at one of the sparsities 0.2, 0.3, ..., 0.9; the same for BERT and RoBERTa.
/// The last step is the one whose mask the reference fine-tunes.
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
        horizon_epochs: Some(2),
        rethreshold_every: if method == Method::TamtKd { 100 } else { 1000 },
    })
}

/// Settings for hundreds of steps, for a method at any sparsity.
///
/// Scores start at a distance of 0.01 from their threshold, which takes hundreds of full-size updates at the learning
/// rates of the reference. The rates of masks here are those of `plans/minilm.toml`, chosen by losses of tickets of a
/// 6-layer encoder on text that no mask was trained on. Thresholds are re-set often because scores move fast: with 100
/// steps between, masks in training drift from the sparsity of the ticket.
///
/// Iterative pruning takes as many steps in all its rounds together. Its rate is a third of the plan's, since this
/// method trains weights, and the weights of larger models may not bear as much.
///
/// # Errors
/// None; presets have one signature.
pub fn short(method: Method, _: Sparsity) -> Result<Preset> {
    Ok(Preset {
        max_steps: if method.trains() { SHORT } else { 0 },
        batch_size: 16,
        block_size: 128,
        learning_rate: match method {
            Method::Random | Method::Magnitude => method.optimizer().learning_rate,
            Method::Imp => 3e-4,
            Method::TamtMlm | Method::TamtMlmKd => 2e-4,
            Method::TamtKd => 1e-3,
        },
        horizon_epochs: None,
        rethreshold_every: 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::ScoreSettings;

    fn at(sparsity: f64) -> Sparsity {
        Sparsity::new(sparsity).unwrap()
    }

    #[test]
    fn short_runs_are_the_same_at_any_sparsity_and_take_steps_only_where_a_method_trains() {
        for method in Method::ALL {
            let preset = short(method, at(0.7)).unwrap();
            for sparsity in [0.005, 0.25, 0.333, 0.95] {
                assert_eq!(short(method, at(sparsity)).unwrap(), preset);
            }
            assert_eq!(preset.max_steps > 0, method.trains(), "{}", method.name());
            assert_eq!(preset.horizon_epochs, None);
        }
        assert!(paper(Method::TamtMlm, at(0.25)).is_err());
    }

    /// Full-size updates under a linear schedule carry a score over half the steps times the learning rate. Scores of
    /// kept and dropped weights start 2 t apart and have to pass each other.
    #[test]
    fn scores_of_kept_and_dropped_weights_have_time_to_pass_each_other_several_times() {
        for method in Method::ALL.into_iter().filter(|method| method.trains_masks()) {
            let Preset { max_steps, learning_rate, .. } = short(method, at(0.5)).unwrap();
            let between = 2.0 * f64::from(ScoreSettings::default().threshold);
            assert!(0.5 * max_steps as f64 * learning_rate > 2.0 * between, "{}", method.name());
        }
    }
}
