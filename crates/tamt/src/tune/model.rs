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
}

impl TaskModel {
    /// Loads a directory in Hugging Face layout or a hub id, with a head for `task`. If the checkpoint has a
    /// classification head and its configuration names the task's labels in another order, the outputs of the head are
    /// reordered.
    ///
    /// # Errors
    /// If the model is not found or malformed, [`Error::Vocabulary`] if its tokenizer has more tokens than its
    /// embeddings have rows, [`Error::Head`] if its head has another number of outputs, or if the model has no head and
    /// `head` is [`HeadStart::Checkpoint`].
    pub fn load(name: impl AsRef<OsStr>, task: &Task, head: HeadStart) -> Result<Self> {
        let name = name.as_ref();
        let directory = tamt_model::hub::resolve(name)?;
        let checkpoint = Checkpoint::open(&directory)?;
        let is_new = check_head(&checkpoint, task, head, &directory)?;
        let mut model = Model::load_for_task(&directory, head_kind(task), head)?;
        if !is_new && let Some(order) = label_order(model.config.extra("id2label"), task.labels()) {
            model.reorder_outputs(&order);
        }
        let tokenizer = Tokenizer::from_dir(&directory)?;
        check_vocabulary(&model, &tokenizer, &directory)?;
        let sha256 = checkpoint.sha256().to_owned();
        Ok(Self { name: name.to_string_lossy().into_owned(), model, tokenizer, sha256 })
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

/// For each label of the task, the checkpoint's output of that label; `None` unless the checkpoint names the same
/// labels.
fn label_order(id2label: Option<&Value>, labels: &[String]) -> Option<Vec<usize>> {
    let names = id2label?.as_object()?;
    let spelling = |name: &str| name.to_lowercase().replace(['-', ' '], "_");
    let output_of = |label: &String| {
        let at = names.iter().find(|(_, name)| name.as_str().is_some_and(|n| spelling(n) == spelling(label)))?;
        at.0.parse::<usize>().ok().filter(|&i| i < labels.len())
    };
    let order: Vec<usize> = labels.iter().map(output_of).collect::<Option<_>>()?;
    let mut seen = order.clone();
    seen.sort_unstable();
    seen.dedup();
    (!labels.is_empty() && seen.len() == labels.len()).then_some(order)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_matched_by_name_whatever_their_order_and_case() {
        let labels = ["contradiction", "entailment", "neutral"].map(str::to_owned);
        let theirs = json!({"0": "ENTAILMENT", "1": "NEUTRAL", "2": "CONTRADICTION"});
        assert_eq!(label_order(Some(&theirs), &labels), Some(vec![2, 0, 1]));
        for other in [json!({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}), json!({}), json!(3)] {
            assert_eq!(label_order(Some(&other), &labels), None);
        }
        assert_eq!(label_order(Some(&json!({"0": "entailment", "7": "neutral"})), &labels), None);
        assert_eq!(label_order(None, &labels), None);
    }
}
