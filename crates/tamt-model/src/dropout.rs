//! Dropout of a training step: a rate and a random stream for each site of the model.

use tamt_kernels::ops::dropout::Dropout;
use tamt_kernels::rng::{Purpose, Stream};

use crate::config::Config;

/// Dropout rates of a training step, and the random stream that decides which elements drop.
#[derive(Clone, Copy, Debug)]
pub struct DropoutPlan {
    /// Rate on embeddings and sub-layer outputs.
    pub hidden: f32,
    /// Rate on attention probabilities.
    pub attention: f32,
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
    /// Dropout for training step `step` of a run seeded with `seed`.
    pub fn new(hidden: f32, attention: f32, seed: u64, step: u64) -> Self {
        Self { hidden, attention, stream: Stream::new(seed, Purpose::DROPOUT, step) }
    }

    /// Dropout for training step `step` at `rate` everywhere, or at the rates of the model's configuration.
    pub fn for_step(config: &Config, rate: Option<f32>, seed: u64, step: u64) -> Self {
        let (hidden, attention) = match rate {
            Some(p) => (p, p),
            None => (config.hidden_dropout_prob, config.attention_probs_dropout_prob),
        };
        Self::new(hidden, attention, seed, step)
    }

    /// Dropout of the elements of a site from number `first` on.
    pub(crate) fn at(&self, site: DropoutSite, first: usize) -> Option<Dropout> {
        let (p, number) = match site {
            DropoutSite::Embeddings => (self.hidden, 0),
            DropoutSite::AttentionProbabilities(l) => (self.attention, 3 * l + 1),
            DropoutSite::AttentionOutput(l) => (self.hidden, 3 * l + 2),
            DropoutSite::FfnOutput(l) => (self.hidden, 3 * l + 3),
            DropoutSite::Head(site) => (self.hidden, (1 << 30) + site),
        };
        (p > 0.0).then(|| Dropout { p, stream: self.stream.fork(number as u32), first: first as u64 })
    }
}
