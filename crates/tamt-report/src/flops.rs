//! Work of a search: tokens and floating-point operations, counted from settings and shapes.

use std::collections::BTreeMap;

use crate::run::Run;
use crate::ticket::Matrix;

/// Tokens and operations of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepWork {
    /// Tokens of a batch, special tokens included.
    pub(crate) tokens: f64,
    /// Floating-point operations of the products with weight matrices; `None` where their shapes are not known.
    pub(crate) flop: Option<f64>,
}

/// The work of a step of the search of `run`, whose base has the prunable `matrices`; `None` where a setting is missing.
///
/// A product of `tokens` rows with a matrix of n weights takes `2 n tokens` operations. A step has three for each
/// matrix of the encoder (forward, gradient of the input, gradient of the weights), one for each of the teacher's where
/// there is distillation, and three for the decoder, which is tied to the word embeddings, at masked positions.
/// Attention scores, layer norms and the optimiser are not counted, nor are operations saved on dropped weights.
pub(crate) fn step_work(run: &Run, matrices: &[Matrix]) -> Option<StepWork> {
    let tokens = (run.setting("batch-size")? * run.setting("block-size")?) as f64;
    let weights = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        matrices.iter().filter(|matrix| wanted(&matrix.name)).map(|matrix| (matrix.rows * matrix.cols) as f64).sum()
    };
    let encoder = weights(&|name| name.contains("encoder.layer."));
    let decoder = weights(&|name| name.contains("word_embeddings"));
    let kd = run.settings.keys().any(|key| key.starts_with("objective.kd"));
    let masked = run.settings.get("objective.mlm-probability").and_then(|share| share.parse().ok()).unwrap_or(0.15);
    let mut per_token = 3.0 * 2.0 * encoder;
    if kd {
        per_token += 2.0 * encoder;
    }
    if uses_mlm(&run.settings) {
        per_token += 3.0 * 2.0 * decoder * masked;
    }
    Some(StepWork { tokens, flop: (encoder > 0.0).then_some(tokens * per_token) })
}

fn uses_mlm(settings: &BTreeMap<String, String>) -> bool {
    settings.get("objective.mlm").is_none_or(|mlm| mlm == "true")
}
