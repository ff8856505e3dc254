//! Span questions: `SQuAD` 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).
//!
//! A [`Dataset`] is contexts and questions. [`Windows`] cuts contexts that are too long into overlapping pieces, each
//! with its question in front, and says where in them the answer starts and ends. From a model's logits per window
//! [`predict`] finds the answers' texts, and [`evaluate`] scores them as the official scripts do.
//!
//! Answers are found and recovered through the tokenizer's offsets: a predicted text is a piece of its context, letter
//! by letter.

mod evaluate;
mod predict;
mod windows;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::tasks::{Layout, Located, Split, Task, locate};
use crate::text::read_text;
use crate::{Error, Result};

pub use evaluate::{Part, SpanScores, Threshold, evaluate};
pub use predict::{Candidate, PredictOptions, Prediction, WindowLogits, nbest_json, predict, predictions_json};
pub use windows::{Window, WindowOptions, Windows};

/// A right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// The bytes of the context where it stands; none if it stands nowhere.
    pub span: Option<Range<usize>>,
}

/// A question about a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name; no other has it.
    pub id: String,
    /// What is asked.
    pub text: String,
    /// Index of its context.
    pub context: usize,
    /// Answers that are right, any of them; none if it cannot be answered, or in a file without answers.
    pub answers: Vec<Answer>,
    /// Whether the context does not answer it (`SQuAD` 2.0).
    pub impossible: bool,
}

impl Question {
    /// Where the answer to train on stands: the first that stands anywhere.
    #[must_use]
    pub fn span(&self) -> Option<Range<usize>> {
        self.answers.iter().find_map(|answer| answer.span.clone())
    }

    /// Whether one can train on it: its answer is found, or it is known to have none.
    #[must_use]
    pub fn is_trainable(&self) -> bool {
        self.impossible || self.span().is_some()
    }
}

/// Contexts and questions about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// Texts that hold the answers.
    pub contexts: Vec<String>,
    /// Questions, in the order of the file; at least one.
    pub questions: Vec<Question>,
    /// Answers that stand elsewhere than the file says, and were found.
    pub moved: usize,
    /// Ids of questions that have answers, none of which occurs in the context: they can be scored, not trained on.
    pub unlocated: Vec<String>,
}

impl Dataset {
    /// Reads a split of a span task from its directory, or from a directory of tasks' directories.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::WrongKind`] if it is not a span task, and those of
    /// [`Dataset::read_file`].
    pub fn read(task: &Task, dir: &Path, split: Split) -> Result<Self> {
        let Located { source, files } = locate(task, dir, split)?;
        match (&source.layout, files.as_slice()) {
            (Layout::Squad, [file]) => Self::read_file(file),
            _ => Err(Error::WrongKind { what: "a set of questions", given: "a table" }),
        }
    }

