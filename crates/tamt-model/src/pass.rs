//! How a forward or backward pass runs: masks, prepared matrices and dropout.

use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_kernels::sparse::SparseWeight;

use crate::config::Config;
use crate::model::Dense;
use crate::params::Masks;
use crate::prepared::PreparedWeights;

/// Masks, prepared matrices and dropout of a pass. A backward pass takes the same as its forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass<'a> {
    /// Masks of the pruned matrices; `None` runs the dense model.
    pub masks: Option<&'a Masks>,
    /// Matrices in kernel layout, prepared for these masks and the model's weights. The pass packs any other matrix for
    /// the dense kernel.
    pub prepared: Option<&'a PreparedWeights>,
    /// Dropout of a training pass; `None` switches dropout off.
    pub dropout: Option<DropoutPlan>,
}

impl<'a> Pass<'a> {
    /// A pass without dropout.
    pub fn new(masks: Option<&'a Masks>, prepared: Option<&'a PreparedWeights>) -> Self {
        Self { masks, prepared, dropout: None }
    }

    /// The same pass with dropout.
    #[must_use]
    pub fn with_dropout(self, dropout: DropoutPlan) -> Self {
        Self { dropout: Some(dropout), ..self }
    }

    /// Dropout of the elements of a site from number `first` on.
    pub(crate) fn dropout(&self, site: DropoutSite, first: usize) -> Option<Dropout> {
        let plan = self.dropout?;
        let (p, number) = match site {
            DropoutSite::Embeddings => (plan.hidden, 0),
            DropoutSite::AttentionProbabilities(l) => (plan.attention, 3 * l + 1),
            DropoutSite::AttentionOutput(l) => (plan.hidden, 3 * l + 2),
            DropoutSite::FfnOutput(l) => (plan.hidden, 3 * l + 3),
            DropoutSite::Head(site) => (plan.head, (1 << 30) + site),
        };
        (p > 0.0).then(|| Dropout { p, stream: plan.stream.fork(number as u32), first: first as u64 })
    }

    /// The matrix for which the sparse kernel computes gradients of weights, if prepared so. Gradients of scores
    /// always take the dense kernel.
    pub(crate) fn sparse_gradient(&self, dense: Dense) -> Option<&'a SparseWeight> {
        self.prepared?.sparse(dense.weight)
    }
}

/// Dropout rates of a training step, and the random stream that decides which elements drop.
#[derive(Clone, Copy, Debug)]
pub struct DropoutPlan {
    /// Rate on embeddings and sub-layer outputs.
    pub hidden: f32,
    /// Rate on attention probabilities.
    pub attention: f32,
    /// Rate in a sequence head.
    pub head: f32,
    stream: Stream,
}

/// A site of the model with dropout. The number is that of the transformer layer, or counts the sites of the task head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DropoutSite {
    Embeddings,
    AttentionProbabilities(usize),
    AttentionOutput(usize),
    FfnOutput(usize),
    Head(usize),
}

impl DropoutPlan {
    /// Dropout for training step `step` of a run seeded with `seed`. A head has the rate `hidden`.
    pub fn new(hidden: f32, attention: f32, seed: u64, step: u64) -> Self {
        Self { hidden, attention, head: hidden, stream: Stream::new(seed, Purpose::DROPOUT, step) }
    }

    /// Dropout for training step `step` at `rate` everywhere, or at the rates of the model's configuration: a head has the
    /// rate `classifier_dropout` where there is one.
    pub fn for_step(config: &Config, rate: Option<f32>, seed: u64, step: u64) -> Self {
        let own = || Self::new(config.hidden_dropout_prob, config.attention_probs_dropout_prob, seed, step);
        match rate {
            Some(p) => Self::new(p, p, seed, step),
            None => Self { head: config.classifier_dropout().unwrap_or(config.hidden_dropout_prob), ..own() },
        }
    }
}
