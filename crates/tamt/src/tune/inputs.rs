//! The splits of a task: examples, their tokens, and their targets.

use std::path::{Path, PathBuf};

use tamt_data::squad::{Dataset, Question, WindowOptions, Windows};
use tamt_data::tasks::{self, Example, Feature, Head, Label, Split, Task, encode, subset};
use tamt_data::{Tokenizer, length_batches};
use tamt_model::{Batch, Config};

use crate::error::{Error, Result};
use crate::evaluate::batch_tokens;
use crate::tune::settings::{InputSettings, TuneSettings};

/// A split of a task: the content of its files, and their tokens.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The split.
    pub split: Split,
    /// The files of the split.
    pub files: Vec<PathBuf>,
    /// Notices about the files for a user: skipped rows, answers that do not occur in their contexts.
    pub notes: Vec<String>,
    pub(super) items: Items,
}

/// Examples and their tokens.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each split")]
pub(super) enum Items {
    /// A sequence for each example.
    Sequences { examples: Vec<Example>, features: Vec<Feature> },
    /// One or several windows for each question.
    Spans { dataset: Dataset, windows: Windows },
}

/// The correct answers of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Targets {
    /// A class for each sequence.
    Classes(Vec<u32>),
    /// A number for each sequence.
    Values(Vec<f32>),
    /// First and last token of the answer in each window.
    Spans(Vec<(u32, u32)>),
}

impl Inputs {
    /// Reads and tokenizes a split from the task's directory.
    ///
    /// # Errors
    /// Those of [`tamt_data::tasks::read_noted`], [`Dataset::read`], [`encode`] and [`Windows::new`].
    pub fn read(
        task: &Task,
        dir: &Path,
        split: Split,
        tokenizer: &Tokenizer,
        settings: &InputSettings,
    ) -> Result<Self> {
        if let Head::Span { .. } = task.head {
            let mut dataset = Dataset::read(task, dir, split)?;
            let notes = span_notes(&dataset, split);
            let files = vec![dataset.path.clone()];
            if split == Split::Train {
                keep_trainable(&mut dataset)?;
            }
            let windows = windows(&dataset, tokenizer, settings)?;
            return Ok(Self { split, files, notes, items: Items::Spans { dataset, windows } });
        }
        let (read, on_files) = tasks::read_noted(task, dir, split)?;
        let skipped = [&read.skipped, &read.unlabelled].into_iter().filter_map(|rows| skipped_note(rows));
        let notes = skipped.chain(on_files).collect();
        let items = sequences(read.items, tokenizer, settings)?;
        Ok(Self { split, files: read.files, notes, items })
    }

    /// Tokenizes examples that belong to no split.
    ///
    /// # Errors
    /// Those of [`encode`].
    pub(crate) fn of_examples(examples: Vec<Example>, tokenizer: &Tokenizer, settings: &InputSettings) -> Result<Self> {
        let items = sequences(examples, tokenizer, settings)?;
        Ok(Self { split: Split::Test, files: Vec::new(), notes: Vec::new(), items })
    }

    /// Tokenizes questions that belong to no split.
    ///
    /// # Errors
    /// Those of [`Windows::new`].
    pub(crate) fn of_questions(dataset: Dataset, tokenizer: &Tokenizer, settings: &InputSettings) -> Result<Self> {
        let windows = windows(&dataset, tokenizer, settings)?;
        let items = Items::Spans { dataset, windows };
        Ok(Self { split: Split::Test, files: Vec::new(), notes: Vec::new(), items })
    }

    /// Questions and contexts; `None` for a task of sequences.
    pub(crate) fn dataset(&self) -> Option<&Dataset> {
        match &self.items {
            Items::Sequences { .. } => None,
            Items::Spans { dataset, .. } => Some(dataset),
        }
    }

