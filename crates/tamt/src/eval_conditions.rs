//! How losses on a text are measured, as evaluations and tickets record it.

use serde::{Deserialize, Serialize};

/// The seed of the masked positions: the same positions for every model, method and seed of a run.
pub const EVAL_SEED: u64 = 42;

/// What a loss depends on beside model and text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalConditions {
    /// Tokens in a sequence, special tokens included.
    pub block_size: usize,
    /// Seed of the masked positions.
    pub seed: u64,
    /// Share of tokens that masked language modelling predicts, as a setting spells it.
    pub mlm_probability: f64,
}

impl Default for EvalConditions {
    /// The conditions of an evaluation where nothing says more. They are part of the identity of a study's runs.
    fn default() -> Self {
        Self { block_size: 512, seed: EVAL_SEED, mlm_probability: 0.15 }
    }
}
