//! The answers of a model to a split of a task: predictions, metrics and files.

use std::borrow::Cow;

use serde_json::{Map, Value};
use tamt_data::metrics::{Metric, Scores};
use tamt_data::squad::{self, nbest_json, predictions_json};
use tamt_data::tasks::{Label, Task, submission};
use tamt_kernels::ops::cross_entropy;
use tamt_model::{Masks, Model};

use crate::compute::Compute;
use crate::error::Result;
use crate::metrics::LOSS;
use crate::train::{Metrics, Watch};
use crate::tune::chance::chance_notes;
use crate::tune::inputs::{Inputs, Items, Targets};
use crate::tune::loss::mean_loss;
use crate::tune::predictor::{Decisions, PassedBatch, Predictor};
use crate::tune::settings::{InputSettings, TuneSettings};

/// A model's answers to a split.
#[derive(Clone, Debug)]
pub struct Answers {
    decisions: Decisions,
    /// Mean loss over sequences (windows); `None` where labels are missing.
    loss: Option<f64>,
}

impl Answers {
    /// Runs the model over a split. `progress` gets the number of finished sequences (windows); its error
    /// ends the predictions.
    ///
    /// # Errors
    /// [`Error::NonFiniteEvaluation`](crate::Error::NonFiniteEvaluation) if the model's outputs are not finite; the errors
    /// of `progress`.
    pub fn predict(
        model: &Model,
        masks: Option<&Masks>,
        compute: Compute,
        task: &Task,
        inputs: &Inputs,
        settings: &InputSettings,
        mut progress: impl FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let mut predictor = Predictor::new(model, masks, compute, task, settings);
        let (mut loss, mut done) = (Some(0.0), 0);
        let decisions = predictor.decide(inputs, |PassedBatch { chosen, logits, bounds }| {
            loss = loss
                .zip(inputs.targets(chosen))
                .map(|(sum, targets)| sum + chosen.len() as f64 * evaluation_loss(logits, bounds, &targets));
            done += chosen.len() as u64;
            progress(done)
        })?;
        let sequences = inputs.sequences().max(1);
        Ok(Self { decisions, loss: loss.map(|sum| sum / sequences as f64) })
    }

    /// The task's metrics against the labels of the split, then the loss. Names end in `_mm` for MNLI's mismatched set.
    /// Metrics of spans are percentages, as in the official script.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if the split has no labels.
    pub fn metrics(&self, task: &Task, inputs: &Inputs) -> Result<Metrics> {
        let suffix = inputs.split.suffix();
        let named = |(name, value): (&str, f64)| (Cow::from(format!("{name}{suffix}")), value);
        let mut metrics: Metrics = match (&self.decisions, &inputs.items) {
            (Decisions::Labels { labels, .. }, Items::Sequences { examples, .. }) => {
                let Scores(scores) = task.score(examples, labels)?;
                scores.into_iter().map(|(metric, value)| named((metric.key(), value))).collect()
            }
            (Decisions::Spans(predictions), Items::Spans { dataset, .. }) => {
                let scores = squad::evaluate(dataset, predictions)?;
                let parts = [("", Some(scores.all)), ("HasAns_", scores.has_answer), ("NoAns_", scores.no_answer)];
                let mut metrics = Metrics::new();
                for (prefix, part) in parts {
                    let Some(part) = part else { continue };
                    for (metric, value) in [(Metric::ExactMatch, part.exact_match), (Metric::F1, part.f1)] {
                        metrics.push((format!("{prefix}{}", metric.key()).into(), value));
                    }
                }
                metrics
            }
            _ => unreachable!("decisions are of the kind of their inputs"),
        };
        metrics.extend(self.loss.map(|loss| named((LOSS, loss))));
        Ok(metrics)
    }

