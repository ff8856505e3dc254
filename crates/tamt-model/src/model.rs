//! A BERT-family model: which tensors it has, where they are read from and written to.

use std::borrow::Cow;
use std::path::Path;

use tamt_kernels::rng::{Purpose, Stream};

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Family};
use crate::error::{Error, Result};
use crate::params::{ParamId, Params, Spec};
use crate::task_head::{TaskHead, TaskKind};
use crate::write::write_model;

/// A dense map `y = x Wᵀ + b`.
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    /// `[out, in]`
    pub weight: ParamId,
    /// `[out]`
    pub bias: ParamId,
}

/// Scale and shift of a LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// `[hidden]`
    pub weight: ParamId,
    /// `[hidden]`
    pub bias: ParamId,
}

/// Tensors of the embedding layer.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings {
    /// `[vocab, hidden]`, also the MLM decoder
    pub word: ParamId,
    /// `[positions, hidden]`
    pub position: ParamId,
    /// `[types, hidden]`
    pub token_type: ParamId,
    /// LayerNorm over the sum
    pub norm: Norm,
}

/// Tensors of one transformer layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Q
    pub query: Dense,
    /// K
    pub key: Dense,
    /// V
    pub value: Dense,
    /// Attention output
    pub attention_output: Dense,
    /// LayerNorm after the attention
    pub attention_norm: Norm,
    /// FFN in
    pub intermediate: Dense,
    /// FFN out
    pub output: Dense,
    /// LayerNorm after the FFN
    pub output_norm: Norm,
}

impl Layer {
    /// The six pruned maps, in the order of the reference.
    #[must_use]
    pub fn dense(&self) -> [Dense; 6] {
        [self.query, self.key, self.value, self.attention_output, self.intermediate, self.output]
    }
}

/// Tensors of the MLM head; its decoder is the word-embedding matrix, unmasked.
#[derive(Clone, Copy, Debug)]
pub struct MlmHead {
    /// Dense before the activation
    pub dense: Dense,
    /// LayerNorm after it
    pub norm: Norm,
    /// Bias over the vocabulary
    pub decoder_bias: ParamId,
}

impl MlmHead {
    /// All tensors that belong to the head alone.
    #[must_use]
    pub fn params(&self) -> [ParamId; 5] {
        [self.dense.weight, self.dense.bias, self.norm.weight, self.norm.bias, self.decoder_bias]
    }
}

/// A model in memory: configuration, weights in f32, and which tensor plays which part.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration it was built from.
    pub config: Config,
    /// All weights.
    pub params: Params,
    /// Embedding layer.
    pub embeddings: Embeddings,
    /// Transformer layers.
    pub layers: Vec<Layer>,
    /// The pooler, if the checkpoint has one; no pre-training objective here reaches it.
    pub pooler: Option<Dense>,
    /// The MLM head, if the checkpoint has one.
    pub mlm_head: Option<MlmHead>,
    /// The task head, if one was asked for.
    pub task_head: Option<TaskHead>,
}

/// Optional parts of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// The pooler.
    pub pooler: bool,
    /// The MLM head.
    pub mlm_head: bool,
    /// A task head; BERT's sequence head brings the pooler with it.
    pub task: Option<TaskKind>,
}

impl Model {
    /// Reads a model from a directory in Hugging Face layout, with the pooler and the MLM head where it has them.
    ///
    /// # Errors
    /// If the configuration or the weights are missing, malformed, of wrong shapes or not finite.
    pub fn load(dir: &Path) -> Result<Self> {
        let config = Config::read(dir.join("config.json"))?;
        let checkpoint = Checkpoint::open(dir)?;
        let head = mlm_names(config.family);
        let parts = Parts {
            pooler: checkpoint.contains("pooler.dense.weight"),
            mlm_head: checkpoint.contains(&format!("{}.weight", head.dense)),
            task: None,
        };
        let mut model = Self::declare(config, parts, |name| checkpoint.original_name(name).map(str::to_owned));
        for id in model.params.ids() {
            let Spec { name, shape, .. } = model.params.spec(id).clone();
            checkpoint.load_f32(&name, &shape, model.params.get_mut(id))?;
        }
        model.check_decoder_is_tied(&checkpoint, dir)?;
        Ok(model)
    }

