//! A model with a head for a task: loading, checking and describing it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tamt_data::Tokenizer;
use tamt_data::tasks::{Head, Task};
use tamt_model::{Checkpoint, HeadStart, Masks, Model, Storage, TaskKind};

use crate::base::{check_vocabulary, of_packed};
use crate::error::{Error, Result};
use crate::ticket::{BaseCheck, Ticket};
use crate::tune::labels::{LabelOrder, given_order, output_order};
use crate::tune::own_task::{OwnTask, outputs};
use crate::tune::settings::InputSettings;
use crate::tune::task_record::TaskRecord;

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
    /// Whether the weights file is packed, so that the zeros of a ticket are in it.
    pub is_packed: bool,
    /// How the order of the head's outputs is known.
    pub label_order: LabelOrder,
}

impl TaskModel {
    /// Loads a directory in Hugging Face layout or a hub id, with a head for `task`. The outputs of a classification
    /// head are brought into the task's order of labels: from the order of `labels`, or else from the names in the
    /// configuration. [`TaskModel::label_order`] says how the order was found; `labels` has no effect on a new head.
    /// `storage` says how packed matrices are stored; compact ones take no ticket and are not trained.
    ///
    /// # Errors
    /// If the model is not found or malformed, [`Error::Vocabulary`] if its tokenizer has more tokens than its
    /// embeddings have rows, [`Error::Head`] if its head has another number of outputs, or if the model has no head and
    /// `head` is [`HeadStart::Checkpoint`], [`Error::Setting`] if `labels` are not those of the task.
    pub fn load(
        name: impl AsRef<OsStr>,
        task: &Task,
        head: HeadStart,
        labels: Option<&[String]>,
        storage: Storage,
    ) -> Result<Self> {
        let name = name.as_ref();
        labels.map(|labels| given_order(labels, task)).transpose()?;
        let directory = tamt_model::hub::resolve(name)?;
        let checkpoint = Checkpoint::open(&directory)?;
        let (mut loaded, is_new) = Self::open(name, &checkpoint, task, head, storage)?;
        if !is_new && let Head::Classification { .. } = task.head {
            let order;
            (order, loaded.label_order) = output_order(loaded.model.config.extra("id2label"), task, labels)?;
            loaded.model.reorder_outputs(&order);
        }
        Ok(loaded)
    }

    /// Loads a model with a head for the task that the model's own directory describes. `labels` name the outputs of a
    /// classifier, and count more than the names in the configuration. `storage` is that of [`TaskModel::load`].
    ///
    /// # Errors
    /// Those of [`TaskModel::load`]; [`Error::NoHead`] or [`Error::UnusableHead`] if the head predicts neither one label,
    /// nor one number, nor spans; [`Error::Damaged`] if the description is malformed.
    pub fn load_own(name: impl AsRef<OsStr>, labels: Option<&[String]>, storage: Storage) -> Result<(Self, OwnTask)> {
        let name = name.as_ref();
        let directory = tamt_model::hub::resolve(name)?;
        let checkpoint = Checkpoint::open(&directory)?;
        let own = OwnTask::read(&directory, &checkpoint, labels)?;
        let (model, _) = Self::open(name, &checkpoint, &own.task, HeadStart::Checkpoint, storage)?;
        Ok((model, own))
    }

    /// The model with its outputs in the order of the checkpoint, and whether its head is new.
    fn open(
        name: &OsStr,
        checkpoint: &Checkpoint,
        task: &Task,
        head: HeadStart,
        storage: Storage,
    ) -> Result<(Self, bool)> {
        let directory = checkpoint.path().parent().unwrap_or(Path::new(""));
        let is_new = check_head(checkpoint, task, head, directory)?;
        let model = Model::load_for_task_as(directory, head_kind(task), head, storage)?;
        let tokenizer = Tokenizer::from_dir(directory)?;
        check_vocabulary(&model, &tokenizer, directory)?;
        let (name, sha256) = (name.to_string_lossy().into_owned(), checkpoint.sha256().to_owned());
        let (is_packed, label_order) = (checkpoint.is_packed(), LabelOrder::Task);
        Ok((Self { name, model, tokenizer, sha256, is_packed, label_order }, is_new))
    }

    /// The settings of the inputs with which the model was tuned on `task`; the defaults of `task` if the model's
    /// configuration says nothing about that task.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the configuration's record is malformed.
    pub fn input_settings(&self, task: &Task) -> Result<InputSettings> {
        let defaults = InputSettings::new(task);
        let record = TaskRecord::read(&self.model.config, Path::new(&self.name))?;
        let own = record.filter(|record| record.name == task.name).map(|record| record.settings());
        Ok(own.filter(|own| own.spans.is_some() == defaults.spans.is_some()).unwrap_or(defaults))
    }

    /// The masks of a ticket for this model; with `allow_other_base` only names and shapes must fit. The mask of a
    /// matrix that the task's model lacks (the pooler, for spans and in RoBERTa) is left out.
    ///
    /// # Errors
    /// If the ticket belongs to another model.
    pub fn masks_of(&self, ticket: &Ticket, allow_other_base: bool) -> Result<Masks> {
        let check = if allow_other_base { BaseCheck::NamesAndShapes } else { BaseCheck::Sha256(&self.sha256) };
        of_packed(ticket.masks(&self.model, check), &self.name, self.is_packed)
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
    let found = outputs(checkpoint, matches!(task.head, Head::Span { .. }));
    let error = |found: Option<usize>| {
        Err(Error::Head { path: PathBuf::from(directory), task: task.name.clone(), outputs: task.outputs(), found })
    };
    match (found, head) {
        (Some(found), _) if found != task.outputs() => error(Some(found)),
        (None, HeadStart::Checkpoint) => error(None),
        (found, _) => Ok(found.is_none()),
    }
}

/// Writes the labels and the kind of the head into the configuration, under the keys of `transformers`, and the settings
/// of the inputs.
pub(super) fn describe_head(model: &mut Model, task: &Task, inputs: &InputSettings) {
    let config = &mut model.config;
    TaskRecord::new(task, inputs).write(config);
    let (labels, kind): (Vec<String>, _) = match &task.head {
        Head::Classification { labels } => (labels.clone(), Some("single_label_classification")),
        Head::Regression { .. } => (vec!["LABEL_0".to_owned()], Some("regression")),
        // `transformers` gives a head of spans as many outputs as the configuration has labels.
        Head::Span { .. } => (vec!["LABEL_0".to_owned(), "LABEL_1".to_owned()], None),
    };
    let id2label: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label))).collect();
    let label2id: serde_json::Map<String, Value> =
        labels.iter().enumerate().map(|(i, label)| (label.clone(), json!(i))).collect();
    config.set_extra("id2label", Value::Object(id2label));
    config.set_extra("label2id", Value::Object(label2id));
    if let Some(kind) = kind {
        config.set_extra("problem_type", json!(kind));
    }
    config.set_extra("finetuning_task", json!(task.name));
    // A checkpoint may have the number of labels of another head.
    config.set_extra("num_labels", json!(labels.len()));
}
