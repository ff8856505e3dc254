//! `config.json`: the shape of an encoder, checked before anything is allocated from it.

mod keys;

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use tamt_kernels::ops::activation::Activation;

use self::keys::{Keys, invalid};
use crate::error::{Error, Result};

/// More layers than any encoder has; a larger number in a configuration is a mistake.
const MAX_LAYERS: usize = 1024;
/// More weights than this engine is made for (64 GiB in f32).
const MAX_WEIGHTS: usize = 1 << 34;

/// The two families of encoders. They share the architecture and differ in names, position ids and MLM head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// BERT.
    Bert,
    /// `RoBERTa`, and what is built like it: `XLM-RoBERTa` and `CamemBERT`.
    Roberta,
}

impl Family {
    /// What stands before the first dot of the encoder's tensor names in a checkpoint with a head.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
        }
    }
}

/// The configuration of an encoder, as in Hugging Face's `config.json`.
///
/// Keys that are not fields here are kept and written back by [`Config::to_json`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Decides names, position ids and MLM head.
    pub family: Family,
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of a token's hidden state.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides the hidden size.
    pub num_attention_heads: usize,
    /// Width of the feed-forward network's inner layer.
    pub intermediate_size: usize,
    /// Rows of the position embeddings; see [`Config::max_length`].
    pub max_position_embeddings: usize,
    /// Rows of the segment embeddings.
    pub type_vocab_size: usize,
    /// What layer normalisation adds to the variance.
    pub layer_norm_eps: f32,
    /// Dropout after embeddings, attention output and feed-forward output, in `[0, 1)`.
    pub hidden_dropout_prob: f32,
    /// Dropout of attention probabilities, in `[0, 1)`.
    pub attention_probs_dropout_prob: f32,
    /// Activation of the feed-forward network and of the MLM head's transform.
    pub hidden_act: Activation,
    /// Id of the padding token.
    pub pad_token_id: u32,
    /// Standard deviation of freshly initialised weights.
    pub initializer_range: f32,
    /// The whole object as it was read.
    raw: Map<String, Value>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::ConfigFile`] around what [`Config::from_json`] says.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let in_file = |source| Error::ConfigFile { path: path.to_owned(), source: Box::new(source) };
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::from_json(&text).map_err(in_file)
    }

    /// Parses and validates the text of a `config.json`.
    ///
    /// The five sizes of the encoder and the two of its tables must be there; what else is missing takes the default
    /// of the family in `transformers`. Configurations from before `model_type` existed are BERT's unless
    /// `architectures` says otherwise.
    ///
    /// # Errors
    /// [`Error::ConfigSyntax`], or [`Error::ConfigValue`] with the key and its value.
    pub fn from_json(text: &str) -> Result<Self> {
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(Error::ConfigSyntax)?;
        let keys = Keys(&raw);
        let family = keys.family()?;
        let (default_eps, default_pad) = match family {
            Family::Bert => (1e-12, 0),
            Family::Roberta => (1e-5, 1),
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

    /// Checks that an encoder of this shape can be built. To be called after changing fields by hand.
    ///
    /// # Errors
    /// [`Error::ConfigValue`] with the key and its value.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        for (key, size) in sizes {
            if size == 0 {
                return invalid(key, "is 0");
            }
            if size > i32::MAX as usize {
                return invalid(key, format!("is {size}, which is absurd"));
            }
        }
        if self.num_hidden_layers > MAX_LAYERS {
            return invalid("num_hidden_layers", format!("is {}, more than {MAX_LAYERS}", self.num_hidden_layers));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let problem =
                format!("is {}, not divisible by {} attention heads", self.hidden_size, self.num_attention_heads);
            return invalid("hidden_size", problem);
        }
        if self.matrix_weights().is_none_or(|n| n > MAX_WEIGHTS) {
            let problem =
                format!("is {}, which with the other sizes makes more than {MAX_WEIGHTS} weights", self.hidden_size);
            return invalid("hidden_size", problem);
        }
        if self.pad_token_id as usize >= self.vocab_size {
            let problem = format!("is {}, outside a vocabulary of {}", self.pad_token_id, self.vocab_size);
            return invalid("pad_token_id", problem);
        }
        if self.max_length() == 0 {
            let problem =
                format!("is {}, too few for position ids from {}", self.max_position_embeddings, self.pad_token_id + 1);
            return invalid("max_position_embeddings", problem);
        }
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        for (key, p) in probabilities {
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

    /// Most tokens in a sequence, special tokens included.
    ///
    /// `RoBERTa`'s position ids start at `pad_token_id + 1`, so the first rows of its table are never used.
    #[must_use]
    pub fn max_length(&self) -> usize {
        match self.family {
            Family::Bert => self.max_position_embeddings,
            Family::Roberta => self.max_position_embeddings.saturating_sub(self.pad_token_id as usize + 1),
        }
    }

    /// Width of one attention head.
    #[must_use]
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// A key of `config.json` that is no field here.
    #[must_use]
    pub fn extra(&self, key: &str) -> Option<&Value> {
        self.raw.get(key)
    }

    /// Sets a key of `config.json` that is no field here, such as `architectures` or `id2label`. A key that is one
    /// keeps the field's value when written.
    pub fn set_extra(&mut self, key: &str, value: Value) {
        self.raw.insert(key.to_owned(), value);
    }

    /// The text of a `config.json` that `transformers` reads: the fields, and every other key as it was read.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = self.raw.clone();
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
            ("pad_token_id", self.pad_token_id as usize),
        ];
        for (key, size) in sizes {
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
        // The spellings below are the ones that other names of the same thing are read as.
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

    /// Number of weights in all matrices of the encoder; `None` if it overflows.
    fn matrix_weights(&self) -> Option<usize> {
        let rows = self.vocab_size.checked_add(self.max_position_embeddings)?.checked_add(self.type_vocab_size)?;
        let attention = self.hidden_size.checked_mul(4)?;
        let per_row = attention.checked_add(self.intermediate_size.checked_mul(2)?)?;
        let layers = per_row.checked_mul(self.num_hidden_layers)?;
        rows.checked_add(layers)?.checked_add(self.hidden_size)?.checked_mul(self.hidden_size)
    }
}

/// The f64 that prints like the f32, so that 1e-12 is not written as 9.999999960041972e-13.
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
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({
            "model_type": "bert", "vocab_size": 100, "hidden_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": 24, "max_position_embeddings": 16, "type_vocab_size": 2,
        })
    }

    fn with(changes: &Value) -> Result<Config> {
        let mut config = base();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        Config::from_json(&config.to_string())
    }

    /// The message about the only change.
    fn refusal(key: &str, value: &Value) -> String {
        match with(&json!({ key: value })) {
            Err(error @ Error::ConfigValue { key: found, .. }) if found == key => error.to_string(),
            other => panic!("{key}: {value}: {other:?}"),
        }
    }

    #[test]
    fn what_is_missing_takes_the_default_of_the_family() {
        let bert = with(&json!({})).unwrap();
        assert_eq!((bert.layer_norm_eps, bert.pad_token_id, bert.hidden_act), (1e-12, 0, Activation::Gelu));
        assert_eq!(
            (bert.hidden_dropout_prob, bert.attention_probs_dropout_prob, bert.initializer_range),
            (0.1, 0.1, 0.02)
        );
        let roberta = with(&json!({"model_type": "roberta", "pad_token_id": null})).unwrap();
        assert_eq!((roberta.layer_norm_eps, roberta.pad_token_id), (1e-5, 1));
    }

    #[test]
    fn each_missing_size_is_named() {
        for key in base().as_object().unwrap().keys().filter(|key| *key != "model_type") {
            let mut config = base();
            config.as_object_mut().unwrap().remove(key);
            let error = Config::from_json(&config.to_string()).unwrap_err().to_string();
            assert_eq!(error, format!("`{key}` is missing"));
        }
    }

    #[test]
    fn models_built_like_roberta_are_of_its_family() {
        for kind in ["roberta", "xlm-roberta", "camembert"] {
            let config = with(&json!({"model_type": kind})).unwrap();
            assert_eq!(config.family.prefix(), "roberta");
            assert_eq!(config.extra("model_type").unwrap(), kind);
            assert!(config.to_json().contains(&format!("\"model_type\": \"{kind}\"")));
        }
    }

    #[test]
    fn a_configuration_without_a_model_type_goes_by_its_architecture() {
        let family =
            |architectures: Value| with(&json!({"model_type": null, "architectures": architectures})).unwrap().family;
        assert_eq!(family(json!(["RobertaForMaskedLM"])), Family::Roberta);
        assert_eq!(family(json!(["BertModel"])), Family::Bert);
        assert_eq!(family(json!(null)), Family::Bert);
    }

    #[test]
    fn roberta_never_uses_the_positions_up_to_its_padding_id() {
        assert_eq!(with(&json!({})).unwrap().max_length(), 16);
        assert_eq!(with(&json!({"model_type": "roberta"})).unwrap().max_length(), 14);
        let error = with(&json!({"model_type": "roberta", "max_position_embeddings": 2})).unwrap_err();
        assert!(error.to_string().contains("position ids from 2"), "{error}");
    }

    #[test]
    fn activations_go_by_all_of_their_names() {
        let cases = [
            ("gelu", Activation::Gelu),
            ("gelu_new", Activation::GeluTanh),
            ("gelu_pytorch_tanh", Activation::GeluTanh),
            ("relu", Activation::Relu),
        ];
        for (name, activation) in cases {
            let config = with(&json!({"hidden_act": name})).unwrap();
            assert_eq!(config.hidden_act, activation);
            assert!(config.to_json().contains(&format!("\"hidden_act\": \"{name}\"")), "the spelling is kept");
        }
        assert!(refusal("hidden_act", &json!("swish")).contains("swish"));
    }

    #[test]
    fn values_that_no_encoder_has_are_refused_with_the_value() {
        for (key, value) in [
            ("model_type", json!("t5")),
            ("model_type", json!(3)),
            ("vocab_size", json!(0)),
            ("vocab_size", json!(-1)),
            ("vocab_size", json!("100")),
            ("hidden_size", json!(13)),
            ("hidden_size", json!(1.5)),
            ("hidden_size", json!(2_147_483_646u64)),
            ("intermediate_size", json!(u64::MAX)),
            ("num_hidden_layers", json!(1_000_000)),
            ("num_attention_heads", json!(0)),
            ("type_vocab_size", json!(0)),
            ("pad_token_id", json!(100)),
            ("pad_token_id", json!(-1)),
            ("layer_norm_eps", json!(-1e-5)),
            ("layer_norm_eps", json!(1e60)),
            ("layer_norm_eps", json!("NaN")),
            ("initializer_range", json!(0)),
            ("hidden_dropout_prob", json!(1.0)),
            ("hidden_dropout_prob", json!(-0.1)),
            ("attention_probs_dropout_prob", json!(true)),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
        ] {
            let message = refusal(key, &value);
            // Large floats are printed in full.
            let number = value.as_f64().map(|v| (v as f32).to_string());
            assert!(message.contains(&value.to_string()) || number.is_some_and(|n| message.contains(&n)), "{message}");
        }
    }

    #[test]
    fn fields_changed_by_hand_are_validated_too() {
        let mut config = with(&json!({})).unwrap();
        config.layer_norm_eps = f32::NAN;
        assert!(matches!(config.validate(), Err(Error::ConfigValue { key: "layer_norm_eps", .. })));
        config.layer_norm_eps = 1e-12;
        config.hidden_dropout_prob = f32::NAN;
        assert!(matches!(config.validate(), Err(Error::ConfigValue { key: "hidden_dropout_prob", .. })));
    }

    #[test]
    fn what_is_no_json_object_is_refused() {
        for text in ["", "[]", "{\"vocab_size\": }", "3", "{\"a\": 1e400}", &"[".repeat(100_000)] {
            assert!(matches!(Config::from_json(text), Err(Error::ConfigSyntax(_))), "{text}");
        }
    }

    #[test]
    fn writing_keeps_unknown_keys_and_reads_back_equal() {
        let mut config =
            with(&json!({"id2label": {"0": "no"}, "layer_norm_eps": 1e-12, "hidden_act": "gelu_new"})).unwrap();
        config.set_extra("architectures", json!(["BertForSequenceClassification"]));
        config.hidden_dropout_prob = 0.3;
        let text = config.to_json();
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["id2label"], json!({"0": "no"}));
        assert_eq!(written["architectures"], json!(["BertForSequenceClassification"]));
        assert_eq!(written["hidden_dropout_prob"], json!(0.3));
        assert_eq!(written["layer_norm_eps"], json!(1e-12));
        let read = Config::from_json(&text).unwrap();
        assert_eq!(read.to_json(), text);
        assert_eq!(read.hidden_dropout_prob, 0.3);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(matches!(Config::read(&path), Err(Error::Read { .. })));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(Config::read(&path), Err(Error::ConfigFile { path: p, .. }) if p == path));
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(Config::read(&path), Err(Error::Read { .. })));
    }
}
