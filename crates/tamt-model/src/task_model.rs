//! Encoders with a task head: reading and starting them, and the names they are written under.

use std::path::Path;

use tamt_kernels::rng::{Purpose, Stream};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::Result;
use crate::model::{Model, Parts, default_checkpoint_name};
use crate::params::{ParamId, Spec};
use crate::task_head::{TaskHead, TaskKind};

/// Where a task head's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadStart {
    /// The checkpoint where it has a head (or a pooler), else random values of this seed.
    Random(u64),
    /// Random values of this seed, whatever the checkpoint has.
    Fresh(u64),
    /// The checkpoint, which must have a head: it was fine-tuned.
    Checkpoint,
}

impl Model {
    /// Reads an encoder for a task: with a task head and without an MLM head. A random head (or pooler) starts as the
    /// reference starts it: N(0, `initializer_range`) and zero biases, but RoBERTa's sequence head U(-1/sqrt(in),
    /// 1/sqrt(in)) throughout.
    ///
    /// # Errors
    /// As [`Model::load`]; a head of another shape (another number of labels) is an error too, and with
    /// [`HeadStart::Checkpoint`] a missing one.
    pub fn load_for_task(dir: &Path, task: TaskKind, head: HeadStart) -> Result<Self> {
        let config = Config::read(dir.join("config.json"))?;
        let checkpoint = Checkpoint::open(dir)?;
        let parts = Parts { pooler: false, mlm_head: false, task: Some(task) };
        let mut model = Self::declare(config, parts, |name| checkpoint.original_name(name).map(str::to_owned));
        for id in model.params.ids() {
            let Spec { name, shape, .. } = model.params.spec(id).clone();
            let in_encoder = name.starts_with("embeddings.") || name.starts_with("encoder.");
            match head {
                HeadStart::Random(seed) if !in_encoder && !checkpoint.contains(&name) => {
                    model.start_head_tensor(id, seed);
                }
                // The pooler is part of the encoder, for a model that has one.
                HeadStart::Fresh(seed)
                    if !in_encoder && (!name.starts_with("pooler.") || !checkpoint.contains(&name)) =>
                {
                    model.start_head_tensor(id, seed);
                }
                _ => checkpoint.load_f32(&name, &shape, model.params.get_mut(id))?,
            }
        }
        Ok(model)
    }

    fn start_head_tensor(&mut self, id: ParamId, seed: u64) {
        let spec = self.params.spec(id);
        let two_layer = matches!(self.task_head, Some(TaskHead::TwoLayer { .. })) && !spec.name.starts_with("pooler.");
        let is_matrix = spec.shape.len() == 2;
        let stream = Stream::new(seed, Purpose::INIT, id.index() as u64);
        let bound = 1.0 / (self.config.hidden_size as f32).sqrt();
        let range = self.config.initializer_range;
        for (i, value) in self.params.get_mut(id).iter_mut().enumerate() {
            *value = match (two_layer, is_matrix) {
                (true, _) => bound * (2.0 * stream.uniform_at(i as u64) - 1.0),
                (false, true) => range * stream.normal_at(i as u64),
                (false, false) => 0.0,
            };
        }
    }

    /// Rearranges the outputs of a sequence head: output `i` becomes what output `order[i]` was.
    ///
    /// # Panics
    /// If the model has no sequence head, or `order` is no permutation of its outputs.
    pub fn reorder_outputs(&mut self, order: &[usize]) {
        let last = match self.task_head {
            Some(TaskHead::Pooled { classifier, .. }) => classifier,
            Some(TaskHead::TwoLayer { out_proj, .. }) => out_proj,
            Some(TaskHead::Span { .. }) | None => panic!("the model has a sequence head"),
        };
        for id in [last.weight, last.bias] {
            let values = self.params.get_mut(id);
            let width = values.len() / order.len();
            let old = values.to_vec();
            for (row, &from) in values.chunks_exact_mut(width).zip(order) {
                row.copy_from_slice(&old[from * width..][..width]);
            }
        }
    }

    /// Gives every tensor the name that `transformers` writes it under in a model with a head. A checkpoint of a bare
    /// encoder has no prefix; beside a head it needs one.
    pub fn use_default_names(&mut self) {
        let family = self.config.family;
        for id in self.params.ids() {
            let name = default_checkpoint_name(family, &self.params.spec(id).name);
            self.params.rename(id, name);
        }
    }
}