    /// `n` of the examples (questions), chosen by the task and the seed; a subset lies in every larger one.
    ///
    /// # Errors
    /// [`Error::Data`] if `n` is 0 or more than the number of examples.
    pub fn subset(&self, task: &Task, n: usize, seed: u64, tokenizer: &Tokenizer, s: &InputSettings) -> Result<Self> {
        let chosen = subset(&task.name, self.examples(), n, seed)?;
        let items = match &self.items {
            Items::Sequences { examples, features } => Items::Sequences {
                examples: chosen.iter().map(|&i| examples[i].clone()).collect(),
                features: chosen.iter().map(|&i| features[i].clone()).collect(),
            },
            Items::Spans { dataset, .. } => {
                let dataset = dataset.select(&chosen)?;
                let windows = windows(&dataset, tokenizer, s)?;
                Items::Spans { dataset, windows }
            }
        };
        Ok(Self { split: self.split, files: self.files.clone(), notes: self.notes.clone(), items })
    }

    /// The number of examples (questions).
    pub fn examples(&self) -> usize {
        match &self.items {
            Items::Sequences { examples, .. } => examples.len(),
            Items::Spans { dataset, .. } => dataset.questions.len(),
        }
    }

    /// The number of sequences (windows) that the model reads.
    pub fn sequences(&self) -> u64 {
        match &self.items {
            Items::Sequences { features, .. } => features.len() as u64,
            Items::Spans { windows, .. } => windows.len() as u64,
        }
    }

    /// Tokens of each sequence (window).
    pub(super) fn lengths(&self) -> Vec<usize> {
        match &self.items {
            Items::Sequences { features, .. } => features.iter().map(|feature| feature.ids.len()).collect(),
            Items::Spans { windows, .. } => (0..windows.len()).map(|i| windows.ids_len(i)).collect(),
        }
    }

    /// Batches of an evaluation of a model, of sequences with similar lengths.
    pub(super) fn batches(&self, config: &Config) -> Vec<Vec<u32>> {
        length_batches(&self.lengths(), batch_tokens(config))
    }

    /// Fills `batch` with the sequences (windows) with these numbers.
    pub(super) fn fill(&self, chosen: &[u32], config: &Config, batch: &mut Batch) {
        batch.clear();
        for &i in chosen {
            match &self.items {
                Items::Sequences { features, .. } => {
                    let feature = &features[i as usize];
                    batch.ids.extend_from_slice(&feature.ids);
                    batch.type_ids.extend_from_slice(&feature.type_ids);
                }
                Items::Spans { windows, .. } => windows.fill(i as usize, &mut batch.ids, &mut batch.type_ids),
            }
            batch.close_sequence(0);
        }
        // A model with one segment has no row for segment 1.
        let last = config.type_vocab_size as u32 - 1;
        batch.type_ids.iter_mut().for_each(|id| *id = (*id).min(last));
        batch.locate(config);
    }

    /// The correct answers of the sequences (windows) with these numbers; `None` if a sequence has no label.
    pub(super) fn targets(&self, chosen: &[u32]) -> Option<Targets> {
        match &self.items {
            Items::Spans { windows, .. } => Some(Targets::Spans(
                chosen
                    .iter()
                    .map(|&i| windows.window(i as usize).answer)
                    .map(|(start, end)| (start as u32, end as u32))
                    .collect(),
            )),
            Items::Sequences { features, .. } => {
                let labels = chosen.iter().map(|&i| features[i as usize].label).collect::<Option<Vec<Label>>>()?;
                let classes = labels.iter().map(|label| match label {
                    Label::Class(class) => Some(*class),
                    Label::Value(_) => None,
                });
                if let Some(classes) = classes.collect::<Option<Vec<u32>>>() {
                    return Some(Targets::Classes(classes));
                }
                let values = labels.iter().map(|label| match label {
                    Label::Value(value) => *value,
                    Label::Class(class) => *class as f32,
                });
                Some(Targets::Values(values.collect()))
            }
        }
    }
}

/// The splits of a task that a fine-tuning reads.
#[derive(Clone, Debug)]
pub struct TaskData {
    /// The training set.
    pub train: Inputs,
    /// The development sets: one, or both of MNLI's; none for a task without.
    pub dev: Vec<Inputs>,
    /// The test sets to predict at the end; none unless the settings ask for predictions.
    pub test: Vec<Inputs>,
}