    /// Notices for a person where the answers are the same for every example, or no better than chance.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if the split has no labels.
    pub fn notes(&self, task: &Task, inputs: &Inputs) -> Result<Vec<String>> {
        match (&self.decisions, &inputs.items) {
            (Decisions::Labels { labels, .. }, Items::Sequences { examples, .. }) => {
                let scores = task.score(examples, labels)?;
                let gold: Vec<Label> = examples.iter().filter_map(|example| example.label).collect();
                Ok(chance_notes(task, inputs.split, labels, &gold, &scores))
            }
            (Decisions::Spans(predictions), Items::Spans { dataset, .. }) => {
                let is_silent = predictions.iter().all(|prediction| prediction.text.is_empty())
                    && dataset.questions.iter().any(|question| !question.answers.is_empty());
                let (n, split) = (predictions.len(), inputs.split.name());
                let note = || format!("the model gives no answer to any of the {n} questions of {split}");
                Ok(is_silent.then(note).into_iter().collect())
            }
            _ => unreachable!("decisions are of the kind of their inputs"),
        }
    }

    /// The files of predictions by name. Sequences have `predictions.tsv`, in the form of the GLUE server, with a third
    /// column for the labels of a split that has labels. Spans have `predictions.json` and `nbest_predictions.json` in
    /// the form of the official scripts, and `null_odds.json` if questions may have no answer.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if a predicted class is none of the task's.
    pub fn files(&self, task: &Task, inputs: &Inputs) -> Result<Vec<(String, String)>> {
        let suffix = inputs.split.suffix();
        match (&self.decisions, &inputs.items) {
            (Decisions::Labels { labels, .. }, Items::Sequences { examples, .. }) => {
                let mut text = submission(task, examples, labels)?;
                let gold: Option<Vec<Label>> = examples.iter().map(|example| example.label).collect();
                if let Some(gold) = gold {
                    let gold = submission(task, examples, &gold)?;
                    let column = gold.lines().skip(1).map(|line| line.rsplit('\t').next().unwrap_or_default());
                    let column = std::iter::once("label").chain(column);
                    text = text.lines().zip(column).map(|(line, label)| format!("{line}\t{label}\n")).collect();
                }
                Ok(vec![(format!("predictions{suffix}.tsv"), text)])
            }
            (Decisions::Spans(predictions), Items::Spans { .. }) => {
                let nbest = nbest_json(predictions).expect("texts and numbers are JSON");
                let mut files = vec![
                    ("predictions.json".to_owned(), predictions_json(predictions)),
                    ("nbest_predictions.json".to_owned(), nbest),
                ];
                let odds: Option<Map<String, Value>> =
                    predictions.iter().map(|p| Some((p.id.clone(), p.null_score_diff?.into()))).collect();
                files.extend(odds.map(|odds| ("null_odds.json".to_owned(), format!("{:#}\n", Value::Object(odds)))));
                Ok(files)
            }
            _ => unreachable!("decisions are of the kind of their inputs"),
        }
    }

    /// The files for the GLUE server, for a test split; those of [`Answers::files`] for a task without a submission.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if a predicted class is none of the task's.
    pub fn submission(&self, task: &Task, inputs: &Inputs) -> Result<Vec<(String, String)>> {
        let name = task.submissions.iter().find(|(split, _)| *split == inputs.split).map(|(_, name)| name.clone());
        match (&self.decisions, &inputs.items, name) {
            (Decisions::Labels { labels, .. }, Items::Sequences { examples, .. }, Some(name)) => {
                Ok(vec![(name, submission(task, examples, labels)?)])
            }
            _ => self.files(task, inputs),
        }
    }
}

/// The answers of a model to several splits.
pub(super) fn predict_all(
    model: &Model,
    masks: Option<&Masks>,
    task: &Task,
    splits: &[Inputs],
    settings: &TuneSettings,
    watch: &mut Watch<'_>,
) -> Result<Vec<Answers>> {
    let total = splits.iter().map(Inputs::sequences).sum();
    let mut before = 0;
    let predict = |inputs: &Inputs| {
        let progress = |done| watch(before + done, total);
        let answers = Answers::predict(model, masks, settings.compute, task, inputs, &settings.inputs, progress);
        before += inputs.sequences();
        answers
    };
    splits.iter().map(predict).collect()
}

/// The training loss. Cross-entropy has a kernel without the gradient, which is cheaper.
fn evaluation_loss(logits: &mut [f32], bounds: &[usize], targets: &Targets) -> f64 {
    match targets {
        Targets::Classes(labels) => cross_entropy::forward(logits, labels).loss_sum / labels.len().max(1) as f64,
        _ => mean_loss(logits, bounds, targets),
    }
}
