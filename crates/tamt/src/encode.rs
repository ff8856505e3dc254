//! Texts to hidden states of the last layer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tamt_model::{Masks, Pass, PreparedWeights};

use crate::base::{Base, check_length};
use crate::buffers::PassBuffers;
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::tensor_file::{self, Tensor};

/// How the hidden states of a text's tokens become its encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// All states: `text.<i>`, `[tokens, hidden]`.
    None,
    /// The state of position 0.
    Cls,
    /// The mean over tokens, special tokens included.
    #[default]
    Mean,
}

/// Tokens of a batch, about: of the first one, the fewest and the most. The number does not change the result.
const FIRST_TOKENS: usize = 512;
const FEWEST_TOKENS: usize = 256;
const MOST_TOKENS: usize = 4096;

/// The time that a batch should take: progress shows, and a stop waits, as often.
const BATCH_TIME: Duration = Duration::from_millis(250);

/// Tokens of the next batch, after one of `tokens` that took `time`.
fn next_tokens(tokens: usize, time: Duration) -> usize {
    let fitting = tokens as f64 * BATCH_TIME.as_secs_f64() / time.as_secs_f64().max(1e-9);
    (fitting as usize).clamp(FEWEST_TOKENS, MOST_TOKENS)
}

/// Hidden states of texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    pool: Pool,
    normalize: bool,
    width: usize,
    /// Rows of each text in `values`.
    rows: Vec<usize>,
    values: Vec<f32>,
}

/// How texts become vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodeSettings {
    /// The pooling.
    pub pool: Pool,
    /// Whether each vector is divided by its Euclidean norm.
    pub normalize: bool,
    /// Most tokens of a text, special tokens included.
    pub max_length: usize,
    /// Whether texts are turned to lower case ahead of the tokenizer.
    pub lower_case: bool,
    /// What is put before each text.
    pub prompt: String,
    /// Whether the model's pooling leaves out the tokens of a prompt. Such a model takes no prompt.
    pub without_prompt: bool,
    /// Most texts of a batch, beside the limit to its tokens; the number does not change the result.
    pub batch_size: Option<NonZeroUsize>,
}

impl EncodeSettings {
    /// The text that the tokenizer reads.
    pub fn prompted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if !self.prompt.is_empty() {
            text = format!("{}{text}", self.prompt).into();
        }
        if self.lower_case {
            text = text.to_lowercase().into();
        }
        text
    }

    /// The token ids of a text, special tokens included, at most [`EncodeSettings::max_length`].
    ///
    /// # Errors
    /// If the maximal length leaves no room for text, or the text cannot be tokenized.
    pub fn tokens(&self, base: &Base, text: &str) -> Result<Vec<u32>> {
        Ok(base.tokenizer.encode(&self.prompted(text), self.max_length)?)
    }
}

/// A model whose matrices are prepared once, for many encodings. Several encoders may share one base model.
#[derive(Debug)]
pub struct Encoder {
    base: Arc<Base>,
    masks: Option<Masks>,
    compute: Compute,
    prepared: PreparedWeights,
}

impl Encoder {
    /// The encoder of a model, dense or under masks.
    pub fn new(base: impl Into<Arc<Base>>, masks: Option<Masks>, compute: Compute) -> Self {
        let base = base.into();
        let prepared = compute.prepare(&base.model, masks.as_ref());
        Self { base, masks, compute, prepared }
    }

    /// The model.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// As [`encode()`].
    ///
    /// # Errors
    /// As [`encode()`].
    pub fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        settings: &EncodeSettings,
        progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<Encoded> {
        let pass = Pass::new(self.masks.as_ref(), Some(&self.prepared));
        run(&self.base, pass, self.compute, texts, settings, progress)
    }

    /// The vectors of token sequences ([`EncodeSettings::tokens`]), as one batch. A vector does not depend on the other
    /// sequences of the batch. Where the model's numbers overflow, its values are not finite.
    ///
    /// # Panics
    /// If a sequence is empty or longer than the model has positions for, or an id is no row of the embeddings.
    pub fn encode_tokens<'a>(
        &self,
        sequences: impl IntoIterator<Item = &'a [u32]>,
        pool: Pool,
        normalize: bool,
        buffers: &mut PassBuffers,
    ) -> Encoded {
        let pass = Pass::new(self.masks.as_ref(), Some(&self.prepared));
        let mut encoded = Encoded::new(&self.base, pool, normalize);
        buffers.batch.clear();
        sequences.into_iter().for_each(|ids| buffers.batch.push(ids));
        encoded.push_batch(&self.base, pass, buffers);
        encoded
    }
}

/// Encodes `texts`. `progress` gets the number of texts that are done, and ends the work by an error.
///
/// # Errors
/// If the maximal length is more than the model has positions for or leaves no room for text, or a text cannot be
/// tokenized; [`Error::NonFiniteEvaluation`] if a vector is not finite; those of `progress`.
pub fn encode<T: AsRef<str>>(
    base: &Base,
    masks: Option<&Masks>,
    compute: Compute,
    texts: &[T],
    settings: &EncodeSettings,
    progress: impl FnMut(u64) -> Result<()>,
) -> Result<Encoded> {
    let prepared = compute.prepare(&base.model, masks);
    run(base, Pass::new(masks, Some(&prepared)), compute, texts, settings, progress)
}

