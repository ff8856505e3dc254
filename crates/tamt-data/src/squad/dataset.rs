//! Contexts and questions, from `SQuAD`'s JSON.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, bad_file};
use crate::squad::json;
use crate::tasks::{Head, Layout, Located, Split, Task, locate};
use crate::text::{checked_text, from_json, read_text};

/// A gold answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text of the answer.
    pub text: String,
    /// The answer's byte range in the context; `None` if the context does not contain the text.
    pub span: Option<Range<usize>>,
}

/// A question about a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The unique id.
    pub id: String,
    /// The text of the question.
    pub text: String,
    /// Index of the context in [`Dataset::contexts`].
    pub context: usize,
    /// Alternative gold answers; empty for an unanswerable question, and for one whose answers the file lacks.
    pub answers: Vec<Answer>,
    /// Whether the question is unanswerable (`SQuAD` 2.0).
    pub impossible: bool,
}

impl Question {
    /// The byte range of the training target: the first answer with a range.
    pub fn span(&self) -> Option<Range<usize>> {
        self.answers.iter().find_map(|answer| answer.span.clone())
    }

    /// Whether the question has a training target: an answer with a range, or no answer by declaration.
    pub fn is_trainable(&self) -> bool {
        self.impossible || self.span().is_some()
    }
}

/// Contexts and questions about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// The contexts.
    pub contexts: Vec<String>,
    /// The questions, in the order of the file; at least one.
    pub questions: Vec<Question>,
    /// Number of answers whose position differs from the file's statement.
    pub moved: usize,
    /// Ids of questions whose context contains none of the answers: they have gold answers, but no training target.
    pub unlocated: Vec<String>,
}

impl Dataset {
    /// Reads a split of a span task. `dir` is the task's directory or contains it. If questions of the task may have no
    /// answer, a question without answers is unanswerable, whatever the file says about it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSplit`], [`Error::MissingSplit`], [`Error::WrongKind`] if `task` is no span task, and those of
    /// [`Dataset::read_file`].
    pub fn read(task: &Task, dir: &Path, split: Split) -> Result<Self> {
        let Located { source, files } = locate(task, dir, split)?;
        match (&source.layout, files.as_slice()) {
            (Layout::Squad, [file]) => {
                let mut dataset = Self::read_file(file)?;
                let may_be_impossible = task.head == (Head::Span { unanswerable: true });
                for question in &mut dataset.questions {
                    question.impossible = may_be_impossible && question.answers.is_empty();
                }
                Ok(dataset)
            }
            _ => Err(Error::WrongKind { what: "a set of questions", given: "a table" }),
        }
    }

    /// Reads a JSON file of `SQuAD` 1.1 or 2.0. An id that is no text becomes its JSON text.
    ///
    /// # Errors
    ///
    /// [`Error::BadFile`] if the file has another structure or two questions have the same id, [`Error::NoExamples`],
    /// [`Error::NotText`], [`Error::Io`].
    pub fn read_file(path: &Path) -> Result<Self> {
        Self::from_text(&read_text(path)?, path)
    }

