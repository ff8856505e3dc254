//! Losses of a model or a subnetwork on held-out text, summed in f64 over the whole of it.

use serde::Serialize;
use tamt_data::{Blocks, Corruption, Specials};
use tamt_kernels::ops::distance;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Activations, Batch, Masks, Model, Pass, Save};

use crate::mlm_head::HeadWeights;
use crate::objective::MaskedTokens;
use crate::{Compute, Error, Result};

/// Sequences evaluated at a time; does not change the result.
const BATCH_TOKENS: usize = 4096;

/// What is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// MLM loss and accuracy under a fixed corruption.
    pub mlm: bool,
    /// Distance of the hidden states from the dense model's on clean text.
    pub kd: bool,
}

/// Held-out text and the corruption it is evaluated under.
#[derive(Clone, Debug)]
pub struct EvalText {
    blocks: Blocks,
    specials: Specials,
    corruption: Corruption,
    seed: u64,
    compute: Compute,
}

/// Losses over a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Tokens of the text, special tokens included.
    pub tokens: u64,
    /// Positions that were predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_tokens: Option<u64>,
    /// Mean cross-entropy over them, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlm_loss: Option<f64>,
    /// `exp(mlm_loss)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of them whose most probable token is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlm_accuracy: Option<f64>,
    /// MLM loss with the other head, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlm_loss_trained_head: Option<f64>,
    /// `1 - cos`, mean over tokens and layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kd_cosine: Option<f64>,
    /// Squared difference, mean over tokens, features and layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kd_mse: Option<f64>,
}

impl Evaluation {
    /// The values by name, without the counts.
    #[must_use]
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        [
            ("mlm_loss", self.mlm_loss),
            ("perplexity", self.perplexity),
            ("mlm_accuracy", self.mlm_accuracy),
            ("mlm_loss_trained_head", self.mlm_loss_trained_head),
            ("kd_cosine", self.kd_cosine),
            ("kd_mse", self.kd_mse),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

#[derive(Default)]
struct Sums {
    masked: u64,
    loss: f64,
    correct: u64,
    other_loss: f64,
    cosine: f64,
    squares: f64,
}

impl EvalText {
    /// Text in `blocks`; `seed` decides which positions are masked, the same ones for every model.
    #[must_use]
    pub fn new(blocks: Blocks, specials: Specials, mlm_probability: f32, seed: u64) -> Self {
        let corruption = Corruption { probability: mlm_probability, ..Corruption::default() };
        Self { blocks, specials, corruption, seed, compute: Compute::default() }
    }

    /// The same, computed like this.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// Tokens of the text, special tokens included.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        (self.blocks.corpus().tokens.len() + 2 * self.blocks.len()) as u64
    }

    /// Evaluates `model` under `masks` (dense where `None`). With `other_head`, the MLM loss is also taken with that
    /// head in the model's place. Where no position happens to be masked, there is no MLM loss.
    ///
    /// # Errors
    /// If the MLM loss is wanted of a model without an MLM head, or a loss is not finite.
    pub fn evaluate(
        &self,
        model: &mut Model,
        masks: Option<&Masks>,
        wanted: Wanted,
        mut other_head: Option<&mut HeadWeights>,
        mut progress: impl FnMut(u64),
    ) -> Result<Evaluation> {
        let prepared = self.compute.prepare(model, masks);
        let pass = Pass::new(masks, Some(&prepared));
        let mut workspace = self.compute.workspace();
        let mut student = Activations::new(if wanted.kd { Save::Hidden } else { Save::Last });
        let mut teacher = Activations::new(Save::Hidden);
        let (mut batch, mut masked) = (Batch::default(), MaskedTokens::default());
        let (mut sums, mut tokens) = (Sums::default(), 0);
        let mut next = 0;
        while next < self.blocks.len() {
            batch.clear();
            while next < self.blocks.len() && batch.tokens() < BATCH_TOKENS {
                self.blocks.fill(next, &mut batch.ids);
                batch.close_sequence(0);
                next += 1;
            }
            if wanted.kd {
                batch.locate(&model.config);
                model.forward(&batch, Pass::default(), &mut teacher, &mut workspace);
                model.forward(&batch, pass, &mut student, &mut workspace);
                sums.add_distances(&student, &teacher, model.config.hidden_size);
            }
            if wanted.mlm {
                let stream = Stream::new(self.seed, Purpose::EVAL_CORRUPTION, 0);
                masked.clear();
                let vocab = model.config.vocab_size as u32;
                masked.extend(&self.corruption.corrupt(&mut batch.ids, &self.specials, vocab, stream, tokens));
                batch.locate(&model.config);
                model.forward(&batch, pass, &mut student, &mut workspace);
                let (positions, labels) = (&masked.positions, &masked.labels);
                let outcome = model.mlm_loss(student.last_hidden(), positions, labels, None, &mut workspace)?;
                sums.masked += positions.len() as u64;
                sums.loss += outcome.loss_sum;
                sums.correct += outcome.correct as u64;
                if let Some(head) = other_head.as_deref_mut() {
                    head.swap(model);
                    let outcome = model.mlm_loss(student.last_hidden(), positions, labels, None, &mut workspace);
                    head.swap(model);
                    sums.other_loss += outcome?.loss_sum;
                }
            }
            tokens += batch.tokens() as u64;
            progress(tokens);
        }
        let count = sums.masked.max(1) as f64;
        let states = (tokens * model.layers.len() as u64).max(1) as f64;
        let mlm = |value: f64| (sums.masked > 0).then_some(value);
        let kd = |value: f64| wanted.kd.then_some(value);
        let evaluation = Evaluation {
            tokens,
            masked_tokens: wanted.mlm.then_some(sums.masked),
            mlm_loss: mlm(sums.loss / count),
            perplexity: mlm((sums.loss / count).exp()),
            mlm_accuracy: mlm(sums.correct as f64 / count),
            mlm_loss_trained_head: other_head.and(mlm(sums.other_loss / count)),
            kd_cosine: kd(sums.cosine / states),
            kd_mse: kd(sums.squares / (states * model.config.hidden_size as f64)),
        };
        // A perplexity may be too large for its type when the loss is not.
        let broken = evaluation.metrics().into_iter().find(|(name, v)| *name != "perplexity" && !v.is_finite());
        match broken {
            Some((what, _)) => Err(Error::NonFiniteEvaluation { what }),
            None => Ok(evaluation),
        }
    }
}

impl Sums {
    fn add_distances(&mut self, student: &Activations, teacher: &Activations, width: usize) {
        for layer in 1..student.hidden_count() {
            let (s, t) = (student.hidden(layer), teacher.hidden(layer));
            self.cosine += distance::cosine(s, t, width, 0.0, None);
            self.squares += distance::mse(s, t, 0.0, None);
        }
    }
}