    /// Reads a file of `SQuAD`'s JSON, version 1.1 or 2.0.
    ///
    /// # Errors
    ///
    /// [`Error::BadFile`] if it is not such a file or two questions have the same id, [`Error::NoExamples`],
    /// [`Error::NotText`], [`Error::Io`].
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let bad = |reason| Error::BadFile { path: path.to_owned(), kind: "SQuAD", reason };
        let file: json::File = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let mut dataset = Self {
            path: path.to_owned(),
            contexts: Vec::new(),
            questions: Vec::new(),
            moved: 0,
            unlocated: Vec::new(),
        };
        for paragraph in file.data.into_iter().flat_map(|article| article.paragraphs) {
            dataset.add(paragraph);
        }
        let mut ids = HashSet::new();
        if let Some(twice) = dataset.questions.iter().find(|question| !ids.insert(question.id.as_str())) {
            return Err(bad(format!("two questions have the id {:?}", twice.id)));
        }
        if dataset.questions.is_empty() {
            return Err(Error::NoExamples { path: path.to_owned() });
        }
        Ok(dataset)
    }

    fn add(&mut self, paragraph: json::Paragraph) {
        let context = self.contexts.len();
        let text = paragraph.context;
        // Answers are placed by characters.
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for qa in paragraph.qas {
            let impossible = qa.is_impossible;
            // Those of an impossible question, if there are any, are plausible ones.
            let given = if impossible { Vec::new() } else { qa.answers };
            let mut answers = Vec::with_capacity(given.len());
            for answer in given {
                let stated = answer.answer_start.and_then(|start| usize::try_from(start).ok());
                let stated = stated.and_then(|start| starts.get(start).copied());
                let span = locate_answer(&text, &answer.text, stated);
                self.moved += usize::from(span.as_ref().is_some_and(|span| Some(span.start) != stated));
                answers.push(Answer { text: answer.text, span });
            }
            let question = Question { id: qa.id, text: qa.question, context, answers, impossible };
            if !question.answers.is_empty() && question.span().is_none() {
                self.unlocated.push(question.id.clone());
            }
            self.questions.push(question);
        }
        self.contexts.push(text);
    }

    /// The questions with these indices, ascending, and all contexts.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if there is no such question.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let question = |&i: &usize| {
            let expected = "must be the index of a question";
            self.questions.get(i).cloned().ok_or(Error::OutOfRange { name: "question", value: i as f64, expected })
        };
        let questions: Vec<Question> = indices.iter().map(question).collect::<Result<_>>()?;
        let kept: HashSet<&str> = questions.iter().map(|question| question.id.as_str()).collect();
        let unlocated = self.unlocated.iter().filter(|id| kept.contains(id.as_str())).cloned().collect();
        let (path, contexts) = (self.path.clone(), self.contexts.clone());
        Ok(Self { path, contexts, questions, moved: self.moved, unlocated })
    }
}

/// The bytes of `answer` in `context`: at `stated` if it stands there, else wherever it is nearest to that, without
/// white space around it.
fn locate_answer(context: &str, answer: &str, stated: Option<usize>) -> Option<Range<usize>> {
    let trimmed = answer.trim();
    if trimmed.is_empty() {
        return None;
    }
    let lead = answer.len() - answer.trim_start().len();
    if let Some(start) = stated
        && context[start..].starts_with(answer)
    {
        return Some(start + lead..start + lead + trimmed.len());
    }
    let from = stated.unwrap_or(0);
    let (start, _) = context.match_indices(trimmed).min_by_key(|(at, _)| at.abs_diff(from))?;
    Some(start..start + trimmed.len())
}

/// What stands in a file. Whatever else does is ignored.
mod json {
    use super::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct File {
        pub(super) data: Vec<Article>,
    }

    #[derive(Deserialize)]
    pub(super) struct Article {
        pub(super) paragraphs: Vec<Paragraph>,
    }

    #[derive(Deserialize)]
    pub(super) struct Paragraph {
        pub(super) context: String,
        pub(super) qas: Vec<Qa>,
    }

    #[derive(Deserialize)]
    pub(super) struct Qa {
        pub(super) id: String,
        pub(super) question: String,
        #[serde(default)]
        pub(super) answers: Vec<Answer>,
        #[serde(default)]
        pub(super) is_impossible: bool,
    }

    #[derive(Deserialize)]
    pub(super) struct Answer {
        pub(super) text: String,
        /// In characters; absent or -1 in some files whose answers are not placed.
        pub(super) answer_start: Option<i64>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_where_it_is_said_to_be_or_nearest_to_that() {
        let context = "one two one two";
        assert_eq!(locate_answer(context, "one", Some(8)), Some(8..11));
        assert_eq!(locate_answer(context, "one", Some(7)), Some(8..11));
        assert_eq!(locate_answer(context, "one", Some(2)), Some(0..3));
        assert_eq!(locate_answer(context, "one", None), Some(0..3));
        assert_eq!(locate_answer(context, " two ", Some(3)), Some(4..7));
        assert_eq!(locate_answer(context, "two three", Some(4)), None);
        assert_eq!(locate_answer(context, " ", Some(3)), None);
    }
}
