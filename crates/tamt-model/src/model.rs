//! The structure of a BERT-family model: its tensors, their names and shapes, and the role of each.

use std::path::PathBuf;

use tamt_kernels::masks::{BitMask, WeightRef};

use crate::config::{Config, Family};
use crate::error::{Error, Result};
use crate::params::{Masks, ParamId, Params};

/// A linear layer `y = x Wᵀ + b` (`torch.nn.Linear`).
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    /// `[out, in]`
    pub weight: ParamId,
    /// `[out]`
    pub bias: ParamId,
}

/// Scale and shift of a `LayerNorm`.
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
    /// `LayerNorm` of the sum
    pub norm: Norm,
}

/// Tensors of one transformer layer (`BertLayer`).
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// Q, `[hidden, hidden]`
    pub query: Dense,
    /// K, `[hidden, hidden]`
    pub key: Dense,
    /// V, `[hidden, hidden]`
    pub value: Dense,
    /// Attention output, `[hidden, hidden]`
    pub attention_output: Dense,
    /// `LayerNorm` after the attention
    pub attention_norm: Norm,
    /// FFN in, `[intermediate, hidden]`
    pub intermediate: Dense,
    /// FFN out, `[hidden, intermediate]`
    pub output: Dense,
    /// `LayerNorm` after the FFN
    pub output_norm: Norm,
}

/// Position of the query's linear layer in [`Layer::dense`]; the others follow in order.
pub(crate) const QUERY: usize = 0;
pub(crate) const KEY: usize = 1;
pub(crate) const VALUE: usize = 2;
pub(crate) const ATTENTION_OUTPUT: usize = 3;
pub(crate) const INTERMEDIATE: usize = 4;
pub(crate) const OUTPUT: usize = 5;

impl Layer {
    /// The six pruned linear layers, in the order of the reference.
    pub fn dense(&self) -> [Dense; 6] {
        [self.query, self.key, self.value, self.attention_output, self.intermediate, self.output]
    }
}

/// Tensors of the MLM head; its decoder is the word-embedding matrix, unmasked.
#[derive(Clone, Copy, Debug)]
pub struct MlmHead {
    /// Linear layer in front of the activation function
    pub dense: Dense,
    /// `LayerNorm` after the activation
    pub norm: Norm,
    /// Bias over the vocabulary
    pub decoder_bias: ParamId,
}

impl MlmHead {
    /// All tensors that belong to the head alone.
    pub fn params(&self) -> [ParamId; 5] {
        [self.dense.weight, self.dense.bias, self.norm.weight, self.norm.bias, self.decoder_bias]
    }
}

/// What a task head predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// This many values for a sequence: one for each class, or a single one for regression.
    Sequence {
        /// Number of values.
        outputs: usize,
    },
    /// A start and an end score for each token.
    Span,
}

/// Tensors of a task head.
#[derive(Clone, Copy, Debug)]
pub enum TaskHead {
    /// BERT's, over the pooler.
    Pooled {
        /// `[hidden, hidden]`, part of the encoder
        pooler: Dense,
        /// `[outputs, hidden]`
        classifier: Dense,
    },
    /// RoBERTa's, with a dense layer of its own.
    TwoLayer {
        /// `[hidden, hidden]`
        dense: Dense,
        /// `[outputs, hidden]`
        out_proj: Dense,
    },
    /// `[2, hidden]`, over every token.
    Span {
        /// `[2, hidden]`
        qa_outputs: Dense,
    },
}

impl TaskHead {
    /// The linear layer over the first token of each sequence, which a span head lacks, and the one with the outputs.
    pub(crate) fn linears(self) -> (Option<Dense>, Dense) {
        match self {
            Self::Pooled { pooler, classifier } => (Some(pooler), classifier),
            Self::TwoLayer { dense, out_proj } => (Some(dense), out_proj),
            Self::Span { qa_outputs } => (None, qa_outputs),
        }
    }
}

