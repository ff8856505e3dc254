//! Reading and writing models in Hugging Face layout.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Family};
use crate::error::Result;
use crate::hub::snapshot::missing_note;
use crate::model::{Model, Parts, TaskHead, TaskKind, default_checkpoint_name, mlm_names};
use crate::params::{ParamId, Spec};
use crate::write::write_model;

/// Number of tensors of an MLM head, which are the last ones of a model without a task head.
const HEAD_TENSORS: usize = 5;

/// Where a task head's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadStart {
    /// From the checkpoint; tensors of the head and the pooler that the checkpoint lacks are random with this seed.
    Random(u64),
    /// Random values of this seed; the checkpoint's head is ignored.
    Fresh(u64),
    /// The checkpoint, which must have a head: a fine-tuned model.
    Checkpoint,
}

/// How the packed matrices of a packed model are stored in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// With their dropped weights as zeros, as the matrices of any model: for masks and for training.
    #[default]
    Dense,
    /// Without their dropped weights: for forward passes without masks. The dense matrices are never in memory.
    Compact,
}

impl Model {
    /// Reads a model from a directory in Hugging Face layout, with the pooler and the MLM head if the checkpoint has
    /// them.
    ///
    /// # Errors
    /// If the configuration or the weights are missing, malformed, of wrong shapes or not finite.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_as(dir, Storage::Dense)
    }

    /// [`Model::load`] with a choice of how packed matrices are stored.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load_as(dir: &Path, storage: Storage) -> Result<Self> {
        let config = Config::read(dir.join("config.json"))?;
        let checkpoint = Checkpoint::open(dir)?;
        let head = mlm_names(config.family);
        let parts = Parts {
            pooler: checkpoint.contains("pooler.dense.weight"),
            mlm_head: checkpoint.contains(&format!("{}.weight", head.dense)),
            task: None,
        };
        check_words_are_stored(&config, &checkpoint)?;
        let mut model = Self::declare(config, parts, |name| checkpoint.original_name(name).map(str::to_owned));
        let ids: Vec<ParamId> = model.params.ids().collect();
        model.read_params(&checkpoint, &ids, storage)?;
        model.notes = notes_on(dir, &checkpoint, &model.config);
        let path = dir.display();
        let name = mlm_names(model.config.family).decoder;
        let left_out = if model.mlm_head.is_some() && is_untied(&model.config) && !checkpoint.contains(&name) {
            Some(format!(
                "`tie_word_embeddings` is false and no `{name}` is stored: transformers would draw the decoder at random"
            ))
        } else if let Some(name) = model.decoder_of_its_own(&checkpoint)? {
            let reason = format!("its `{name}` is not tied; only tied decoders are supported");
            model.untied_decoder = Some((dir.to_owned(), name));
            Some(reason)
        } else {
            None
        };
        if let Some(reason) = left_out {
            model.notes.push(format!("{path}: the MLM head is left out, because {reason}"));
            model.mlm_head = None;
            model.params.truncate(ids.len() - HEAD_TENSORS);
        }
        Ok(model)
    }

    /// Reads tensors of a checkpoint. Shapes are checked ahead of the first allocation, so the size of the file bounds
    /// the memory that a configuration can claim.
    fn read_params(&mut self, checkpoint: &Checkpoint, ids: &[ParamId], storage: Storage) -> Result<()> {
        for &id in ids {
            let Spec { name, shape, .. } = self.params.spec(id);
            checkpoint.check(name, shape)?;
        }
        for &id in ids {
            let Spec { name, shape, .. } = self.params.spec(id).clone();
            if storage == Storage::Compact
                && let Some(weight) = checkpoint.load_compact(&name, &shape)?
            {
                self.params.set_compact(id, weight);
                continue;
            }
            self.params.fill_with_zeros(id);
            checkpoint.load_f32(&name, &shape, self.params.get_mut(id))?;
        }
        Ok(())
    }

    /// Reads an encoder for a task, with a task head and without an MLM head.
    ///
    /// A random head (or pooler) has the initial values of the reference: N(0, `initializer_range`) and zero biases,
    /// but U(-1/sqrt(in), 1/sqrt(in)) throughout RoBERTa's sequence head.
    ///
    /// # Errors
    /// As [`Model::load`], and if the checkpoint's head has another shape (another number of labels) or, with
    /// [`HeadStart::Checkpoint`], is missing.
    pub fn load_for_task(dir: &Path, task: TaskKind, head: HeadStart) -> Result<Self> {
        Self::load_for_task_as(dir, task, head, Storage::Dense)
    }

    /// [`Model::load_for_task`] with a choice of how packed matrices are stored.
    ///
    /// # Errors
    /// Those of [`Model::load_for_task`].
    pub fn load_for_task_as(dir: &Path, task: TaskKind, head: HeadStart, storage: Storage) -> Result<Self> {
        let config = Config::read(dir.join("config.json"))?;
        let checkpoint = Checkpoint::open(dir)?;
        check_words_are_stored(&config, &checkpoint)?;
        let parts = Parts { pooler: false, mlm_head: false, task: Some(task) };
        let mut model = Self::declare(config, parts, |name| checkpoint.original_name(name).map(str::to_owned));
        let (mut stored, mut random) = (Vec::new(), Vec::new());
        for id in model.params.ids() {
            let name = &model.params.spec(id).name;
            let in_encoder = name.starts_with("embeddings.") || name.starts_with("encoder.");
            let is_stored = checkpoint.contains(name);
            let seed = match head {
                HeadStart::Random(seed) => (!in_encoder && !is_stored).then_some(seed),
                // A stored pooler belongs to the encoder.
                HeadStart::Fresh(seed) => (!(in_encoder || name.starts_with("pooler.") && is_stored)).then_some(seed),
                HeadStart::Checkpoint => None,
            };
            match seed {
                Some(seed) => random.push((id, seed)),
                None => stored.push(id),
            }
        }
        model.read_params(&checkpoint, &stored, storage)?;
        for (id, seed) in random {
            model.params.fill_with_zeros(id);
            model.start_head_tensor(id, seed);
        }
        model.notes = notes_on(dir, &checkpoint, &model.config);
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` (F32) in Hugging Face layout, each by atomic rename.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let values: Vec<_> = self.params.ids().map(|id| self.params.get(id)).collect();
        let specs = self.params.ids().map(|id| self.params.spec(id)).zip(&values);
        let tensors: Vec<(&str, &[usize], &[f32])> = specs
            .map(|(spec, values)| (spec.checkpoint_name.as_str(), spec.shape.as_slice(), values.as_ref()))
            .collect();
        write_model(dir, &self.written_config(), &tensors)
    }

    /// Gives every tensor the name that `transformers` uses in a model with a head, where encoder tensors have a
    /// prefix. A checkpoint of a bare encoder has no prefix.
    pub fn use_default_names(&mut self) {
        let family = self.config.family;
        for id in self.params.ids() {
            let name = default_checkpoint_name(family, &self.params.spec(id).name);
            self.params.rename(id, name);
        }
    }

    /// The name of a tensor of the checkpoint's decoder that differs from the tensor of the model it would be tied to.
    fn decoder_of_its_own(&self, checkpoint: &Checkpoint) -> Result<Option<String>> {
        let Some(head) = self.mlm_head else { return Ok(None) };
        let names = mlm_names(self.config.family);
        for (name, id) in [(names.decoder, self.embeddings.word), (names.decoder_bias, head.decoder_bias)] {
            if !checkpoint.contains(&name) || checkpoint.is_tied(&name) {
                continue;
            }
            let own = self.params.get(id);
            let shape = &self.params.spec(id).shape;
            let mut values = Vec::new();
            if checkpoint.shape(&name) == Some(shape) {
                checkpoint.check(&name, shape)?;
                values.resize(own.len(), 0.0);
                checkpoint.load_f32(&name, shape, &mut values)?;
            }
            if values != *own {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn written_config(&self) -> Config {
        let kind = self.config.extra("model_type").and_then(Value::as_str);
        let prefix = match (self.config.family, kind) {
            (Family::Bert, _) => "Bert",
            (Family::Roberta, Some("xlm-roberta")) => "XLMRoberta",
            (Family::Roberta, Some("camembert")) => "Camembert",
            (Family::Roberta, _) => "Roberta",
        };
        let class = match (self.task_head, self.mlm_head) {
            (Some(TaskHead::Span { .. }), _) => "ForQuestionAnswering",
            (Some(_), _) => "ForSequenceClassification",
            (None, Some(_)) => "ForMaskedLM",
            (None, None) => "Model",
        };
        let mut config = self.config.clone();
        config.set_extra("architectures", serde_json::json!([format!("{prefix}{class}")]));
        // The decoder is the word embeddings, and is not written. Without the tie it would be drawn at random.
        if self.mlm_head.is_some() && is_untied(&config) {
            config.set_extra("tie_word_embeddings", Value::Bool(true));
        }
        config.set_dtype("float32");
        config
    }
}

/// What a user should know about the reading of a model, a sentence each.
fn notes_on(dir: &Path, checkpoint: &Checkpoint, config: &Config) -> Vec<String> {
    let notes = checkpoint.notes().iter().cloned();
    notes.chain(layers_note(dir, checkpoint, config)).chain(missing_note(dir)).collect()
}

/// A note on stored layers that the configuration does not count, whose absence would change results without an error.
fn layers_note(dir: &Path, checkpoint: &Checkpoint, config: &Config) -> Option<String> {
    let number = |name: &str| name.strip_prefix("encoder.layer.")?.split('.').next()?.parse::<usize>().ok();
    let stored: BTreeSet<usize> = checkpoint.names().filter_map(number).collect();
    let counted = config.num_hidden_layers;
    stored.last().filter(|last| **last >= counted).map(|_| {
        let (path, stored) = (dir.display(), stored.len());
        format!("{path}: the checkpoint has {stored} layers, and config.json says {counted}: the others are left out")
    })
}

/// Refuses word embeddings that are stored only as a decoder that is not tied to them.
fn check_words_are_stored(config: &Config, checkpoint: &Checkpoint) -> Result<()> {
    if is_untied(config) { checkpoint.check_has_own_word_embeddings() } else { Ok(()) }
}

/// Whether the decoder of the MLM head is no copy of the word embeddings.
fn is_untied(config: &Config) -> bool {
    config.extra("tie_word_embeddings") == Some(&Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::write::write_config;

    fn config(kind: &str) -> Config {
        let config = json!({
            "model_type": kind, "vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 4, "max_position_embeddings": 5, "type_vocab_size": 1, "tie_word_embeddings": false,
        });
        Config::from_json(&config.to_string()).unwrap()
    }

    #[test]
    fn a_tied_head_is_written_as_one_and_read_again() {
        for (kind, mlm_head) in [("bert", true), ("roberta", true), ("bert", false)] {
            let dir = tempfile::tempdir().unwrap();
            Model::random(config(kind), Parts { mlm_head, ..Parts::default() }, 1).save(dir.path()).unwrap();
            let read = Model::load(dir.path()).unwrap();
            assert_eq!(read.mlm_head.is_some(), mlm_head, "{kind}: {:?}", read.notes);
            assert_eq!(is_untied(&read.config), !mlm_head, "{kind}");
        }
    }

    #[test]
    fn layers_that_the_configuration_does_not_count_have_a_note() {
        for (kind, mlm_head) in [("bert", false), ("bert", true), ("roberta", true)] {
            let dir = tempfile::tempdir().unwrap();
            let mut config = config(kind);
            config.num_hidden_layers = 3;
            let mut model = Model::random(config, Parts { mlm_head, ..Parts::default() }, 1);
            model.use_default_names();
            model.save(dir.path()).unwrap();
            assert_eq!(Model::load(dir.path()).unwrap().notes, [""; 0], "{kind}");
            let mut fewer = model.written_config();
            fewer.num_hidden_layers = 1;
            write_config(dir.path(), &fewer).unwrap();
            let task = Model::load_for_task(dir.path(), TaskKind::Span, HeadStart::Fresh(1)).unwrap();
            let expected = "the checkpoint has 3 layers, and config.json says 1: the others are left out";
            for notes in [Model::load(dir.path()).unwrap().notes, task.notes] {
                assert!(notes.len() == 1 && notes[0].ends_with(expected), "{kind}: {notes:?}");
            }
        }
    }

    #[test]
    fn the_class_of_a_written_model_is_one_of_its_kind() {
        let (encoder, with_head) = (Parts::default(), Parts { mlm_head: true, ..Parts::default() });
        let with_task = Parts { task: Some(TaskKind::Sequence { outputs: 2 }), ..Parts::default() };
        for (kind, parts, class) in [
            ("bert", encoder, "BertModel"),
            ("roberta", with_head, "RobertaForMaskedLM"),
            ("xlm-roberta", with_head, "XLMRobertaForMaskedLM"),
            ("camembert", with_task, "CamembertForSequenceClassification"),
        ] {
            let config = Model::random(config(kind), parts, 1).written_config();
            assert_eq!(config.extra("architectures"), Some(&json!([class])));
        }
    }
}
