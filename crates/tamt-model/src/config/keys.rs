//! Typed access to the values of a `config.json`.

use serde_json::{Map, Value};
use tamt_kernels::ops::activation::Activation;

use crate::config::family::Family;
use crate::error::{Error, Result};

/// A JSON object. `null` counts as an absent value, as in `transformers`.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn size(&self, key: &'static str) -> Result<usize> {
        self.number(key, None, "size", |value| usize::try_from(value.as_u64()?).ok())
    }

    pub(super) fn id(&self, key: &'static str, default: u32) -> Result<u32> {
        self.number(key, Some(default), "token id", |value| u32::try_from(value.as_u64()?).ok())
    }

    pub(super) fn float(&self, key: &'static str, default: f32) -> Result<f32> {
        self.number(key, Some(default), "number", |value| Some(value.as_f64()? as f32))
    }

    pub(super) fn optional_float(&self, key: &'static str) -> Result<Option<f32>> {
        self.get(key).map(|_| self.float(key, 0.0)).transpose()
    }

    /// The parsed value of a key, or its default. `kind` names the expected kind of value in an error.
    fn number<T>(
        &self,
        key: &'static str,
        default: Option<T>,
        kind: &str,
        parse: fn(&Value) -> Option<T>,
    ) -> Result<T> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => invalid(key, "is missing"),
            (Some(value), _) => match parse(value) {
                Some(number) => Ok(number),
                None => invalid(key, format!("is {value}, not a {kind}")),
            },
        }
    }

    /// The activation function of `hidden_act`, by each of its names in `transformers`.
    pub(super) fn activation(&self) -> Result<Activation> {
        match self.get("hidden_act") {
            None => Ok(Activation::Gelu),
            Some(value) => match value.as_str() {
                Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
                Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
                Some("relu") => Ok(Activation::Relu),
                Some("tanh") => Ok(Activation::Tanh),
                _ => invalid(
                    "hidden_act",
                    format!("is {value}; supported are gelu, gelu_new, gelu_pytorch_tanh, relu and tanh"),
                ),
            },
        }
    }

    /// The family of `model_type` or, without this key, of `architectures`.
    pub(super) fn family(&self) -> Result<Family> {
        let Some(value) = self.get("model_type") else {
            let architecture = self.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
            let roberta = ["Roberta", "XLMRoberta", "Camembert"];
            return Ok(match architecture {
                Some(name) if roberta.iter().any(|r| name.starts_with(r)) => Family::Roberta,
                _ => Family::Bert,
            });
        };
        match value.as_str() {
            Some("bert") => Ok(Family::Bert),
            Some("roberta" | "xlm-roberta" | "camembert") => Ok(Family::Roberta),
            _ => invalid("model_type", format!("is {value}; supported are bert, roberta, xlm-roberta and camembert")),
        }
    }

    /// Refuses decoders, cross-attention and relative positions.
    pub(super) fn refuse_unsupported(&self) -> Result<()> {
        match self.get("position_embedding_type") {
            Some(kind) if kind != "absolute" => {
                return invalid("position_embedding_type", format!("is {kind}; only \"absolute\" is supported"));
            }
            _ => {}
        }
        for (key, what) in [("is_decoder", "decoders"), ("add_cross_attention", "cross-attention layers")] {
            match self.get(key) {
                None | Some(Value::Bool(false)) => {}
                Some(value) => {
                    return invalid(key, format!("is {value}; {what} are not supported"));
                }
            }
        }
        Ok(())
    }
}

/// The error of a key whose value has a problem.
pub(super) fn invalid<T>(key: &'static str, problem: impl Into<String>) -> Result<T> {
    Err(Error::ConfigValue { key, problem: problem.into() })
}