/// A model in memory: the configuration, the tensors, and the role of each tensor.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration it was built from.
    pub config: Config,
    /// All tensors.
    pub params: Params,
    /// Embedding layer.
    pub embeddings: Embeddings,
    /// Transformer layers.
    pub layers: Vec<Layer>,
    /// The pooler, if the checkpoint has one. The pre-training objectives do not use the pooler.
    pub pooler: Option<Dense>,
    /// The MLM head, if the checkpoint has one.
    pub mlm_head: Option<MlmHead>,
    /// The task head, if the model has one.
    pub task_head: Option<TaskHead>,
    /// The checkpoint's MLM decoder that is not tied to the word embeddings: the model's directory and the tensor's
    /// name. Such a model is read without its MLM head.
    pub untied_decoder: Option<(PathBuf, String)>,
    /// What a user should know about the reading of the checkpoint, a sentence each.
    pub notes: Vec<String>,
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
    /// The matrices that every pruning method prunes, in the order of the reference: word embeddings, then Q, K, V,
    /// attention output, FFN in and FFN out of each layer, then the pooler.
    pub fn prunable(&self) -> Vec<ParamId> {
        let mut ids = vec![self.embeddings.word];
        ids.extend(self.layer_matrices());
        ids.extend(self.pooler.map(|p| p.weight));
        ids
    }

    /// The MLM head.
    ///
    /// # Errors
    /// [`Error::NoMlmHead`], or [`Error::UntiedDecoder`].
    pub fn decoding_head(&self) -> Result<MlmHead> {
        match (self.mlm_head, &self.untied_decoder) {
            (Some(head), _) => Ok(head),
            (None, None) => Err(Error::NoMlmHead),
            (None, Some((path, name))) => Err(Error::UntiedDecoder { path: path.clone(), name: name.clone() }),
        }
    }

    /// The matrices of the transformer layers, in order.
    pub fn layer_matrices(&self) -> impl Iterator<Item = ParamId> {
        self.layers.iter().flat_map(|layer| layer.dense().map(|dense| dense.weight))
    }

    /// The transformer layer (from 0) of one of [`Model::layer_matrices`]; `None` for any other tensor.
    pub fn layer_of(&self, id: ParamId) -> Option<usize> {
        self.layers.iter().position(|layer| layer.dense().iter().any(|d| d.weight == id))
    }

    /// A model whose tensors have no elements yet. `original` maps a canonical tensor name to its name in the
    /// checkpoint, if the checkpoint has the tensor.
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
                dense: dense(&mut add, &names.dense, hidden, hidden),
                norm: norm(&mut add, &names.norm),
                decoder_bias: add(names.bias, &[config.vocab_size]),
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
        let (untied_decoder, notes) = (None, Vec::new());
        Self { config, params, embeddings, layers, pooler, mlm_head, task_head, untied_decoder, notes }
    }
}

impl Masks {
    /// Masks of the matrices of a model's layers that drop the weights that are zero. A matrix that is stored without its
    /// dropped weights has its own mask.
    pub fn of_nonzero(model: &Model) -> Self {
        let mut masks = Self::default();
        for id in model.layer_matrices() {
            let mask = match model.params.weight(id, None) {
                WeightRef::Compact(weight) => weight.mask().clone(),
                WeightRef::Dense(_) => {
                    let [rows, cols] = model.params.matrix_shape(id);
                    BitMask::of_nonzero(rows, cols, &model.params.get(id))
                }
            };
            masks.set(id, mask);
        }
        masks
    }
}

/// Canonical names of the tensors of an MLM head.
pub(crate) struct MlmNames {
    pub(crate) dense: String,
    norm: String,
    pub(crate) bias: String,
    pub(crate) decoder: String,
    pub(crate) decoder_bias: String,
}

pub(crate) fn mlm_names(family: Family) -> MlmNames {
    let (dense, norm, head) = match family {
        Family::Bert => ("transform.dense", "transform.LayerNorm", "cls.predictions"),
        Family::Roberta => ("dense", "layer_norm", "lm_head"),
    };
    let [dense, norm, bias, decoder, decoder_bias] =
        [dense, norm, "bias", "decoder.weight", "decoder.bias"].map(|name| format!("{head}.{name}"));
    MlmNames { dense, norm, bias, decoder, decoder_bias }
}

/// The name `transformers` gives a tensor in a model with a head.
pub(crate) fn default_checkpoint_name(family: Family, name: &str) -> String {
    let in_head = ["cls.", "lm_head.", "classifier.", "qa_outputs."].iter().any(|head| name.starts_with(head));
    if in_head { name.to_owned() } else { format!("{}.{name}", family.prefix()) }
}
