//! Contexts cut into overlapping windows, each with its question in front.

use std::ops::Range;

use rayon::prelude::*;

use super::{Dataset, Question};
use crate::{Error, Result, Specials, Tokenized, Tokenizer};

/// How contexts are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// Tokens in a window, with the question and the special tokens.
    pub max_length: usize,
    /// Tokens from the start of a window to the start of the next.
    pub stride: usize,
    /// Tokens of the question that are kept.
    pub max_query: usize,
}

impl Default for WindowOptions {
    /// Those of BERT and of the reference.
    fn default() -> Self {
        Self { max_length: 384, stride: 128, max_query: 64 }
    }
}

/// A piece of a context, for one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Index of the question.
    pub question: usize,
    /// The first of the context's tokens in it.
    pub first: usize,
    /// How many of the context's tokens are in it; none if the context has none.
    pub tokens: usize,
    /// Where the answer starts and ends among the window's ids, both inclusive. Both are 0, the place of `cls`, if the
    /// whole answer is not in the window.
    pub answer: (usize, usize),
}

/// All windows of a dataset. Those of a question follow each other, in the order of the text.
///
/// A context is tokenized once for all its questions and windows; a window's ids are put together on demand.
#[derive(Clone, Debug)]
pub struct Windows {
    contexts: Vec<Tokenized>,
    queries: Vec<Vec<u32>>,
    /// The context of each question.
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
    /// [`Error::Length`] if a window has no room for context beside a question and the special tokens,
    /// [`Error::OutOfRange`] if the stride is 0, [`Error::Tokenize`].
    pub fn new(dataset: &Dataset, tokenizer: &Tokenizer, options: WindowOptions) -> Result<Self> {
        if options.stride == 0 {
            return Err(Error::OutOfRange { name: "stride", value: 0.0, expected: "must be at least 1" });
        }
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
            let taken = query.len() + 2 + specials.pair_separators;
            let room = match options.max_length.checked_sub(taken) {
                Some(room) if room > 0 => room,
                _ => return Err(Error::Length { length: options.max_length, specials: taken }),
            };
            let start = windows.len();
            let context_start = query.len() + 1 + specials.pair_separators;
            let answer = answer_tokens(question, context);
            windows.extend(pieces(context.ids.len(), room, options.stride).map(|(first, tokens)| {
                let place = |token: usize| token - first + context_start;
                let answer = match &answer {
                    Some(a) if a.start >= first && a.end <= first + tokens => (place(a.start), place(a.end - 1)),
                    _ => (0, 0),
                };
                Window { question: i, first, tokens, answer }
            }));
            of_question.push(start..windows.len());
        }
        let context_of = dataset.questions.iter().map(|question| question.context).collect();
        Ok(Self { contexts, queries, context_of, windows, of_question, specials })
    }

    /// How many windows there are; at least as many as questions.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is no empty value")]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Window `i`. Panics unless `i < len()`.
    #[must_use]
    pub fn window(&self, i: usize) -> &Window {
        &self.windows[i]
    }

    /// The windows of a question. Panics if there is no such question.
    #[must_use]
    pub fn of_question(&self, question: usize) -> Range<usize> {
        self.of_question[question].clone()
    }

    /// How many ids window `i` has.
    #[must_use]
    pub fn ids_len(&self, i: usize) -> usize {
        self.context_start(i) + self.windows[i].tokens + 1
    }

    /// Where among the ids of window `i` the context starts.
    #[must_use]
    pub fn context_start(&self, i: usize) -> usize {
        self.queries[self.windows[i].question].len() + 1 + self.specials.pair_separators
    }

    /// Appends window `i` to `ids`, `cls` question `sep` context `sep` (RoBERTa: two `sep` in the middle), and to
    /// `type_ids` 0 for the question, 1 for the context (RoBERTa: 0).
    pub fn fill(&self, i: usize, ids: &mut Vec<u32>, type_ids: &mut Vec<u32>) {
        let Window { question, first, tokens, .. } = self.windows[i];
        let Specials { cls, sep, pair_separators, .. } = self.specials;
        ids.push(cls);
        ids.extend_from_slice(&self.queries[question]);
        ids.extend(std::iter::repeat_n(sep, pair_separators));
        ids.extend_from_slice(&self.context(question).ids[first..first + tokens]);
        ids.push(sep);
        type_ids.extend(std::iter::repeat_n(0, self.context_start(i)));
        type_ids.extend(std::iter::repeat_n(u32::from(pair_separators == 1), tokens + 1));
    }

    /// The bytes of the context that the context's token number `token` stands for.
    pub(super) fn offsets(&self, question: usize, token: usize) -> (usize, usize) {
        self.context(question).offsets[token]
    }

    /// For each token of a question's context the window where it has the most context on its poorer side: a token
    /// counts as the start of an answer in this window only. The score is min(tokens before, tokens after) + 0.01 times
    /// the window's tokens; of equals, the first.
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

/// First token and length of each window over `tokens` tokens: each starts `stride` after the one before, but never
/// past its end, until one reaches the end.
fn pieces(tokens: usize, room: usize, stride: usize) -> impl Iterator<Item = (usize, usize)> {
    let next = move |&(first, length): &(usize, usize)| {
        let reached = first + length;
        let first = first + stride.min(length);
        (reached < tokens).then(|| (first, room.min(tokens - first)))
    };
    std::iter::successors(Some((0, room.min(tokens))), next)
}

/// The context's tokens that the answer to train on touches.
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
        // No token is left out by a stride longer than a window.
        assert_eq!(all(9, 4, 100), [(0, 4), (4, 4), (8, 1)]);
    }
}