    /// A randomly initialised model: weights from N(0, `initializer_range`), the padding row, biases and shifts zero,
    /// LayerNorm scales one.
    #[must_use]
    pub fn random(config: Config, parts: Parts, seed: u64) -> Self {
        let mut model = Self::declare(config, parts, |_| None);
        let range = model.config.initializer_range;
        for id in model.params.ids() {
            let is_matrix = model.params.spec(id).shape.len() == 2;
            let is_norm_scale = {
                let name = &model.params.spec(id).name;
                name.ends_with("LayerNorm.weight") || name.ends_with("layer_norm.weight")
            };
            let stream = Stream::new(seed, Purpose::INIT, id.index() as u64);
            let values = model.params.get_mut(id);
            if is_matrix {
                for (i, v) in values.iter_mut().enumerate() {
                    *v = range * stream.normal_at(i as u64);
                }
            } else if is_norm_scale {
                values.fill(1.0);
            }
        }
        let hidden = model.config.hidden_size;
        let pad = model.config.pad_token_id as usize;
        model.params.get_mut(model.embeddings.word)[pad * hidden..][..hidden].fill(0.0);
        if model.config.family == Family::Roberta {
            model.params.get_mut(model.embeddings.position)[pad * hidden..][..hidden].fill(0.0);
        }
        model
    }

    /// Adds an MLM head to a model that has none, initialised as [`Model::random`] does.
    #[must_use]
    pub fn with_new_mlm_head(self, seed: u64) -> Self {
        if self.mlm_head.is_some() {
            return self;
        }
        let parts = Parts { pooler: self.pooler.is_some(), mlm_head: true, task: None };
        let mut model = Self::random(self.config.clone(), parts, seed);
        // A prefix-less encoder needs its prefix beside a head: `transformers` reads both from one file that way.
        for id in self.params.ids() {
            let target = model
                .params
                .find(&self.params.spec(id).name)
                .expect("the larger model has every tensor of the smaller");
            model.params.get_mut(target).copy_from_slice(self.params.get(id));
        }
        model
    }

