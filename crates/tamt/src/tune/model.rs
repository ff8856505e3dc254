//! A model with a head for a task: loading, checking and describing it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tamt_data::Tokenizer;
use tamt_data::tasks::{Head, Task};
use tamt_model::{Checkpoint, HeadStart, Masks, Model, TaskKind};

use crate::base::check_vocabulary;
use crate::error::{Error, Result};
use crate::ticket::{BaseCheck, Ticket};
use crate::tune::labels::{LabelOrder, given_order, output_order};

/// Names of the weights of a head in a checkpoint, whose rows are its outputs, and whether the head predicts spans:
/// BERT's classifier, RoBERTa's classifier, the head of spans.
const HEAD_WEIGHTS: [(&str, bool); 3] =
    [("classifier.weight", false), ("classifier.out_proj.weight", false), ("qa_outputs.weight", true)];

/// A model with a task head, its tokenizer and its digest.
#[derive(Clone, Debug)]
pub struct TaskModel {
    /// Directory or hub id, as a user gave it.
    pub name: String,
    /// The weights.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the weights file, in hexadecimal.
    pub sha256: String,
    /// How the order of the head's outputs is known.
    pub label_order: LabelOrder,
}

impl TaskModel {
    /// Loads a directory in Hugging Face layout or a hub id, with a head for `task`. The outputs of a classification
    /// head are brought into the task's order of labels: from the order of `labels`, or else from the names in the
    /// configuration. [`TaskModel::label_order`] says how the order was found; `labels` has no effect on a new head.
    ///
    /// # Errors
    /// If the model is not found or malformed, [`Error::Vocabulary`] if its tokenizer has more tokens than its
    /// embeddings have rows, [`Error::Head`] if its head has another number of outputs, or if the model has no head and
    /// `head` is [`HeadStart::Checkpoint`], [`Error::Setting`] if `labels` are not those of the task.
    pub fn load(name: impl AsRef<OsStr>, task: &Task, head: HeadStart, labels: Option<&[String]>) -> Result<Self> {
        let name = name.as_ref();
        labels.map(|labels| given_order(labels, task)).transpose()?;
        let directory = tamt_model::hub::resolve(name)?;
        let checkpoint = Checkpoint::open(&directory)?;
        let is_new = check_head(&checkpoint, task, head, &directory)?;
        let mut model = Model::load_for_task(&directory, head_kind(task), head)?;
        let mut label_order = LabelOrder::Task;
        if !is_new && let Head::Classification { .. } = task.head {
            let order;
            (order, label_order) = output_order(model.config.extra("id2label"), task, labels)?;
            model.reorder_outputs(&order);
        }
        let tokenizer = Tokenizer::from_dir(&directory)?;
        check_vocabulary(&model, &tokenizer, &directory)?;
        let sha256 = checkpoint.sha256().to_owned();
        Ok(Self { name: name.to_string_lossy().into_owned(), model, tokenizer, sha256, label_order })
    }

    /// The masks of a ticket for this model; with `allow_other_base` only names and shapes must fit. The mask of a
    /// matrix that the task's model lacks (the pooler, for spans and in RoBERTa) is left out.
    ///
    /// # Errors
    /// If the ticket belongs to another model.
    pub fn masks_of(&self, ticket: &Ticket, allow_other_base: bool) -> Result<Masks> {
        let check = if allow_other_base { BaseCheck::NamesAndShapes } else { BaseCheck::Sha256(&self.sha256) };
        ticket.masks(&self.model, check)
    }
}

/// The outputs of the head for a task.
pub fn head_kind(task: &Task) -> TaskKind {
    match task.head {
        Head::Span { .. } => TaskKind::Span,
        Head::Classification { .. } | Head::Regression { .. } => TaskKind::Sequence { outputs: task.outputs() },
    }
}

/// Checks the number of outputs of the checkpoint's head, and says whether the model gets a new head.
fn check_head(checkpoint: &Checkpoint, task: &Task, head: HeadStart, directory: &Path) -> Result<bool> {
    if matches!(head, HeadStart::Fresh(_)) {
        return Ok(true);
    }
    let is_span = matches!(task.head, Head::Span { .. });
    let own = HEAD_WEIGHTS.into_iter().filter(|(_, span)| *span == is_span);
    let found = own.filter_map(|(name, _)| Some(*checkpoint.shape(name)?.first()?)).next();
    let error = |found: Option<usize>| {
        Err(Error::Head { path: PathBuf::from(directory), task: task.name.clone(), outputs: task.outputs(), found })
    };
    match (found, head) {
        (Some(found), _) if found != task.outputs() => error(Some(found)),
        (None, HeadStart::Checkpoint) => error(None),
        (found, _) => Ok(found.is_none()),
    }
}

/// Writes the labels and the kind of the head into the configuration, under the keys of `transformers`.
pub(super) fn describe_head(model: &mut Model, task: &Task) {
    let config = &mut model.config;
    let labels: Vec<String> = match &task.head {
        Head::Classification { labels } => labels.clone(),
        Head::Regression { .. } => vec!["LABEL_0".to_owned()],
        Head::Span { .. } => return config.set_extra("finetuning_task", json!(task.name)),
    };
    let kind = if task.labels().is_empty() { "regression" } else { "single_label_classification" };
    let id2label: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label))).collect();
    let label2id: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(i, label)| (label.clone(), json!(i))).collect();
    config.set_extra("id2label", Value::Object(id2label));
    config.set_extra("label2id", Value::Object(label2id));
    config.set_extra("problem_type", json!(kind));
    config.set_extra("finetuning_task", json!(task.name));
    // A checkpoint may have the number of labels of another head.
    config.set_extra("num_labels", json!(labels.len()));
}
