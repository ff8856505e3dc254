//! What the `config.json` of a tuned model says about its task, beside the keys of `transformers`: the key `tamt_task`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tamt_data::tasks::{Head, InputLayout, Task};
use tamt_model::Config;

use crate::error::{Error, Result};
use crate::tune::settings::{InputSettings, SpanSettings};

/// The key in `config.json`.
const KEY: &str = "tamt_task";

/// The settings of a tuned model's inputs. `docs/tasks.md` documents the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskRecord {
    /// The task's name.
    pub(super) name: String,
    /// Tokens in a sequence, special tokens included.
    max_length: usize,
    /// `None` unless the task predicts spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spans: Option<SpanRecord>,
    /// Names, formats and columns of the task's files; none for spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<InputLayout>,
}

/// [`SpanSettings`] in the spelling of `config.json`, and whether questions may have no answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanRecord {
    unanswerable: bool,
    doc_stride: usize,
    max_query_length: usize,
    n_best: usize,
    max_answer_length: usize,
    null_threshold: f64,
}

impl TaskRecord {
    pub(super) fn new(task: &Task, settings: &InputSettings) -> Self {
        let spans = settings.spans.map(|spans| SpanRecord {
            unanswerable: task.head == Head::Span { unanswerable: true },
            doc_stride: spans.doc_stride,
            max_query_length: spans.max_query_length,
            n_best: spans.n_best,
            max_answer_length: spans.max_answer_length,
            null_threshold: spans.null_threshold,
        });
        let inputs = InputLayout::of_task(task);
        Self { name: task.name.clone(), max_length: settings.max_length, spans, inputs }
    }

    /// Writes the record into a configuration.
    pub(super) fn write(&self, config: &mut Config) {
        config.set_extra(KEY, serde_json::to_value(self).expect("texts and finite numbers are JSON"));
    }

    /// The record in the configuration of the model in `directory`, if there is one.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the record has another form.
    pub(super) fn read(config: &Config, directory: &Path) -> Result<Option<Self>> {
        let Some(value) = config.extra(KEY).filter(|value| !value.is_null()) else { return Ok(None) };
        let damaged = |error: serde_json::Error| Error::Damaged {
            path: directory.join("config.json"),
            reason: format!("{KEY}: {error}"),
        };
        Self::deserialize(value).map(Some).map_err(damaged)
    }

    /// The settings of the inputs.
    pub(super) fn settings(&self) -> InputSettings {
        let spans = self.spans.map(|spans| SpanSettings {
            doc_stride: spans.doc_stride,
            max_query_length: spans.max_query_length,
            n_best: spans.n_best,
            max_answer_length: spans.max_answer_length,
            null_threshold: spans.null_threshold,
        });
        InputSettings { max_length: self.max_length, spans }
    }

    /// For spans: whether questions may have no answer.
    pub(super) fn unanswerable(&self) -> Option<bool> {
        self.spans.map(|spans| spans.unanswerable)
    }
}
