//! How losses on a text are measured, as evaluations and tickets record it.

use serde::{Deserialize, Serialize};

/// What a loss depends on beside model and text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalConditions {
    /// Tokens in a sequence, special tokens included.
    pub block_size: usize,
    /// Seed of the masked positions.
    pub seed: u64,
    /// Share of tokens that masked language modelling predicts, as a setting spells it.
    pub mlm_probability: f64,
}
