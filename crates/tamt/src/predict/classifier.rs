//! A fine-tuned model that stays in memory and decides about single texts and pairs.

use tamt_data::Pair;
use tamt_data::tasks::{Head, encode_one};
use tamt_model::{Pass, PreparedWeights};

use crate::buffers::PassBuffers;
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::predict::softmax::softmax;
use crate::tune::{OwnTask, TaskModel, head_outputs};

/// A model with a head for classification or regression, whose matrices are prepared once. The outputs are those of
/// [`predict`](super::predict()).
#[derive(Debug)]
pub struct Classifier {
    model: TaskModel,
    own: OwnTask,
    prepared: PreparedWeights,
}

impl Classifier {
    /// The classifier of a model ([`TaskModel::load_own`]).
    ///
    /// # Errors
    /// [`Error::UnusableHead`] if the head predicts spans.
    pub fn new(model: TaskModel, mut own: OwnTask, compute: Compute) -> Result<Self> {
        if matches!(own.task.head, Head::Span { .. }) {
            let reason = "its head finds answers in contexts; known are heads of labels and of numbers".to_owned();
            return Err(Error::UnusableHead { path: model.name.clone().into(), reason });
        }
        let longest = model.model.config.max_length();
        own.settings.max_length = own.settings.max_length.min(longest);
        let prepared = compute.prepare(&model.model, None);
        Ok(Self { model, own, prepared })
    }

    /// The model.
    pub fn model(&self) -> &TaskModel {
        &self.model
    }

    /// The names of the classes; `None` for a regression.
    pub fn labels(&self) -> Option<&[String]> {
        match self.own.task.head {
            Head::Regression { .. } => None,
            _ => Some(self.own.task.labels()),
        }
    }

    /// Numbers that the head gives for a text.
    pub fn outputs(&self) -> usize {
        self.own.task.outputs()
    }

    /// Most tokens of a text or a pair, special tokens included.
    pub fn max_length(&self) -> usize {
        self.own.settings.max_length
    }

    /// The tokens of a text or a pair, at most [`Classifier::max_length`].
    ///
    /// # Errors
    /// If the maximal length leaves no room for text, or a text cannot be tokenized.
    pub fn tokens(&self, first: &str, second: Option<&str>) -> Result<Pair> {
        Ok(encode_one(first, second, &self.model.tokenizer, self.max_length())?)
    }

    /// The outputs of the head for each sequence, `[sequences, outputs]`, as one batch. The outputs of a sequence do not
    /// depend on the other sequences of the batch. Where the model's numbers overflow, they are not finite.
    ///
    /// # Panics
    /// If a sequence is empty or longer than the model has positions for, or an id is no row of the embeddings.
    pub fn logits<'a>(&self, sequences: impl IntoIterator<Item = &'a Pair>, buffers: &mut PassBuffers) -> Vec<f32> {
        let PassBuffers { batch, activations, workspace } = buffers;
        let config = &self.model.model.config;
        // A model with one segment has no row for segment 1.
        let last = config.type_vocab_size as u32 - 1;
        batch.clear();
        for Pair { ids, type_ids } in sequences {
            batch.ids.extend_from_slice(ids);
            batch.type_ids.extend(type_ids.iter().map(|&id| id.min(last)));
            batch.close_sequence(0);
        }
        batch.locate(config);
        let mut logits = Vec::new();
        let pass = Pass::new(None, Some(&self.prepared));
        head_outputs(&self.model.model, pass, (batch, activations, workspace), &mut logits);
        logits
    }

    /// The probabilities of the classes for the outputs of one sequence; a regression's number stays as it is.
    pub fn scores(&self, logits: &[f32]) -> Vec<f64> {
        match self.own.task.head {
            Head::Regression { .. } => logits.iter().map(|&value| value.into()).collect(),
            _ => softmax(logits),
        }
    }
}
