//! The task of a model with a head, from the model's own directory.

use std::path::Path;

use serde_json::Value;
use tamt_data::tasks::{Head, InputLayout, Task};
use tamt_model::{Checkpoint, Config, Family, TaskKind};

use crate::error::{Error, Result};
use crate::tune::labels::output_names;
use crate::tune::settings::InputSettings;
use crate::tune::task_record::TaskRecord;

/// Names of the weights of a head in a checkpoint, whose rows are its outputs, and whether the head predicts spans:
/// BERT's classifier, RoBERTa's classifier, the head of spans.
const HEAD_WEIGHTS: [(&str, bool); 3] =
    [("classifier.weight", false), ("classifier.out_proj.weight", false), ("qa_outputs.weight", true)];

/// The matrix without which a classifier reads no sequences: BERT's pooler, the dense layer of RoBERTa's classifier.
fn below_classifier(family: Family) -> &'static str {
    match family {
        Family::Bert => "pooler.dense.weight",
        Family::Roberta => "classifier.dense.weight",
    }
}

/// The outputs of a head of spans for a token: start and end.
const SPAN_OUTPUTS: usize = 2;

/// The most names of tensors in an error.
const NAMED_TENSORS: usize = 6;

/// What a model's directory says about the task that the model was tuned on.
#[derive(Clone, Debug)]
pub struct OwnTask {
    /// The head and the task's name.
    pub task: Task,
    /// The settings of the inputs; of [`Task::defaults`] or as long as the model takes where the directory says nothing.
    pub settings: InputSettings,
    /// The layouts of the task's files; `None` where the directory says nothing about them.
    pub inputs: Option<Vec<InputLayout>>,
}

impl OwnTask {
    /// Reads the description of the model in `directory`: the shapes of its head, and in `config.json` `architectures`,
    /// `problem_type`, `id2label`, `finetuning_task` and `tamt_task`. `labels` are names of a classifier's outputs, in
    /// order, which count more than `id2label`.
    ///
    /// # Errors
    /// [`Error::NoHead`], [`Error::UnusableHead`], [`Error::Damaged`] if `tamt_task` is malformed, [`Error::Setting`] if
    /// `labels` do not fit the head, [`Error::Model`] if `config.json` cannot be read.
    pub(super) fn read(directory: &Path, checkpoint: &Checkpoint, labels: Option<&[String]>) -> Result<Self> {
        let config = Config::read(directory.join("config.json"))?;
        let (is_span, outputs) = head_of(directory, checkpoint, &config)?;
        let record = TaskRecord::read(&config, directory)?.filter(|record| record.unanswerable().is_some() == is_span);
        let own_name = config.extra("finetuning_task").and_then(Value::as_str);
        let name = record.as_ref().map(|record| record.name.as_str()).or(own_name);
        // The name alone stands for a built-in task, if the head is like that of the task.
        let known = name.filter(|_| record.is_none()).and_then(Task::by_name);
        let known = known.filter(|task| matches!(task.head, Head::Span { .. }) == is_span && task.outputs() == outputs);
        let head = if is_span {
            if labels.is_some() {
                return Err(Error::setting("labels", "a head for spans has no labels"));
            }
            let unanswerable = record.as_ref().and_then(TaskRecord::unanswerable);
            let of_known = known.is_some_and(|task| task.head == Head::Span { unanswerable: true });
            Head::Span { unanswerable: unanswerable.unwrap_or(of_known) }
        } else {
            sequence_head(directory, &config, outputs, labels)?
        };
        let task = Task::of_head(name.unwrap_or("the model's task"), head);
        let longest = config.max_length();
        let mut settings = InputSettings::new(&task);
        settings.max_length = if is_span { SPAN_LENGTH.min(longest) } else { longest };
        if let Some(known) = known {
            settings.max_length = known.defaults.max_length.min(longest);
        }
        let inputs = record.as_ref().map(|record| record.inputs.clone()).or(known.map(InputLayout::of_task));
        let settings = record.map_or(settings, |record| record.settings());
        Ok(Self { task, settings, inputs })
    }

