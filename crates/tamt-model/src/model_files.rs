//! Reading and writing models in Hugging Face layout.

use std::borrow::Cow;
use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Family};
use crate::error::{Error, Result};
use crate::model::{Model, Parts, TaskHead, TaskKind, default_checkpoint_name, mlm_names};
use crate::params::{ParamId, Spec};
use crate::write::write_model;

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

impl Model {
    /// Reads a model from a directory in Hugging Face layout, with the pooler and the MLM head if the checkpoint has
    /// them.
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

    /// Reads an encoder for a task, with a task head and without an MLM head.
    ///
    /// A random head (or pooler) has the initial values of the reference: N(0, `initializer_range`) and zero biases,
    /// but U(-1/sqrt(in), 1/sqrt(in)) throughout RoBERTa's sequence head.
    ///
    /// # Errors
    /// As [`Model::load`], and if the checkpoint's head has another shape (another number of labels) or, with
    /// [`HeadStart::Checkpoint`], is missing.
    pub fn load_for_task(dir: &Path, task: TaskKind, head: HeadStart) -> Result<Self> {
        let config = Config::read(dir.join("config.json"))?;
        let checkpoint = Checkpoint::open(dir)?;
        let parts = Parts { pooler: false, mlm_head: false, task: Some(task) };
        let mut model = Self::declare(config, parts, |name| checkpoint.original_name(name).map(str::to_owned));
        for id in model.params.ids() {
            let Spec { name, shape, .. } = model.params.spec(id).clone();
            let in_encoder = name.starts_with("embeddings.") || name.starts_with("encoder.");
            let is_stored = checkpoint.contains(&name);
            let seed = match head {
                HeadStart::Random(seed) => (!in_encoder && !is_stored).then_some(seed),
                // A stored pooler belongs to the encoder.
                HeadStart::Fresh(seed) => (!(in_encoder || name.starts_with("pooler.") && is_stored)).then_some(seed),
                HeadStart::Checkpoint => None,
            };
            match seed {
                Some(seed) => model.start_head_tensor(id, seed),
                None => checkpoint.load_f32(&name, &shape, model.params.get_mut(id))?,
            }
        }
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` (F32) in Hugging Face layout, each by atomic rename.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_with(dir, |id| self.params.get(id))
    }

    /// As [`Model::save`], with other values for each tensor (a ticket's zeros, for instance).
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

    /// Gives every tensor the name that `transformers` uses in a model with a head, where encoder tensors have a
    /// prefix. A checkpoint of a bare encoder has no prefix.
    pub fn use_default_names(&mut self) {
        let family = self.config.family;
        for id in self.params.ids() {
            let name = default_checkpoint_name(family, &self.params.spec(id).name);
            self.params.rename(id, name);
        }
    }

    /// Refuses a decoder that differs from the word embeddings: this crate ties the two.
    fn check_decoder_is_tied(&self, checkpoint: &Checkpoint, dir: &Path) -> Result<()> {
        let decoder = mlm_names(self.config.family).decoder;
        if self.mlm_head.is_none() || !checkpoint.contains(&decoder) {
            return Ok(());
        }
        let word = self.params.get(self.embeddings.word);
        let mut values = vec![0.0; word.len()];
        checkpoint.load_f32(&decoder, &self.params.spec(self.embeddings.word).shape, &mut values)?;
        if values != *word {
            return Err(Error::UntiedDecoder { path: dir.to_owned(), name: decoder });
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
