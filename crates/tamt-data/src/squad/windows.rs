//! Overlapping windows of contexts, each with its question in front.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Result, at_least_one};
use crate::squad::dataset::{Dataset, Question};
use crate::tokenizer::{Specials, Tokenized, Tokenizer, room};

/// Options of [`Windows::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// Maximum number of tokens of a window, question and special tokens included.
    pub max_length: usize,
    /// Distance in tokens between the starts of consecutive windows.
    pub stride: usize,
    /// Maximum number of tokens of the question; the rest is cut off.
    pub max_query: usize,
}

impl Default for WindowOptions {
    /// The options of BERT and of the reference implementation.
    fn default() -> Self {
        Self { max_length: 384, stride: 128, max_query: 64 }
    }
}

/// A window of a question's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Index of the question.
    pub question: usize,
    /// Index of the window's first token in the context.
    pub first: usize,
    /// Number of context tokens in the window; 0 only for a context without tokens.
    pub tokens: usize,
    /// Positions of the first and the last token of the answer in the window's ids. Both are 0, the position of `cls`, if
    /// the window does not contain the whole answer.
    pub answer: (usize, usize),
}

/// All windows of a dataset. The windows of a question are consecutive, in the order of the text.
///
/// A context is tokenized once for all its questions and windows; [`Windows::fill`] assembles the ids of a window on
/// demand.
#[derive(Clone, Debug)]
pub struct Windows {
    contexts: Vec<Tokenized>,
    queries: Vec<Vec<u32>>,
    /// Index of each question's context.
    context_of: Vec<usize>,
    windows: Vec<Window>,
    /// The windows of each question.
    of_question: Vec<Range<usize>>,
    specials: Specials,
}