    /// The head of the model in `directory` by the rule of [`OwnTask::read`]; `None` if the model has no head for a task.
    ///
    /// # Errors
    /// [`Error::UnusableHead`] if the head is neither one of sequences nor one of spans, [`Error::Model`] if `config.json`
    /// or the weights cannot be read.
    pub(crate) fn stored_head(directory: &Path) -> Result<Option<TaskKind>> {
        let config = Config::read(directory.join("config.json"))?;
        let checkpoint = Checkpoint::open(directory)?;
        let reason = match head_of(directory, &checkpoint, &config) {
            Ok((true, SPAN_OUTPUTS)) => return Ok(Some(TaskKind::Span)),
            Ok((true, outputs)) => format!("its head of spans has {outputs} outputs for a token, not {SPAN_OUTPUTS}"),
            Ok((false, outputs)) => {
                let below = below_classifier(config.family);
                if checkpoint.contains(below) {
                    return Ok(Some(TaskKind::Sequence { outputs }));
                }
                format!("its classifier stands on no {below}, as a classifier of tokens does")
            }
            Err(Error::NoHead { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Err(Error::UnusableHead { path: directory.to_owned(), reason })
    }
}

/// Tokens in a window of a span model that does not say how it was tuned, as in BERT's own script.
const SPAN_LENGTH: usize = 384;

/// Classes of `transformers` whose heads have the tensor names of a sequence head and another meaning.
const OTHER_HEADS: [&str; 3] = ["ForTokenClassification", "ForMultipleChoice", "ForNextSentencePrediction"];

/// The number of outputs of the head in a checkpoint, for spans or for sequences.
pub(super) fn outputs(checkpoint: &Checkpoint, is_span: bool) -> Option<usize> {
    let own = HEAD_WEIGHTS.into_iter().filter(|(_, span)| *span == is_span);
    own.filter_map(|(name, _)| Some(*checkpoint.shape(name)?.first()?)).next()
}

/// Whether the checkpoint's head predicts spans, and the number of its outputs.
fn head_of(directory: &Path, checkpoint: &Checkpoint, config: &Config) -> Result<(bool, usize)> {
    let class = config.extra("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
    let class = class.unwrap_or_default();
    if let Some(other) = OTHER_HEADS.iter().find(|other| class.ends_with(*other)) {
        let reason = format!("its head is that of a {class}; known are sequence classification and spans, not {other}");
        return Err(Error::UnusableHead { path: directory.to_owned(), reason });
    }
    let [sequence, span] = [false, true].map(|is_span| outputs(checkpoint, is_span));
    match (sequence, span) {
        (Some(_), Some(span)) if class.ends_with("ForQuestionAnswering") => Ok((true, span)),
        (Some(sequence), _) => Ok((false, sequence)),
        (None, Some(span)) => Ok((true, span)),
        (None, None) => Err(Error::NoHead { path: directory.to_owned(), found: what_is_there(checkpoint, class) }),
    }
}

/// The class of a model without a task head, and its tensors beside the encoder.
fn what_is_there(checkpoint: &Checkpoint, class: &str) -> String {
    let in_encoder = |name: &&str| ["embeddings.", "encoder."].iter().any(|prefix| name.starts_with(prefix));
    let mut beside: Vec<&str> = checkpoint.names().filter(|name| !in_encoder(name)).collect();
    beside.sort_unstable();
    let more = beside.len().saturating_sub(NAMED_TENSORS);
    beside.truncate(NAMED_TENSORS);
    let tensors = match (beside.as_slice(), more) {
        ([], _) => "nothing".to_owned(),
        (names, 0) => names.join(", "),
        (names, more) => format!("{} and {more} more", names.join(", ")),
    };
    let class = if class.is_empty() { "a model".to_owned() } else { format!("a {class}") };
    format!("it holds {class} with {tensors} beside the encoder")
}

fn sequence_head(directory: &Path, config: &Config, outputs: usize, labels: Option<&[String]>) -> Result<Head> {
    let problem = config.extra("problem_type").and_then(Value::as_str);
    let unusable = |reason: String| Err(Error::UnusableHead { path: directory.to_owned(), reason });
    match problem {
        Some("regression") if outputs > 1 => {
            return unusable(format!("its head predicts {outputs} numbers, and a regression has one"));
        }
        Some("multi_label_classification") => {
            return unusable(
                "its problem_type is multi_label_classification, and only one label is predicted".to_owned(),
            );
        }
        _ => {}
    }
    // `transformers` takes a head with one output for a regression, too.
    if outputs == 1 {
        return match labels {
            Some(_) => Err(Error::setting("labels", "a regression has no labels")),
            None => Ok(Head::Regression { range: None }),
        };
    }
    let own = output_names(config.extra("id2label"));
    let names = match labels {
        Some(given) if given.len() != outputs => {
            let reason = format!("{} labels do not name the {outputs} outputs of the head", given.len());
            return Err(Error::setting("labels", reason));
        }
        Some(given) => given.to_vec(),
        None if own.len() == outputs => own,
        None => (0..outputs).map(|output| format!("LABEL_{output}")).collect(),
    };
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    match (twice, labels) {
        (None, _) => Ok(Head::Classification { labels: names }),
        (Some((_, name)), Some(_)) => Err(Error::setting("labels", format!("{name:?} is given twice"))),
        (Some((_, name)), None) => unusable(format!("its id2label calls two outputs {name:?}; labels can be given")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tamt_model::write::write_model;
    use tempfile::TempDir;

    use super::*;
    use crate::testing::tiny_model;

    /// A small BERT of a class of `transformers`, with or without its pooler, and with these matrices.
    fn directory(class: &str, pooler: bool, heads: &[(&str, [usize; 2])]) -> TempDir {
        let model = tiny_model();
        let mut config = model.config.clone();
        config.set_extra("architectures", json!([class]));
        let zeros = [0.0; 64];
        let values: Vec<_> = model.params.ids().map(|id| model.params.get(id)).collect();
        let own = model.params.ids().map(|id| model.params.spec(id)).zip(&values);
        let own = own.map(|(spec, values)| (spec.checkpoint_name.as_str(), spec.shape.as_slice(), values.as_ref()));
        let heads = heads.iter().map(|(name, shape)| (*name, shape.as_slice(), &zeros[..shape[0] * shape[1]]));
        let tensors: Vec<(&str, &[usize], &[f32])> =
            own.filter(|(name, ..)| pooler || !name.contains("pooler")).chain(heads).collect();
        let directory = tempfile::tempdir().unwrap();
        write_model(directory.path(), &config, &tensors).unwrap();
        directory
    }

    const CLASSIFIER: (&str, [usize; 2]) = ("classifier.weight", [3, 16]);
    const SPANS: (&str, [usize; 2]) = ("qa_outputs.weight", [2, 16]);

    #[test]
    fn the_stored_head_is_the_one_that_predicts() {
        let sequence = Some(TaskKind::Sequence { outputs: 3 });
        for (class, heads, expected) in [
            ("BertForSequenceClassification", &[CLASSIFIER][..], sequence),
            ("BertForQuestionAnswering", &[SPANS], Some(TaskKind::Span)),
            ("BertForSequenceClassification", &[SPANS, CLASSIFIER], sequence),
            ("BertModel", &[SPANS, CLASSIFIER], sequence),
            ("BertForQuestionAnswering", &[SPANS, CLASSIFIER], Some(TaskKind::Span)),
            ("BertForMaskedLM", &[], None),
        ] {
            let directory = directory(class, true, heads);
            let stored = OwnTask::stored_head(directory.path()).unwrap();
            assert_eq!(stored, expected, "{class} {heads:?}");
            let checkpoint = Checkpoint::open(directory.path()).unwrap();
            match OwnTask::read(directory.path(), &checkpoint, None) {
                Ok(own) => {
                    let is_span = matches!(own.task.head, Head::Span { .. });
                    assert!(stored.is_some() && is_span == (stored == Some(TaskKind::Span)), "{class} {heads:?}");
                }
                Err(error) => assert!(stored.is_none() && matches!(error, Error::NoHead { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn a_head_that_is_not_known_is_refused_with_its_class_or_its_shape() {
        for (class, pooler, head, reason) in [
            (
                "BertForTokenClassification",
                true,
                CLASSIFIER,
                "its head is that of a BertForTokenClassification; known are",
            ),
            ("BertForMultipleChoice", true, ("classifier.weight", [1, 16]), "that of a BertForMultipleChoice"),
            ("BertModel", false, CLASSIFIER, "its classifier stands on no pooler.dense.weight"),
            ("BertForQuestionAnswering", true, ("qa_outputs.weight", [3, 16]), "3 outputs for a token, not 2"),
        ] {
            let directory = directory(class, pooler, &[head]);
            let error = OwnTask::stored_head(directory.path()).unwrap_err();
            assert!(matches!(error, Error::UnusableHead { .. }) && error.to_string().contains(reason), "{error}");
        }
    }
}
