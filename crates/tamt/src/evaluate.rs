//! Losses of a model or a subnetwork on held-out text, summed in f64 over the whole of it.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tamt_data::{Blocks, Corpus, Corruption, Specials, Tail, Tokenizer};
use tamt_kernels::ops::distance;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Activations, Config, Masks, Model, Pass, Save, Workspace};

use crate::compute::Compute;
use crate::error::{Error, Result};
pub use crate::eval_conditions::{EVAL_SEED, EvalConditions};
use crate::metrics;
use crate::mlm_head::HeadWeights;
use crate::text::TextBatch;

/// The most tokens that are evaluated at a time, about.
const MOST_TOKENS: usize = 4096;

/// The fewest tokens that are evaluated at a time, about: fewer leave threads without work.
const FEWEST_TOKENS: usize = 512;

/// Multiplications and additions of the encoder's layers in a batch of an evaluation. Two cores without instructions for
/// matrices take half a second for them, and a stop request waits as long.
const BATCH_OPERATIONS: usize = 48_000_000_000;

/// Tokens that are evaluated at a time, about. The number changes results by no more than the rounding of sums in f64.
pub(crate) fn batch_tokens(config: &Config) -> usize {
    let Config { num_hidden_layers, hidden_size, intermediate_size, .. } = *config;
    let weights = num_hidden_layers * hidden_size * (4 * hidden_size + 2 * intermediate_size);
    (BATCH_OPERATIONS / (2 * weights).max(1)).clamp(FEWEST_TOKENS, MOST_TOKENS)
}

/// The losses that an evaluation measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalLosses {
    /// MLM loss and accuracy under a fixed corruption.
    pub mlm: bool,
    /// Distance of the hidden states from the dense model's on clean text.
    pub kd: bool,
}

/// Held-out text, the corruption it is evaluated under, and how the model is computed.
#[derive(Clone, Debug)]
pub struct EvalText {
    blocks: Blocks,
    block_size: usize,
    specials: Specials,
    /// One more than the highest token of the tokenizer.
    vocabulary: u32,
    corruption: Corruption,
    seed: u64,
    compute: Compute,
}