    /// As [`Dataset::read_file`], from bytes that errors call `path`.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::read_file`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::from_text(checked_text(bytes, path)?, path)
    }

    fn from_text(text: &str, path: &Path) -> Result<Self> {
        let bad = bad_file(path, "SQuAD");
        let file: json::File = from_json(text).map_err(|e| bad(e.to_string()))?;
        let mut dataset = Self::empty(path);
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

    fn empty(path: &Path) -> Self {
        let (contexts, questions, unlocated) = (Vec::new(), Vec::new(), Vec::new());
        Self { path: path.to_owned(), contexts, questions, moved: 0, unlocated }
    }

    /// Questions without answers: an id, the question and the context of each. Neighbours with the same context share
    /// the context.
    pub fn of_questions(questions: impl IntoIterator<Item = (String, String, String)>, path: &Path) -> Self {
        let mut dataset = Self::empty(path);
        for (id, text, context) in questions {
            if dataset.contexts.last() != Some(&context) {
                dataset.contexts.push(context);
            }
            let context = dataset.contexts.len() - 1;
            dataset.questions.push(Question { id, text, context, answers: Vec::new(), impossible: false });
        }
        dataset
    }

    /// A dataset of the questions in a range, with their contexts only.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the questions.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let mut part = Self::empty(&self.path);
        part.questions = self.questions[range].to_vec();
        // Contexts have the order of their questions.
        let first = part.questions.first().map_or(0, |question| question.context);
        let end = part.questions.last().map_or(0, |question| question.context + 1);
        part.contexts = self.contexts[first..end].to_vec();
        part.questions.iter_mut().for_each(|question| question.context -= first);
        part
    }

    /// Appends a paragraph's context and questions.
    fn add(&mut self, paragraph: json::Paragraph) {
        let context = self.contexts.len();
        let text = paragraph.context;
        // `answer_start` counts characters.
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for qa in paragraph.qas {
            let impossible = qa.is_impossible.unwrap_or(false);
            // The answers of an impossible question are only plausible, not gold.
            let given = if impossible { Vec::new() } else { qa.answers.unwrap_or_default() };
            let mut answers = Vec::with_capacity(given.len());
            for answer in given {
                let stated = answer.answer_start.0.and_then(|start| usize::try_from(start).ok());
                let stated = stated.and_then(|start| starts.get(start).copied());
                let span = locate_answer(&text, &answer.text, stated);
                self.moved += usize::from(span.as_ref().is_some_and(|span| !is_at(span.start, &answer.text, stated)));
                answers.push(Answer { text: answer.text, span });
            }
            let question = Question { id: qa.id.0, text: qa.question, context, answers, impossible };
            if !question.answers.is_empty() && question.span().is_none() {
                self.unlocated.push(question.id.clone());
            }
            self.questions.push(question);
        }
        self.contexts.push(text);
    }

    /// A dataset of the questions with these indices (ascending) and all contexts.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if an index is too large.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let question = |&i: &usize| {
            let expected = "must be the index of a question";
            self.questions.get(i).cloned().ok_or(Error::OutOfRange { name: "question", value: i as f64, expected })
        };
        let questions: Vec<Question> = indices.iter().map(question).collect::<Result<_>>()?;
        let selected: HashSet<&str> = questions.iter().map(|question| question.id.as_str()).collect();
        let unlocated = self.unlocated.iter().filter(|id| selected.contains(id.as_str())).cloned().collect();
        let (path, contexts) = (self.path.clone(), self.contexts.clone());
        Ok(Self { path, contexts, questions, moved: self.moved, unlocated })
    }
}

/// The byte range of `answer` in `context`, without surrounding white space: at byte `stated` if the answer is there, else
/// at the nearest occurrence.
fn locate_answer(context: &str, answer: &str, stated: Option<usize>) -> Option<Range<usize>> {
    let trimmed = answer.trim();
    if trimmed.is_empty() {
        return None;
    }
    if let Some(start) = stated
        && context[start..].starts_with(answer)
    {
        let start = start + lead(answer);
        return Some(start..start + trimmed.len());
    }
    let from = stated.unwrap_or(0);
    let (start, _) = context.match_indices(trimmed).min_by_key(|(at, _)| at.abs_diff(from))?;
    Some(start..start + trimmed.len())
}

/// Bytes of white space at the start of an answer.
fn lead(answer: &str) -> usize {
    answer.len() - answer.trim_start().len()
}

/// Whether an answer that begins at byte `start`, its white space left out, stands where a file says: at `stated`, with its
/// white space or without.
fn is_at(start: usize, answer: &str, stated: Option<usize>) -> bool {
    stated.is_some_and(|stated| start == stated || start == stated + lead(answer))
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