impl Windows {
    /// Cuts the contexts of all questions, in parallel.
    ///
    /// # Errors
    ///
    /// [`Error::Length`](crate::Error::Length) if a question and the special tokens leave no room for context in a window,
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) if the stride is 0, [`Error::Tokenize`](crate::Error::Tokenize).
    pub fn new(dataset: &Dataset, tokenizer: &Tokenizer, options: WindowOptions) -> Result<Self> {
        at_least_one("stride", options.stride)?;
        let specials = *tokenizer.specials();
        let contexts: Vec<Tokenized> = dataset
            .contexts
            .par_iter()
            .with_min_len(8)
            .map(|context| tokenizer.ids_with_offsets(context))
            .collect::<Result<_>>()?;
        let queries: Vec<Vec<u32>> = dataset
            .questions
            .par_iter()
            .with_min_len(64)
            .map(|question| {
                let mut ids = tokenizer.ids(&question.text)?;
                ids.truncate(options.max_query);
                Ok(ids)
            })
            .collect::<Result<_>>()?;

        let mut windows = Vec::with_capacity(dataset.questions.len());
        let mut of_question = Vec::with_capacity(dataset.questions.len());
        for (i, (question, query)) in dataset.questions.iter().zip(&queries).enumerate() {
            let context = &contexts[question.context];
            let context_start = query.len() + 1 + specials.pair_separators;
            let room = room(options.max_length, context_start + 1)?;
            let start = windows.len();
            let answer = answer_tokens(question, context);
            windows.extend(pieces(context.ids.len(), room, options.stride).map(|(first, tokens)| {
                let position = |token: usize| token - first + context_start;
                let answer = match &answer {
                    Some(a) if a.start >= first && a.end <= first + tokens => (position(a.start), position(a.end - 1)),
                    _ => (0, 0),
                };
                Window { question: i, first, tokens, answer }
            }));
            of_question.push(start..windows.len());
        }
        let context_of = dataset.questions.iter().map(|question| question.context).collect();
        Ok(Self { contexts, queries, context_of, windows, of_question, specials })
    }

    /// Number of windows; at least one per question.
    #[allow(clippy::len_without_is_empty, reason = "a dataset has at least one question")]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Window `i`.
    ///
    /// # Panics
    ///
    /// If `i` is at least [`Windows::len`].
    pub fn window(&self, i: usize) -> &Window {
        &self.windows[i]
    }

    /// The range of a question's windows.
    ///
    /// # Panics
    ///
    /// If `question` is not the index of a question.
    pub fn of_question(&self, question: usize) -> Range<usize> {
        self.of_question[question].clone()
    }

    /// Number of ids of window `i`.
    pub fn ids_len(&self, i: usize) -> usize {
        self.context_start(i) + self.windows[i].tokens + 1
    }

    /// Position of the first context token in the ids of window `i`.
    pub fn context_start(&self, i: usize) -> usize {
        self.queries[self.windows[i].question].len() + 1 + self.specials.pair_separators
    }

    /// Appends window `i` to `ids`: `cls` question `sep` context `sep`, with two `sep` in the middle for RoBERTa. Appends
    /// the token types to `type_ids`: 0 for the question, [`Specials::second_type`] for the context.
    pub fn fill(&self, i: usize, ids: &mut Vec<u32>, type_ids: &mut Vec<u32>) {
        let Window { question, first, tokens, .. } = self.windows[i];
        let Specials { cls, sep, pair_separators, second_type, .. } = self.specials;
        ids.push(cls);
        ids.extend_from_slice(&self.queries[question]);
        ids.extend(std::iter::repeat_n(sep, pair_separators));
        ids.extend_from_slice(&self.context(question).ids[first..first + tokens]);
        ids.push(sep);
        type_ids.extend(std::iter::repeat_n(0, self.context_start(i)));
        type_ids.extend(std::iter::repeat_n(second_type, tokens + 1));
    }

    /// The byte range of token `token` in the question's context.
    pub(super) fn offsets(&self, question: usize, token: usize) -> (usize, usize) {
        self.context(question).offsets[token]
    }

    /// For each token of a question's context, the window with the token's maximal context. A token can start an answer
    /// only in this window. The window maximises
    ///
    /// ```text
    /// min(tokens before, tokens after) + 0.01 * tokens of the window
    /// ```
    ///
    /// and is the first of equals.
    pub(super) fn max_context(&self, question: usize) -> Vec<usize> {
        let mut best = vec![(f64::NEG_INFINITY, 0); self.context(question).ids.len()];
        for i in self.of_question(question) {
            let Window { first, tokens, .. } = self.windows[i];
            for at in 0..tokens {
                let score = at.min(tokens - 1 - at) as f64 + 0.01 * tokens as f64;
                let best = &mut best[first + at];
                if score > best.0 {
                    *best = (score, i);
                }
            }
        }
        best.into_iter().map(|(_, window)| window).collect()
    }

    fn context(&self, question: usize) -> &Tokenized {
        &self.contexts[self.context_of[question]]
    }
}

/// First token and length of each window over `tokens` tokens. Each window starts `stride` tokens after the previous one,
/// but at most at the end of the previous one. The last window reaches the end of the text.
fn pieces(tokens: usize, room: usize, stride: usize) -> impl Iterator<Item = (usize, usize)> {
    let next = move |&(first, length): &(usize, usize)| {
        let reached = first + length;
        let first = first + stride.min(length);
        (reached < tokens).then(|| (first, room.min(tokens - first)))
    };
    std::iter::successors(Some((0, room.min(tokens))), next)
}

/// The range of context tokens that overlap the training target.
fn answer_tokens(question: &Question, context: &Tokenized) -> Option<Range<usize>> {
    let span = question.span()?;
    let start = context.offsets.iter().position(|&(from, to)| to > span.start && from < span.end)?;
    let after = context.offsets[start..].iter().position(|&(from, _)| from >= span.end);
    Some(start..after.map_or(context.offsets.len(), |n| start + n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_start_a_stride_apart_and_end_with_the_text() {
        let all = |tokens, room, stride| pieces(tokens, room, stride).collect::<Vec<_>>();
        assert_eq!(all(10, 4, 2), [(0, 4), (2, 4), (4, 4), (6, 4)]);
        assert_eq!(all(9, 4, 2), [(0, 4), (2, 4), (4, 4), (6, 3)]);
        assert_eq!(all(4, 4, 2), [(0, 4)]);
        assert_eq!(all(0, 4, 2), [(0, 0)]);
        // A stride longer than a window leaves no gap.
        assert_eq!(all(9, 4, 100), [(0, 4), (4, 4), (8, 1)]);
    }
}
