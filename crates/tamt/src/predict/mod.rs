//! Predictions of a tuned model for new texts: a line for each record, in the order of the input.
//!
//! The records come in parts of some thousands. A part goes through the model in batches of similar lengths, and its lines
//! are written ahead of the next part, so that an input of any size takes the same memory. Forward pass and decision are
//! those of [`Answers::predict`](crate::tune::Answers::predict), which evaluations score.

mod classifier;
mod lines;
mod softmax;

use std::io::Write;
use std::path::{Path, PathBuf};

use tamt_data::squad::{Dataset, Prediction};
use tamt_data::tasks::{Example, Head, Label, Record, Records, Task};
use tamt_model::Masks;

use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::predict::lines::{Lines, Outcome, Span};
use crate::predict::softmax::softmax;
use crate::tune::{Decisions, InputSettings, Inputs, Predictor, TaskModel};

pub use classifier::Classifier;
pub use lines::OutputFormat;

/// Questions of a `SQuAD` file in a part.
const QUESTIONS: usize = 512;

/// The model that predicts, and what its inputs and outputs mean.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The model with its head and its tokenizer.
    pub model: &'a TaskModel,
    /// The masks of a ticket; `None` for the dense model.
    pub masks: Option<&'a Masks>,
    /// The kernel and the precision of matrix products.
    pub compute: Compute,
    /// The head of the task decides what is predicted.
    pub task: &'a Task,
    /// From texts to tokens.
    pub settings: &'a InputSettings,
}

/// The records to predict.
#[derive(Debug)]
pub enum Source {
    /// Texts or pairs of texts; for spans, questions with their contexts.
    Records(Box<Records>),
    /// Questions of `SQuAD`'s JSON.
    Questions(Dataset),
}

/// What was predicted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Records of the input, and lines of the output.
    pub records: u64,
    /// Records that were unusable, which have a line without a prediction.
    pub unusable: u64,
    /// Line and reason of the first unusable record.
    pub first_unusable: Option<(usize, String)>,
    /// The number of predictions of each label, in the order of the task.
    pub labels: Vec<(String, u64)>,
    /// For spans: the number of questions without an answer.
    pub without_answer: Option<u64>,
}

/// Where the lines go.
pub struct Target<'a> {
    /// The writer.
    pub out: &'a mut dyn Write,
    /// The name of the writer in errors.
    pub path: &'a Path,
    /// The form of a line.
    pub format: OutputFormat,
}

/// Predicts all records of `source`. `progress` gets the records that are done, and the bytes of the source that they and
/// the next ones take (for questions of `SQuAD`'s JSON: the number of questions), and ends the work by an error.
///
/// # Errors
/// Those of [`Records::next_part`]; [`Error::NonFiniteEvaluation`] if the model's outputs are not finite; [`Error::Io`] if
/// a line cannot be written.
pub fn predict(
    subject: Subject<'_>,
    source: Source,
    target: Target<'_>,
    mut progress: impl FnMut(u64, u64) -> Result<()>,
) -> Result<Summary> {
    let Subject { model, masks, compute, task, settings } = subject;
    let Target { out, path, format } = target;
    let predictor = Predictor::new(&model.model, masks, compute, task, settings);
    let labels = task.labels().iter().map(|label| (label.clone(), 0)).collect();
    let without_answer = matches!(task.head, Head::Span { .. }).then_some(0);
    let summary = Summary { labels, without_answer, ..Summary::default() };
    let has_ids = match &source {
        Source::Records(records) => records.has_ids(),
        Source::Questions(_) => true,
    };
    let lines = Lines::new(format, &task.head, has_ids);
    let mut run = Run { subject, predictor, summary, lines, out, path: path.to_owned() };
    run.write(Lines::header)?;
    match source {
        Source::Records(mut records) => loop {
            let part = records.next_part()?;
            if part.is_empty() {
                break;
            }
            run.records(part)?;
            run.flush()?;
            progress(run.summary.records, records.bytes())?;
        },
        Source::Questions(dataset) => {
            let all = dataset.questions.len();
            for start in (0..all).step_by(QUESTIONS) {
                let end = all.min(start + QUESTIONS);
                run.questions(dataset.part(start..end))?;
                run.flush()?;
                progress(run.summary.records, end as u64)?;
            }
        }
    }
    run.flush()?;
    Ok(run.summary)
}

/// A run over one input.
struct Run<'a> {
    subject: Subject<'a>,
    predictor: Predictor<'a>,
    summary: Summary,
    lines: Lines,
    out: &'a mut dyn Write,
    path: PathBuf,
}

