//! What a model says of a split, and how good that is.

use serde_json::{Map, Value};
use tamt_data::metrics::Scores;
use tamt_data::squad::{self, PredictOptions, Prediction, WindowLogits, nbest_json, predict, predictions_json};
use tamt_data::tasks::{Label, Task, submission};
use tamt_kernels::ops::cross_entropy;
use tamt_model::{Activations, Batch, Masks, Model, Pass, Save};

use super::inputs::{Inputs, Items, Targets};
use super::loss::mean_loss;
use super::settings::InputSettings;
use crate::train::Metrics;
use crate::{Compute, Error, Result};

/// A model's answers to a split.
#[derive(Clone, Debug)]
pub struct Answers {
    kind: Kind,
    /// Mean loss over sequences (windows); `None` where labels are missing.
    loss: Option<f64>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A label for each example.
    Labels(Vec<Label>),
    /// A text for each question.
    Spans(Vec<Prediction>),
}

impl Answers {
    /// Runs the model over a split. `progress` gets the number of sequences (windows) that are done.
    ///
    /// # Errors
    /// [`Error::NonFiniteEvaluation`] if the model's outputs are not finite.
    pub fn of(
        model: &Model,
        masks: Option<&Masks>,
        compute: Compute,
        task: &Task,
        inputs: &Inputs,
        settings: &InputSettings,
        mut progress: impl FnMut(u64),
    ) -> Result<Self> {
        let outputs = task.outputs();
        let prepared = compute.prepare(model, masks);
        let pass = Pass::new(masks, Some(&prepared));
        let (mut batch, mut logits) = (Batch::default(), Vec::new());
        let (mut activations, mut workspace) = (Activations::new(Save::Last), compute.workspace());
        let sequences = inputs.sequences() as usize;
        let mut labels = vec![Label::Class(0); sequences];
        let mut spans = vec![WindowLogits { start: Vec::new(), end: Vec::new() }; sequences];
        let (mut loss, mut done) = (Some(0.0), 0);
        for chosen in inputs.batches() {
            inputs.fill(&chosen, &model.config, &mut batch);
            model.forward(&batch, pass, &mut activations, &mut workspace);
            model.task_forward(activations.last_hidden(), &batch, pass, &mut logits, &mut workspace);
            if logits.iter().any(|v| !v.is_finite()) {
                return Err(Error::NonFiniteEvaluation { what: "the task head's output" });
            }
            for (slot, &i) in chosen.iter().enumerate() {
                match &inputs.items {
                    Items::Sequences { .. } => {
                        labels[i as usize] = task.decide(&logits[slot * outputs..][..outputs])?;
                    }
                    Items::Spans { .. } => {
                        let own = &logits[2 * batch.bounds[slot]..2 * batch.bounds[slot + 1]];
                        let column = |c: usize| own.iter().skip(c).step_by(2).copied().collect();
                        spans[i as usize] = WindowLogits { start: column(0), end: column(1) };
                    }
                }
            }
            loss = loss.zip(inputs.targets(&chosen)).map(|(sum, targets)| {
                sum + chosen.len() as f64 * evaluation_loss(&mut logits, &batch.bounds, &targets)
            });
            done += chosen.len() as u64;
            progress(done);
        }
        let kind = match &inputs.items {
            Items::Sequences { .. } => Kind::Labels(labels),
            Items::Spans { dataset, windows } => {
                Kind::Spans(predict(dataset, windows, &spans, predict_options(task, settings))?)
            }
        };
        Ok(Self { kind, loss: loss.map(|sum| sum / sequences.max(1) as f64) })
    }

    /// The task's metrics against the labels of the split, then the loss; names end in `_mm` for MNLI's mismatched
    /// set. Span metrics are percentages, as the benchmark prints them.
    ///
    /// # Errors
    /// [`Error::Data`] if the split has no labels.
    pub fn metrics(&self, task: &Task, inputs: &Inputs) -> Result<Metrics> {
        let suffix = inputs.split.suffix();
        let mut metrics: Metrics = match (&self.kind, &inputs.items) {
            (Kind::Labels(labels), Items::Sequences { examples, .. }) => {
                let Scores(scores) = task.score(examples, labels)?;
                scores.into_iter().map(|(metric, value)| (metric.key(), value)).map(with_suffix(suffix)).collect()
            }
            (Kind::Spans(predictions), Items::Spans { dataset, .. }) => {
                let scores = squad::evaluate(dataset, predictions)?;
                let parts = [("", Some(scores.all)), ("HasAns_", scores.has_answer), ("NoAns_", scores.no_answer)];
                let mut metrics = Metrics::new();
                for (prefix, part) in parts {
                    let Some(part) = part else { continue };
                    metrics.push((format!("{prefix}exact_match").into(), part.exact_match));
                    metrics.push((format!("{prefix}f1").into(), part.f1));
                }
                metrics
            }
            _ => unreachable!("answers are of the kind of their inputs"),
        };
        metrics.extend(self.loss.map(|loss| with_suffix(suffix)(("loss", loss))));
        Ok(metrics)
    }

    /// The files of predictions by name. For sequences `predictions.tsv`, in the form of the GLUE server and, where
    /// the split has labels, with these in a third column; for spans `predictions.json` and `nbest_predictions.json`
    /// as the official scripts write them, and `null_odds.json` where questions may have no answer.
    ///
    /// # Errors
    /// [`Error::Data`] if a prediction is of no class of the task.
    pub fn files(&self, task: &Task, inputs: &Inputs) -> Result<Vec<(String, String)>> {
        let suffix = inputs.split.suffix();
        match (&self.kind, &inputs.items) {
            (Kind::Labels(labels), Items::Sequences { examples, .. }) => {
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
            (Kind::Spans(predictions), Items::Spans { .. }) => {
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
            _ => unreachable!("answers are of the kind of their inputs"),
        }
    }

    /// The file that the GLUE server wants, for a test split.
    ///
    /// # Errors
    /// [`Error::Data`] if a prediction is of no class of the task.
    pub fn submission(&self, task: &Task, inputs: &Inputs) -> Result<Vec<(String, String)>> {
        let name = task.submissions.iter().find(|(split, _)| *split == inputs.split).map(|(_, name)| name.clone());
        match (&self.kind, &inputs.items, name) {
            (Kind::Labels(labels), Items::Sequences { examples, .. }, Some(name)) => {
                Ok(vec![(name, submission(task, examples, labels)?)])
            }
            _ => self.files(task, inputs),
        }
    }
}

fn with_suffix(suffix: &'static str) -> impl Fn((&'static str, f64)) -> (std::borrow::Cow<'static, str>, f64) {
    move |(name, value)| {
        let name = if suffix.is_empty() { name.into() } else { format!("{name}{suffix}").into() };
        (name, value)
    }
}

/// As the training loss, without the gradient where that costs more.
fn evaluation_loss(logits: &mut [f32], bounds: &[usize], targets: &Targets) -> f64 {
    match targets {
        Targets::Classes(labels) => cross_entropy::forward(logits, labels).loss_sum / labels.len().max(1) as f64,
        _ => mean_loss(logits, bounds, targets),
    }
}

fn predict_options(task: &Task, settings: &InputSettings) -> PredictOptions {
    let spans = settings.spans.unwrap_or_default();
    PredictOptions {
        n_best: spans.n_best,
        max_answer_tokens: spans.max_answer_length,
        unanswerable: matches!(task.head, tamt_data::tasks::Head::Span { unanswerable: true }),
        null_threshold: spans.null_threshold,
    }
}