    /// Writes `config.json` and `model.safetensors` (F32) in Hugging Face layout; both appear by atomic rename.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_with(dir, |id| self.params.dense(id))
    }

    /// As [`Model::save`], with the values that `values` gives for each tensor (a ticket's zeros, say).
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save_with<'a>(&'a self, dir: &Path, values: impl Fn(ParamId) -> Cow<'a, [f32]>) -> Result<()> {
        let values: Vec<_> = self.params.ids().map(values).collect();
        let specs = self.params.ids().map(|id| self.params.spec(id)).zip(&values);
        let tensors: Vec<(&str, &[usize], &[f32])> = specs
            .map(|(spec, values)| (spec.checkpoint_name.as_str(), spec.shape.as_slice(), values.as_ref()))
            .collect();
        write_model(dir, &self.written_config(), &tensors)
    }

    /// The matrices that every method prunes, in the order of the reference: word embeddings, then Q, K, V, attention
    /// output, FFN in, FFN out of each layer, then the pooler.
    #[must_use]
    pub fn prunable(&self) -> Vec<ParamId> {
        let mut ids = vec![self.embeddings.word];
        ids.extend(self.layer_matrices());
        ids.extend(self.pooler.map(|p| p.weight));
        ids
    }

    /// The matrices of the transformer layers, in order.
    pub fn layer_matrices(&self) -> impl Iterator<Item = ParamId> {
        self.layers.iter().flat_map(|layer| layer.dense().map(|dense| dense.weight))
    }

    /// Whether a matrix belongs to a transformer layer; returns the layer's number.
    #[must_use]
    pub fn layer_of(&self, id: ParamId) -> Option<usize> {
        self.layers.iter().position(|layer| layer.dense().iter().any(|d| d.weight == id))
    }

    pub(crate) fn declare(config: Config, parts: Parts, original: impl Fn(&str) -> Option<String>) -> Self {
        let family = config.family;
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        let mut params = Params::default();
        let mut add = |name: String, shape: &[usize]| {
            let checkpoint_name = original(&name).unwrap_or_else(|| default_checkpoint_name(family, &name));
            params.declare(name, checkpoint_name, shape)
        };
        let dense = |add: &mut dyn FnMut(String, &[usize]) -> ParamId, at: &str, out: usize, inp: usize| Dense {
            weight: add(format!("{at}.weight"), &[out, inp]),
            bias: add(format!("{at}.bias"), &[out]),
        };
        let norm = |add: &mut dyn FnMut(String, &[usize]) -> ParamId, at: &str| Norm {
            weight: add(format!("{at}.weight"), &[hidden]),
            bias: add(format!("{at}.bias"), &[hidden]),
        };
        let embeddings = Embeddings {
            word: add("embeddings.word_embeddings.weight".into(), &[config.vocab_size, hidden]),
            position: add("embeddings.position_embeddings.weight".into(), &[config.max_position_embeddings, hidden]),
            token_type: add("embeddings.token_type_embeddings.weight".into(), &[config.type_vocab_size, hidden]),
            norm: norm(&mut add, "embeddings.LayerNorm"),
        };
        let layers = (0..config.num_hidden_layers)
            .map(|l| {
                let at = |rest: &str| format!("encoder.layer.{l}.{rest}");
                Layer {
                    query: dense(&mut add, &at("attention.self.query"), hidden, hidden),
                    key: dense(&mut add, &at("attention.self.key"), hidden, hidden),
                    value: dense(&mut add, &at("attention.self.value"), hidden, hidden),
                    attention_output: dense(&mut add, &at("attention.output.dense"), hidden, hidden),
                    attention_norm: norm(&mut add, &at("attention.output.LayerNorm")),
                    intermediate: dense(&mut add, &at("intermediate.dense"), ffn, hidden),
                    output: dense(&mut add, &at("output.dense"), hidden, ffn),
                    output_norm: norm(&mut add, &at("output.LayerNorm")),
                }
            })
            .collect();
        let pooled = family == Family::Bert && matches!(parts.task, Some(TaskKind::Sequence { .. }));
        let pooler = (parts.pooler || pooled).then(|| dense(&mut add, "pooler.dense", hidden, hidden));
        let mlm_head = parts.mlm_head.then(|| {
            let names = mlm_names(family);
            MlmHead {
                dense: dense(&mut add, names.dense, hidden, hidden),
                norm: norm(&mut add, names.norm),
                decoder_bias: add(names.bias.into(), &[config.vocab_size]),
            }
        });
        let task_head = parts.task.map(|task| match (task, pooler) {
            (TaskKind::Span, _) => TaskHead::Span { qa_outputs: dense(&mut add, "qa_outputs", 2, hidden) },
            (TaskKind::Sequence { outputs }, Some(pooler)) if pooled => {
                TaskHead::Pooled { pooler, classifier: dense(&mut add, "classifier", outputs, hidden) }
            }
            (TaskKind::Sequence { outputs }, _) => TaskHead::TwoLayer {
                dense: dense(&mut add, "classifier.dense", hidden, hidden),
                out_proj: dense(&mut add, "classifier.out_proj", outputs, hidden),
            },
        });
        Self { config, params, embeddings, layers, pooler, mlm_head, task_head }
    }

    /// A decoder of its own would silently be ignored otherwise.
    fn check_decoder_is_tied(&self, checkpoint: &Checkpoint, dir: &Path) -> Result<()> {
        let decoder = mlm_names(self.config.family).decoder;
        if self.mlm_head.is_none() || !checkpoint.contains(decoder) {
            return Ok(());
        }
        let word = self.params.get(self.embeddings.word);
        let mut values = vec![0.0; word.len()];
        checkpoint.load_f32(decoder, &self.params.spec(self.embeddings.word).shape, &mut values)?;
        if values != word {
            return Err(Error::UntiedDecoder { path: dir.to_owned(), name: decoder.to_owned() });
        }
        Ok(())
    }

    fn written_config(&self) -> Config {
        let family = if self.config.family == Family::Bert { "Bert" } else { "Roberta" };
        let class = match (self.task_head, self.mlm_head) {
            (Some(TaskHead::Span { .. }), _) => "ForQuestionAnswering",
            (Some(_), _) => "ForSequenceClassification",
            (None, Some(_)) => "ForMaskedLM",
            (None, None) => "Model",
        };
        let mut config = self.config.clone();
        config.set_extra("architectures", serde_json::json!([format!("{family}{class}")]));
        config
    }
}

struct MlmNames {
    dense: &'static str,
    norm: &'static str,
    bias: &'static str,
    decoder: &'static str,
}

fn mlm_names(family: Family) -> MlmNames {
    match family {
        Family::Bert => MlmNames {
            dense: "cls.predictions.transform.dense",
            norm: "cls.predictions.transform.LayerNorm",
            bias: "cls.predictions.bias",
            decoder: "cls.predictions.decoder.weight",
        },
        Family::Roberta => MlmNames {
            dense: "lm_head.dense",
            norm: "lm_head.layer_norm",
            bias: "lm_head.bias",
            decoder: "lm_head.decoder.weight",
        },
    }
}

/// The name `transformers` gives a tensor in a model with a head.
pub(crate) fn default_checkpoint_name(family: Family, name: &str) -> String {
    let in_head = ["cls.", "lm_head.", "classifier.", "qa_outputs."].iter().any(|head| name.starts_with(head));
    if in_head { name.to_owned() } else { format!("{}.{name}", family.prefix()) }
}