impl Run<'_> {
    /// Predicts a part of the records, and writes their lines.
    fn records(&mut self, part: Vec<Record>) -> Result<()> {
        let is_span = matches!(self.subject.task.head, Head::Span { .. });
        let mut examples = Vec::with_capacity(part.len());
        // Id, and line and reason if unusable.
        let mut rows = Vec::with_capacity(part.len());
        for Record { line, id, texts } in part {
            let unusable = match texts {
                Ok((first, second)) => {
                    examples.push(Example { id: id.clone().unwrap_or_default(), first, second, label: None });
                    None
                }
                Err(reason) => Some((line, reason)),
            };
            rows.push((id, unusable));
        }
        let outcomes = if is_span { self.answers(examples)? } else { self.labels(examples)? };
        let mut outcomes = outcomes.into_iter();
        for (id, unusable) in rows {
            let outcome = match unusable {
                Some((line, reason)) => {
                    self.summary.unusable += 1;
                    self.summary.first_unusable.get_or_insert_with(|| (line, reason.clone()));
                    Outcome::Unusable(reason)
                }
                None => outcomes.next().expect("there is an outcome for each example"),
            };
            self.line(id.as_deref(), &outcome)?;
        }
        Ok(())
    }

    fn questions(&mut self, dataset: Dataset) -> Result<()> {
        let ids: Vec<String> = dataset.questions.iter().map(|question| question.id.clone()).collect();
        let outcomes = self.spans(dataset)?;
        ids.iter().zip(&outcomes).try_for_each(|(id, outcome)| self.line(Some(id), outcome))
    }

    fn answers(&mut self, examples: Vec<Example>) -> Result<Vec<Outcome>> {
        let questions = examples.into_iter().map(|Example { id, first, second, .. }| {
            // A question without a context has no answer in it.
            (id, first, second.unwrap_or_default())
        });
        self.spans(Dataset::of_questions(questions, &self.path))
    }

    fn labels(&mut self, examples: Vec<Example>) -> Result<Vec<Outcome>> {
        let Subject { model, task, settings, .. } = self.subject;
        let inputs = Inputs::of_examples(examples, &model.tokenizer, settings)?;
        match self.predictor.decide(&inputs, |_| Ok(()))? {
            Decisions::Labels { labels, logits } => {
                let logits = logits.chunks_exact(task.outputs());
                Ok(labels.iter().zip(logits).map(|(label, logits)| outcome(*label, logits)).collect())
            }
            Decisions::Spans(_) => unreachable!("decisions are of the kind of their inputs"),
        }
    }

    fn spans(&mut self, dataset: Dataset) -> Result<Vec<Outcome>> {
        let Subject { model, settings, .. } = self.subject;
        let inputs = Inputs::of_questions(dataset, &model.tokenizer, settings)?;
        match (self.predictor.decide(&inputs, |_| Ok(()))?, inputs.dataset()) {
            (Decisions::Spans(predictions), Some(dataset)) => {
                let context = |i: usize| dataset.contexts[dataset.questions[i].context].as_str();
                Ok(predictions.iter().enumerate().map(|(i, found)| Outcome::Span(span(found, context(i)))).collect())
            }
            _ => unreachable!("decisions are of the kind of their inputs"),
        }
    }

    fn line(&mut self, id: Option<&str>, outcome: &Outcome) -> Result<()> {
        self.summary.records += 1;
        match outcome {
            Outcome::Class { class, .. } => self.summary.labels[*class].1 += 1,
            Outcome::Span(Span { range: None, .. }) => {
                self.summary.without_answer = self.summary.without_answer.map(|n| n + 1);
            }
            _ => {}
        }
        self.write(|lines, text| lines.line(id, outcome, text))
    }

    /// A reader of a pipe sees the lines of each part.
    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::io("write", &self.path))
    }

    fn write(&mut self, line: impl FnOnce(&Lines, &mut String)) -> Result<()> {
        let mut text = String::new();
        line(&self.lines, &mut text);
        self.out.write_all(text.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

/// A label with the probabilities of all labels, or a number.
fn outcome(label: Label, logits: &[f32]) -> Outcome {
    match label {
        Label::Class(class) => Outcome::Class { class: class as usize, probabilities: softmax(logits) },
        Label::Value(value) => Outcome::Value(value),
    }
}

/// The answer with its place in characters.
fn span(found: &Prediction, context: &str) -> Span {
    let chosen = found.chosen();
    let range = chosen.and_then(|chosen| chosen.range.clone()).map(|bytes| {
        let start = context[..bytes.start].chars().count();
        start..start + context[bytes].chars().count()
    });
    let score = chosen.map_or(0.0, |chosen| chosen.probability);
    Span { answer: found.text.clone(), range, score, no_answer: found.no_answer() }
}
