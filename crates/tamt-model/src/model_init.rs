//! Initial values of models and heads that no checkpoint has.

use tamt_kernels::rng::{Purpose, Stream};

use crate::config::{Config, Family};
use crate::model::{Model, Parts, TaskHead};
use crate::params::ParamId;

impl Model {
    /// A randomly initialised model: weights are N(0, `initializer_range`), the padding row, biases and shifts 0, and
    /// `LayerNorm` scales 1.
    pub fn random(config: Config, parts: Parts, seed: u64) -> Self {
        let mut model = Self::declare(config, parts, |_| None);
        let range = model.config.initializer_range;
        for id in model.params.ids() {
            model.params.fill_with_zeros(id);
            let is_matrix = model.params.spec(id).shape.len() == 2;
            let is_norm_scale =
                ["LayerNorm.weight", "layer_norm.weight"].iter().any(|end| model.params.spec(id).name.ends_with(end));
            let stream = Stream::new(seed, Purpose::INIT, id.index() as u64);
            let values = model.params.get_mut(id);
            if is_matrix {
                values.iter_mut().enumerate().for_each(|(i, v)| *v = range * stream.normal_at(i as u64));
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
        // `random` names every encoder tensor with a prefix, as `transformers` expects in a file with a head.
        for id in self.params.ids() {
            let target = model
                .params
                .find(&self.params.spec(id).name)
                .expect("the larger model has every tensor of the smaller");
            model.params.get_mut(target).copy_from_slice(&self.params.get(id));
        }
        model
    }

    /// Initialises a tensor of a task head (or the pooler) as the reference does.
    pub(crate) fn start_head_tensor(&mut self, id: ParamId, seed: u64) {
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

    /// Permutes the outputs of a sequence head: new output `i` is old output `order[i]`.
    ///
    /// # Panics
    /// If the model has no sequence head, or `order` is no permutation of its outputs.
    pub fn reorder_outputs(&mut self, order: &[usize]) {
        let Some((Some(_), last)) = self.task_head.map(TaskHead::linears) else {
            panic!("the model has a sequence head");
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
}
