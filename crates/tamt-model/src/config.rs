//! The configuration of an encoder: `config.json`, validated so that allocations from its sizes are safe.

mod family;
mod keys;

use std::path::Path;

use serde_json::{Map, Value};
use tamt_kernels::ops::activation::Activation;

use crate::config::keys::{Keys, invalid};
use crate::error::{Error, Result};
use crate::text::read_text;

pub use crate::config::family::Family;

/// Maximum number of layers. No encoder has more.
const MAX_LAYERS: usize = 1024;
/// Maximum number of weights: 64 GiB in f32.
const MAX_WEIGHTS: usize = 1 << 34;

/// The configuration of an encoder: Hugging Face's `config.json`.
///
/// [`Config::to_json`] preserves the keys of the file that are no fields of this type.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family, which determines tensor names, position ids and MLM head.
    pub family: Family,
    /// Number of rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of a token's hidden state.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides the hidden size.
    pub num_attention_heads: usize,
    /// Width of the feed-forward network's inner layer.
    pub intermediate_size: usize,
    /// Number of rows of the position embeddings; see [`Config::max_length`].
    pub max_position_embeddings: usize,
    /// Number of rows of the token type embeddings.
    pub type_vocab_size: usize,
    /// The constant that layer normalisation adds to the variance.
    pub layer_norm_eps: f32,
    /// Dropout probability after embeddings, attention output and feed-forward output, in `[0, 1)`.
    pub hidden_dropout_prob: f32,
    /// Dropout probability of attention probabilities, in `[0, 1)`.
    pub attention_probs_dropout_prob: f32,
    /// Activation function of the feed-forward network and of the MLM head.
    pub hidden_act: Activation,
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Standard deviation of newly initialised weights.
    pub initializer_range: f32,
    /// The JSON object of the file.
    raw: Map<String, Value>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::LfsPointer`], or [`Error::ConfigFile`] with an error of [`Config::from_json`] as its
    /// source.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let in_file = |source| Error::ConfigFile { path: path.to_owned(), source: Box::new(source) };
        let text = read_text(path)?;
        Self::from_json(&text).map_err(in_file)
    }

    /// Parses and validates the text of a `config.json`.
    ///
    /// The keys of the seven sizes are required. Other missing keys take the family's default in `transformers`. Without
    /// `model_type`, as in old files, `architectures` determines the family; the default is BERT.
    ///
    /// # Errors
    /// [`Error::ConfigSyntax`], or [`Error::ConfigValue`] with the key and its value.
    pub fn from_json(text: &str) -> Result<Self> {
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(Error::ConfigSyntax)?;
        let keys = Keys(&raw);
        let family = keys.family()?;
        let (default_eps, default_pad) = match family {
            Family::Bert => (1e-12, 0),
            Family::Roberta => (1e-12, 1),
        };
        let config = Self {
            family,
            vocab_size: keys.size("vocab_size")?,
            hidden_size: keys.size("hidden_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads: keys.size("num_attention_heads")?,
            intermediate_size: keys.size("intermediate_size")?,
            max_position_embeddings: keys.size("max_position_embeddings")?,
            type_vocab_size: keys.size("type_vocab_size")?,
            layer_norm_eps: keys.float("layer_norm_eps", default_eps)?,
            hidden_dropout_prob: keys.float("hidden_dropout_prob", 0.1)?,
            attention_probs_dropout_prob: keys.float("attention_probs_dropout_prob", 0.1)?,
            hidden_act: keys.activation()?,
            pad_token_id: keys.id("pad_token_id", default_pad)?,
            initializer_range: keys.float("initializer_range", 0.02)?,
            raw,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the configuration describes a supported encoder. Callers that change fields call this function.
    ///
    /// # Errors
    /// [`Error::ConfigValue`] with the key and its value.
    pub fn validate(&self) -> Result<()> {
        self.validate_sizes()?;
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        let of_a_head = Keys(&self.raw).optional_float("classifier_dropout")?.map(|p| ("classifier_dropout", p));
        for (key, p) in probabilities.into_iter().chain(of_a_head) {
            if !(0.0..1.0).contains(&p) {
                return invalid(key, format!("is {p}, outside [0, 1)"));
            }
        }
        for (key, value) in [("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)] {
            if !(value > 0.0 && value.is_finite()) {
                return invalid(key, format!("is {value}, not a positive number"));
            }
        }
        Keys(&self.raw).refuse_unsupported()
    }

    fn validate_sizes(&self) -> Result<()> {
        for (key, size) in self.sizes() {
            if size == 0 {
                return invalid(key, "is 0");
            }
            if size > i32::MAX as usize {
                return invalid(key, format!("is {size}, which is absurd"));
            }
        }
        let Self { hidden_size, num_hidden_layers, num_attention_heads, vocab_size, pad_token_id, .. } = *self;
        if num_hidden_layers > MAX_LAYERS {
            return invalid("num_hidden_layers", format!("is {num_hidden_layers}, more than {MAX_LAYERS}"));
        }
        if !hidden_size.is_multiple_of(num_attention_heads) {
            let problem = format!("is {hidden_size}, not divisible by {num_attention_heads} attention heads");
            return invalid("hidden_size", problem);
        }
        if self.matrix_weights().is_none_or(|n| n > MAX_WEIGHTS) {
            let (key, size) = self.heaviest();
            let problem = format!("is {size}, which with the other sizes makes more than {MAX_WEIGHTS} weights");
            return invalid(key, problem);
        }
        if pad_token_id as usize >= vocab_size {
            return invalid("pad_token_id", format!("is {pad_token_id}, outside a vocabulary of {vocab_size}"));
        }
        if self.max_length() == 0 {
            let rows = self.max_position_embeddings;
            let problem = format!("is {rows}, too few for position ids from {}", pad_token_id + 1);
            return invalid("max_position_embeddings", problem);
        }
        Ok(())
    }

    /// The sizes of the encoder and its tables, by key.
    fn sizes(&self) -> [(&'static str, usize); 7] {
        [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ]
    }

    /// The size, with its key, that brings most of the rows of all matrices. Each row is as wide as a hidden state.
    fn heaviest(&self) -> (&'static str, usize) {
        let [vocabulary, width, (_, layers), _, inner, positions, types] = self.sizes();
        let of_width = width.1.saturating_mul(layers.saturating_mul(4).saturating_add(1));
        let of_inner = inner.1.saturating_mul(layers.saturating_mul(2));
        let rows = [
            (vocabulary, vocabulary.1),
            (positions, positions.1),
            (types, types.1),
            (inner, of_inner),
            (width, of_width),
        ];
        rows.into_iter().max_by_key(|&(_, rows)| rows).map_or(width, |(size, _)| size)
    }

    /// Maximum number of tokens of a sequence, special tokens included.
    ///
    /// `RoBERTa`'s position ids start at `pad_token_id + 1`, so its position embeddings have `pad_token_id + 1` unused rows.
    pub fn max_length(&self) -> usize {
        match self.family {
            Family::Bert => self.max_position_embeddings,
            Family::Roberta => self.max_position_embeddings.saturating_sub(self.pad_token_id as usize + 1),
        }
    }

    /// Width of an attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// The dropout rate of a sequence head, where it has one of its own.
    pub fn classifier_dropout(&self) -> Option<f32> {
        Keys(&self.raw).optional_float("classifier_dropout").ok().flatten()
    }

    /// The value of a key of `config.json` that is no field of this type.
    pub fn extra(&self, key: &str) -> Option<&Value> {
        self.raw.get(key)
    }

    /// Sets a key of `config.json` that is no field of this type, such as `architectures` or `id2label`. For the key of a
    /// field, [`Config::to_json`] writes the field's value.
    pub fn set_extra(&mut self, key: &str, value: Value) {
        self.raw.insert(key.to_owned(), value);
    }

    /// Sets the element type of the weights in the keys that the file has for it, `dtype` and the older `torch_dtype`.
    /// Without either, `transformers` takes the type from the weights.
    pub fn set_dtype(&mut self, name: &str) {
        for key in ["dtype", "torch_dtype"] {
            if let Some(value) = self.raw.get_mut(key) {
                *value = name.into();
            }
        }
    }

    /// The text of a `config.json` for `transformers`: the fields, and all other keys of the original file.
    pub fn to_json(&self) -> String {
        let mut map = self.raw.clone();
        for (key, size) in self.sizes().into_iter().chain([("pad_token_id", self.pad_token_id as usize)]) {
            map.insert(key.to_owned(), size.into());
        }
        let floats = [
            ("layer_norm_eps", self.layer_norm_eps),
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("initializer_range", self.initializer_range),
        ];
        for (key, value) in floats {
            map.insert(key.to_owned(), shortest_f64(value).into());
        }
        // A synonym in the original file, such as `gelu_python`, stays if the field still has its value.
        if Keys(&self.raw).activation().ok() != Some(self.hidden_act) || !map.contains_key("hidden_act") {
            map.insert("hidden_act".to_owned(), activation_name(self.hidden_act).into());
        }
        if Keys(&self.raw).family().ok() != Some(self.family) || !map.contains_key("model_type") {
            map.insert("model_type".to_owned(), self.family.prefix().into());
        }
        let mut text = format!("{:#}", Value::Object(map));
        text.push('\n');
        text
    }

    /// Checks that the process may have memory for a new model that is trained: its weights, gradients and two moments.
    /// The size of a file bounds the memory for a model that is read.
    ///
    /// # Errors
    /// [`Error::Memory`] with the needed number of bytes.
    pub fn check_memory(&self) -> Result<()> {
        let weights = self.matrix_weights().unwrap_or(usize::MAX);
        let bytes = weights.saturating_mul(4 * size_of::<f32>());
        // The allocation is never touched, so that it costs address space only.
        let refused = Vec::<u8>::new().try_reserve_exact(bytes).is_err();
        if refused { Err(Error::Memory { weights, bytes }) } else { Ok(()) }
    }

    /// Number of weights in all matrices of the encoder; `None` on overflow.
    fn matrix_weights(&self) -> Option<usize> {
        let rows = self.vocab_size.checked_add(self.max_position_embeddings)?.checked_add(self.type_vocab_size)?;
        let attention = self.hidden_size.checked_mul(4)?;
        let per_row = attention.checked_add(self.intermediate_size.checked_mul(2)?)?;
        let layers = per_row.checked_mul(self.num_hidden_layers)?;
        rows.checked_add(layers)?.checked_add(self.hidden_size)?.checked_mul(self.hidden_size)
    }
}

/// The f64 with the same shortest decimal form as an f32: 1e-12 instead of 9.999999960041972e-13.
fn shortest_f64(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Relu => "relu",
        Activation::Tanh => "tanh",
    }
}

#[cfg(test)]
mod tests;