fn run<T: AsRef<str>>(
    base: &Base,
    pass: Pass<'_>,
    compute: Compute,
    texts: &[T],
    settings: &EncodeSettings,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<Encoded> {
    check_length("max-length", settings.max_length, &base.model)?;
    let mut encoded = Encoded::new(base, settings.pool, settings.normalize);
    if settings.pool != Pool::None {
        encoded.values.reserve_exact(texts.len() * encoded.width);
    }
    let mut buffers = PassBuffers::new(compute);
    let (mut texts, mut tokens) = (texts.iter().peekable(), FIRST_TOKENS);
    while texts.peek().is_some() {
        let started = Instant::now();
        buffers.batch.clear();
        let most = settings.batch_size.map_or(usize::MAX, NonZeroUsize::get);
        for _ in 0..most {
            if buffers.batch.tokens() >= tokens {
                break;
            }
            let Some(text) = texts.next() else { break };
            buffers.batch.push(&settings.tokens(base, text.as_ref())?);
        }
        let first = encoded.values.len();
        encoded.push_batch(base, pass, &mut buffers);
        if encoded.values[first..].iter().any(|value| !value.is_finite()) {
            return Err(Error::NonFiniteEvaluation { what: "the encoding of a text" });
        }
        tokens = next_tokens(buffers.batch.tokens(), started.elapsed());
        progress(encoded.texts() as u64)?;
    }
    Ok(encoded)
}

/// `v / max(|v|, 1e-12)`, as `torch.nn.functional.normalize`.
pub fn divide_by_norm(vector: &mut [f32]) {
    let norm = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
}

impl Encoded {
    fn new(base: &Base, pool: Pool, normalize: bool) -> Self {
        let width = base.model.config.hidden_size;
        Self { pool, normalize, width, rows: Vec::new(), values: Vec::new() }
    }

    /// Runs the encoder over the sequences of `buffers.batch`, and adds their vectors.
    fn push_batch(&mut self, base: &Base, pass: Pass<'_>, buffers: &mut PassBuffers) {
        let PassBuffers { batch, activations, workspace } = buffers;
        batch.locate(&base.model.config);
        base.model.forward(batch, pass, activations, workspace);
        for bounds in batch.bounds.windows(2) {
            self.push(&activations.last_hidden()[bounds[0] * self.width..bounds[1] * self.width]);
        }
    }

    fn push(&mut self, states: &[f32]) {
        let first = self.values.len();
        self.push_pooled(states);
        if self.normalize {
            self.values[first..].chunks_mut(self.width).for_each(divide_by_norm);
        }
    }

    fn push_pooled(&mut self, states: &[f32]) {
        match self.pool {
            Pool::None => {
                self.rows.push(states.len() / self.width);
                self.values.extend_from_slice(states);
                return;
            }
            Pool::Cls => self.values.extend_from_slice(&states[..self.width]),
            Pool::Mean => {
                let tokens = (states.len() / self.width) as f64;
                let mut sums = vec![0.0_f64; self.width];
                for row in states.chunks(self.width) {
                    sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
                }
                self.values.extend(sums.into_iter().map(|sum| (sum / tokens) as f32));
            }
        }
        self.rows.push(1);
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.rows.len()
    }

    /// Values of a vector: the model's hidden size.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Vectors of each text: one, or with [`Pool::None`] the number of its tokens.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// All vectors, one after another, without a copy.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The vectors of each text: one of the hidden size, or with [`Pool::None`] one for each token.
    pub fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        let mut rest = self.values.as_slice();
        self.rows.iter().map(move |rows| {
            let (states, tail) = rest.split_at(rows * self.width);
            rest = tail;
            states
        })
    }

    /// Writes `embeddings` `[texts, hidden]`, or `text.<i>` `[tokens, hidden]` for [`Pool::None`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let tensors = if self.pool == Pool::None {
            let texts = self.vectors().zip(&self.rows).enumerate();
            texts.map(|(i, (states, &rows))| Tensor::f32(format!("text.{i}"), &[rows, self.width], states)).collect()
        } else {
            vec![Tensor::f32("embeddings", &[self.texts(), self.width], &self.values)]
        };
        tensor_file::write(path, &tensors, &BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_batch_is_followed_by_a_smaller_one_and_a_fast_one_by_a_larger_one() {
        assert_eq!(next_tokens(1000, BATCH_TIME), 1000);
        assert_eq!(next_tokens(2000, 4 * BATCH_TIME), 500);
        assert_eq!(next_tokens(1000, BATCH_TIME / 2), 2000);
        assert_eq!(next_tokens(1000, Duration::ZERO), MOST_TOKENS);
        assert_eq!(next_tokens(1000, 1000 * BATCH_TIME), FEWEST_TOKENS);
    }
}