impl TaskData {
    /// Reads the splits from the task's directory.
    ///
    /// # Errors
    /// Those of [`Inputs::read`]; [`Error::Setting`] if the training set has fewer examples than the settings ask for, or
    /// the settings ask for predictions of a test set and the task has none.
    pub fn read(task: &Task, dir: &Path, tokenizer: &Tokenizer, settings: &TuneSettings) -> Result<Self> {
        let read = |split| Inputs::read(task, dir, split, tokenizer, &settings.inputs);
        if settings.predict_test && task.test_splits().next().is_none() {
            return Err(Error::setting("predict-test", format!("{} has no test split", task.name)));
        }
        let test =
            if settings.predict_test { task.test_splits().map(read).collect::<Result<_>>()? } else { Vec::new() };
        let train = read(Split::Train)?;
        if let Some(n) = settings.train_examples
            && n > train.examples()
        {
            let reason = format!("{n} are more than the {} of the training set", train.examples());
            return Err(Error::setting("train-examples", reason));
        }
        Ok(Self { train, dev: task.dev_splits().map(read).collect::<Result<_>>()?, test })
    }

    /// All splits.
    pub fn all(&self) -> impl Iterator<Item = &Inputs> {
        std::iter::once(&self.train).chain(&self.dev).chain(&self.test)
    }
}

/// Keeps the questions to train on: those without an answer, and those whose answer occurs in the context.
fn keep_trainable(dataset: &mut Dataset) -> Result<()> {
    dataset.questions.retain(Question::is_trainable);
    // The removed questions need no notice.
    dataset.unlocated.clear();
    if dataset.questions.is_empty() {
        return Err(tamt_data::Error::NoExamples { path: dataset.path.clone() }.into());
    }
    Ok(())
}

fn sequences(examples: Vec<Example>, tokenizer: &Tokenizer, settings: &InputSettings) -> Result<Items> {
    let features =
        encode(&examples, tokenizer, settings.max_length).map_err(|error| too_short(error, "special tokens"))?;
    Ok(Items::Sequences { examples, features })
}

fn windows(dataset: &Dataset, tokenizer: &Tokenizer, settings: &InputSettings) -> Result<Windows> {
    let spans = settings.spans.ok_or_else(|| Error::setting("task", "a span task needs the settings of windows"))?;
    let options =
        WindowOptions { max_length: settings.max_length, stride: spans.doc_stride, max_query: spans.max_query_length };
    Windows::new(dataset, tokenizer, options).map_err(|error| too_short(error, "tokens of a question and special ones"))
}

/// An error that names the setting `max-length`, where it leaves no room for text beside tokens of this kind.
fn too_short(error: tamt_data::Error, what: &str) -> Error {
    match error {
        tamt_data::Error::Length { length, specials } => {
            let reason = format!("{length} tokens leave no room for text beside {specials} {what}");
            Error::setting("max-length", reason)
        }
        other => other.into(),
    }
}

fn skipped_note(skipped: &[tasks::Skipped]) -> Option<String> {
    let first = skipped.first()?;
    Some(match skipped.len() {
        1 => format!("skipped a row: {first}"),
        n => format!("skipped {n} rows; the first: {first}"),
    })
}

fn span_notes(dataset: &Dataset, split: Split) -> Vec<String> {
    let path = dataset.path.display();
    let mut notes = Vec::new();
    let mut unanswered =
        dataset.questions.iter().filter(|question| question.answers.is_empty() && !question.impossible);
    if let Some(first) = unanswered.next() {
        let consequence = if split == Split::Train { "skipped" } else { "scored against no answer" };
        notes.push(match 1 + unanswered.count() {
            1 => format!("{path}: one question has no answers, {consequence}: {}", first.id),
            n => format!("{path}: {n} questions have no answers, {consequence}; the first: {}", first.id),
        });
    }
    if dataset.moved > 0 {
        let (n, stand) = (dataset.moved, if dataset.moved == 1 { "answer stands" } else { "answers stand" });
        notes.push(format!("{path}: {n} {stand} elsewhere than it says; found by the text"));
    }
    if !dataset.unlocated.is_empty() {
        let (n, first) = (dataset.unlocated.len(), &dataset.unlocated[0]);
        let consequence = if split == Split::Train { "skipped" } else { "scored all the same" };
        notes.push(match n {
            1 => format!("{path}: one question has no answer that occurs in its context, {consequence}: {first}"),
            n => format!(
                "{path}: {n} questions have no answer that occurs in their context, {consequence}; the first: {first}"
            ),
        });
    }
    notes
}