/// Losses over a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Block size and masked positions.
    #[serde(flatten)]
    pub conditions: EvalConditions,
    /// Tokens of the text, special tokens included.
    pub tokens: u64,
    /// Predicted positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_tokens: Option<u64>,
    /// Mean cross-entropy over the predicted positions, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlm_loss: Option<f64>,
    /// `exp(mlm_loss)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of the predicted positions whose most probable token is the original one.
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
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let values = [
            self.mlm_loss,
            self.perplexity,
            self.mlm_accuracy,
            self.mlm_loss_trained_head,
            self.kd_cosine,
            self.kd_mse,
        ];
        metrics::EVALUATION.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl EvalText {
    /// All of `corpus` in blocks of `block_size` tokens, special tokens included; each token is masked with a
    /// probability.
    ///
    /// # Errors
    /// If the corpus is empty or a block has no room for text.
    pub fn new(
        corpus: Arc<Corpus>,
        tokenizer: &Tokenizer,
        block_size: usize,
        mlm_probability: f32,
        compute: Compute,
    ) -> Result<Self> {
        let (specials, vocabulary) = (*tokenizer.specials(), tokenizer.vocab_size());
        let blocks = Blocks::new(corpus, block_size, Tail::Keep, &specials)?;
        let corruption = Corruption { probability: mlm_probability, ..Corruption::default() };
        Ok(Self { blocks, block_size, specials, vocabulary, corruption, seed: EVAL_SEED, compute })
    }

    /// The same text with other masked positions.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Block size and masked positions.
    #[must_use]
    pub fn conditions(&self) -> EvalConditions {
        let probability = self.corruption.probability;
        // The shortest decimal, as given: 0.15 and not 0.15000000596046448.
        let mlm_probability = probability.to_string().parse().unwrap_or(f64::from(probability));
        EvalConditions { block_size: self.block_size, seed: self.seed, mlm_probability }
    }

    /// The text.
    #[must_use]
    pub fn corpus(&self) -> &Corpus {
        self.blocks.corpus()
    }

    /// Tokens of the text, special tokens included.
    pub fn tokens(&self) -> u64 {
        (self.blocks.corpus().tokens.len() + 2 * self.blocks.len()) as u64
    }

    /// Evaluates `model` under `masks` (dense where `None`). With `other_head`, the MLM loss is also measured with that
    /// head in place of the model's. Where no position happens to be masked, there is no MLM loss. `progress` gets the
    /// number of tokens that are done; its error ends the evaluation.
    ///
    /// # Errors
    /// If the MLM loss is measured of a model without an MLM head, or a loss is not finite; the errors of `progress`.
    pub fn evaluate(
        &self,
        model: &mut Model,
        masks: Option<&Masks>,
        losses: EvalLosses,
        mut other_head: Option<&mut HeadWeights>,
        mut progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<Evaluation> {
        let prepared = self.compute.prepare(model, masks);
        let pass = Pass::new(masks, Some(&prepared));
        let mut workspace = self.compute.workspace();
        let mut student = Activations::new(if losses.kd { Save::Hidden } else { Save::Last });
        let mut teacher = Activations::new(Save::Hidden);
        let (mut batch, mut sums, mut next) = (TextBatch::default(), Sums::default(), 0);
        let batch_tokens = batch_tokens(&model.config);
        while next < self.blocks.len() {
            batch.tokens.clear();
            while next < self.blocks.len() && batch.tokens.tokens() < batch_tokens {
                self.blocks.fill(next, &mut batch.tokens.ids);
                batch.tokens.close_sequence(0);
                next += 1;
            }
            if losses.kd {
                batch.tokens.locate(&model.config);
                model.forward(&batch.tokens, Pass::default(), &mut teacher, &mut workspace);
                progress(sums.tokens)?;
                model.forward(&batch.tokens, pass, &mut student, &mut workspace);
                sums.add_distances(&student, &teacher, model.config.hidden_size);
                progress(sums.tokens)?;
            }
            if losses.mlm {
                let stream = Stream::new(self.seed, Purpose::EVAL_CORRUPTION, 0);
                let vocabulary = (self.vocabulary, &model.config);
                batch.corrupt(&self.corruption, &self.specials, vocabulary, stream, sums.tokens);
                model.forward(&batch.tokens, pass, &mut student, &mut workspace);
                sums.add_mlm(model, &student, &batch, other_head.as_deref_mut(), &mut workspace)?;
            }
            sums.tokens += batch.tokens.tokens() as u64;
            progress(sums.tokens)?;
        }
        let evaluation = sums.evaluation(losses, other_head.is_some(), &model.config);
        let evaluation = Evaluation { conditions: self.conditions(), ..evaluation };
        // A perplexity may be too large for its type when the loss is not.
        let broken = |(name, value): &(&str, f64)| *name != metrics::PERPLEXITY && !value.is_finite();
        match evaluation.metrics().into_iter().find(broken) {
            Some((what, _)) => Err(Error::NonFiniteEvaluation { what }),
            None => Ok(evaluation),
        }
    }
}

/// The entries that every result of a training has, in `--json` and in `eval_results.json`. The entry `evaluation` says how
/// the losses were measured.
pub(crate) fn result_json(
    directory: &Path,
    steps: u64,
    seconds: f64,
    evaluation: Option<Evaluation>,
) -> Map<String, Value> {
    let first =
        [("output_dir", json!(directory.to_string_lossy())), ("steps", json!(steps)), ("seconds", json!(seconds))];
    let metrics = evaluation.iter().flat_map(Evaluation::metrics).map(|(name, value)| (name, json!(value)));
    let how = evaluation.map(|Evaluation { conditions, tokens, masked_tokens, .. }| {
        let EvalConditions { block_size, seed, mlm_probability } = conditions;
        let how = json!({ "block_size": block_size, "tokens": tokens, "masked_tokens": masked_tokens, "seed": seed,
            "mlm_probability": mlm_probability });
        ("evaluation", how)
    });
    first.into_iter().chain(metrics).chain(how).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Sums over the text so far.
#[derive(Default)]
struct Sums {
    tokens: u64,
    masked: u64,
    loss: f64,
    correct: u64,
    other_loss: f64,
    cosine: f64,
    squares: f64,
}

impl Sums {
    /// Adds the distances of the hidden states of every layer.
    fn add_distances(&mut self, student: &Activations, teacher: &Activations, width: usize) {
        for layer in 1..student.hidden_count() {
            let (s, t) = (student.hidden(layer), teacher.hidden(layer));
            self.cosine += distance::cosine(s, t, width, 0.0, None);
            self.squares += distance::mse(s, t, 0.0, None);
        }
    }

    /// Adds the MLM loss of a batch, with the model's head and with the other one.
    fn add_mlm(
        &mut self,
        model: &mut Model,
        student: &Activations,
        batch: &TextBatch,
        other_head: Option<&mut HeadWeights>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (positions, labels) = (&batch.masked.positions, &batch.masked.labels);
        let own = model.mlm_loss(student.last_hidden(), positions, labels, None, workspace)?;
        self.masked += positions.len() as u64;
        self.loss += own.loss_sum;
        self.correct += own.correct as u64;
        if let Some(head) = other_head {
            head.swap(model);
            let other = model.mlm_loss(student.last_hidden(), positions, labels, None, workspace);
            head.swap(model);
            self.other_loss += other?.loss_sum;
        }
        Ok(())
    }

    /// The means, of the losses that were measured.
    fn evaluation(&self, losses: EvalLosses, with_other_head: bool, config: &Config) -> Evaluation {
        let count = self.masked.max(1) as f64;
        let states = (self.tokens * config.num_hidden_layers as u64).max(1) as f64;
        let mlm = |value: f64| (self.masked > 0).then_some(value);
        let kd = |value: f64| losses.kd.then_some(value);
        Evaluation {
            conditions: EvalConditions::default(),
            tokens: self.tokens,
            masked_tokens: losses.mlm.then_some(self.masked),
            mlm_loss: mlm(self.loss / count),
            perplexity: mlm((self.loss / count).exp()),
            mlm_accuracy: mlm(self.correct as f64 / count),
            mlm_loss_trained_head: mlm(self.other_loss / count).filter(|_| with_other_head),
            kd_cosine: kd(self.cosine / states),
            kd_mse: kd(self.squares / (states * config.hidden_size as f64)),
        }
    }
}
