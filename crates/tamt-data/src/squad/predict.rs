//! Answers from logits, as in `compute_predictions_logits` of BERT and of the reference implementation.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Result, at_least_one, same_count};
use crate::squad::dataset::Dataset;
use crate::squad::windows::{Window, Windows};

/// The outputs of a span head for a window: two logits per token id.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowLogits {
    /// The logit of an answer that starts at each token.
    pub start: Vec<f32>,
    /// The logit of an answer whose last token is each token.
    pub end: Vec<f32>,
}

/// Options of [`predict`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictOptions {
    /// Number of starts and of ends per window, and of candidates per question.
    pub n_best: usize,
    /// Maximum number of tokens of an answer.
    pub max_answer_tokens: usize,
    /// Whether a question may have no answer (`SQuAD` 2.0).
    pub unanswerable: bool,
    /// The prediction is no answer if the score of no answer exceeds that of the best answer by more than this threshold.
    pub null_threshold: f64,
}

impl Default for PredictOptions {
    /// The options of BERT and of the reference implementation for `SQuAD` 1.1.
    fn default() -> Self {
        Self { n_best: 20, max_answer_tokens: 30, unanswerable: false, null_threshold: 0.0 }
    }
}

/// A candidate answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// A substring of the context; empty for no answer.
    pub text: String,
    /// The byte range of the text in the context; `None` for no answer.
    #[serde(skip)]
    pub range: Option<Range<usize>>,
    /// The softmax of the score over the question's candidates.
    pub probability: f64,
    /// Start logit of the first token.
    pub start_logit: f32,
    /// End logit of the last token.
    pub end_logit: f32,
}

impl Candidate {
    /// The sum of both logits.
    fn score(&self) -> f64 {
        f64::from(self.start_logit) + f64::from(self.end_logit)
    }
}

/// The prediction for a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// The answer; empty for no answer.
    pub text: String,
    /// The score of no answer minus that of the best answer, if questions may be unanswerable.
    pub null_score_diff: Option<f64>,
    /// Candidates with different texts, best first; at least one.
    pub candidates: Vec<Candidate>,
}

impl Prediction {
    /// The candidate with the predicted text.
    pub fn chosen(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.text == self.text)
    }

    /// The probability of no answer, if questions may be unanswerable.
    pub fn no_answer(&self) -> Option<f64> {
        self.null_score_diff?;
        self.candidates.iter().find(|candidate| candidate.text.is_empty()).map(|candidate| candidate.probability)
    }
}

/// Predicts the answers to all questions, in order. `logits` holds one element per window, in order.
///
/// In each window, the `n_best` greatest start logits are combined with the `n_best` greatest end logits. A pair of
/// tokens is a candidate if both are in the context, the end is not before the start, the answer has at most
/// `max_answer_tokens` tokens, and the start has its maximal context in this window. The score of a candidate is the sum
/// of its two logits. The score of no answer is the least score of `cls` over the question's windows.
///
/// If a question has no candidate, the text is empty; the reference implementation gives the word "empty".
///
/// # Errors
///
/// [`Error::Count`](crate::Error::Count) if logits and token ids of a window differ in number;
/// [`Error::OutOfRange`](crate::Error::OutOfRange) if `n_best` is 0.
pub fn predict(
    dataset: &Dataset,
    windows: &Windows,
    logits: &[WindowLogits],
    options: PredictOptions,
) -> Result<Vec<Prediction>> {
    at_least_one("n-best", options.n_best)?;
    same_count("windows with logits", windows.len(), logits.len())?;
    for (i, logits) in logits.iter().enumerate() {
        same_count("logits of a window", windows.ids_len(i), logits.start.len())?;
        same_count("logits of a window", windows.ids_len(i), logits.end.len())?;
    }
    let prediction = |question: usize| {
        let candidates = Candidates { dataset, windows, logits, options, question };
        candidates.prediction()
    };
    Ok((0..dataset.questions.len()).into_par_iter().with_min_len(16).map(prediction).collect())
}

/// A span of a context, with its logits.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// First and last token of the span in the context; `None` for no answer.
    tokens: Option<(usize, usize)>,
    start_logit: f32,
    end_logit: f32,
}

impl Span {
    /// The sum of both logits, exact in f64 for logits of similar size: distinct sums stay distinct.
    fn score(&self) -> f64 {
        f64::from(self.start_logit) + f64::from(self.end_logit)
    }
}

/// The search for the answer to one question.
struct Candidates<'a> {
    dataset: &'a Dataset,
    windows: &'a Windows,
    logits: &'a [WindowLogits],
    options: PredictOptions,
    question: usize,
}

impl Candidates<'_> {
    fn prediction(&self) -> Prediction {
        let mut spans = self.spans();
        let null = self.options.unanswerable.then(|| self.null());
        spans.extend(null);
        // Stable, so that of equals the first found stays first.
        spans.sort_by(|a, b| descending(a.score(), b.score()));
        let mut candidates = self.distinct(&spans);
        if let Some(null) = null
            && !candidates.iter().any(|candidate| candidate.text.is_empty())
        {
            candidates.push(candidate(String::new(), None, null));
        }
        if candidates.is_empty() {
            candidates.push(candidate(String::new(), None, Span { tokens: None, start_logit: 0.0, end_logit: 0.0 }));
        }
        set_probabilities(&mut candidates);

        let best = candidates.iter().find(|candidate| !candidate.text.is_empty());
        let null_score_diff = null.map(|null| match best {
            Some(best) => null.score() - best.score(),
            None => f64::INFINITY,
        });
        let none = null_score_diff.is_some_and(|difference| difference > self.options.null_threshold);
        let text = match best {
            Some(best) if !none => best.text.clone(),
            _ => String::new(),
        };
        Prediction { id: self.dataset.questions[self.question].id.clone(), text, null_score_diff, candidates }
    }

    /// All candidate spans: by window, then by falling start logit, then by falling end logit.
    fn spans(&self) -> Vec<Span> {
        let max_context = self.windows.max_context(self.question);
        let mut spans = Vec::new();
        for i in self.windows.of_question(self.question) {
            let WindowLogits { start, end } = &self.logits[i];
            let Window { first, tokens, .. } = *self.windows.window(i);
            let context_start = self.windows.context_start(i);
            let token = |at: usize| {
                let within = at.checked_sub(context_start).filter(|&within| within < tokens)?;
                Some(first + within)
            };
            let ends = largest(end, self.options.n_best);
            for s in largest(start, self.options.n_best) {
                let Some(from) = token(s).filter(|&from| max_context[from] == i) else {
                    continue;
                };
                for &e in &ends {
                    if let Some(to) = token(e)
                        && (from..from.saturating_add(self.options.max_answer_tokens)).contains(&to)
                    {
                        spans.push(Span { tokens: Some((from, to)), start_logit: start[s], end_logit: end[e] });
                    }
                }
            }
        }
        spans
    }

    /// The span of no answer, from the window with the least score of `cls`.
    fn null(&self) -> Span {
        let of_window = |i: usize| {
            let WindowLogits { start, end } = &self.logits[i];
            Span { tokens: None, start_logit: start[0], end_logit: end[0] }
        };
        let all = self.windows.of_question(self.question).map(of_window);
        let least = all.min_by(|a, b| descending(b.score(), a.score()));
        least.unwrap_or(Span { tokens: None, start_logit: 0.0, end_logit: 0.0 })
    }

    /// The `n_best` first spans with different texts.
    fn distinct(&self, spans: &[Span]) -> Vec<Candidate> {
        let mut seen = HashSet::new();
        let mut candidates = Vec::new();
        for span in spans {
            if candidates.len() == self.options.n_best {
                break;
            }
            let range = span.tokens.map_or(0..0, |tokens| self.range(tokens));
            let text = &self.context()[range.clone()];
            if seen.insert(text) {
                let range = (!text.is_empty()).then_some(range);
                candidates.push(candidate(text.to_owned(), range, *span));
            }
        }
        candidates
    }

    fn context(&self) -> &str {
        &self.dataset.contexts[self.dataset.questions[self.question].context]
    }

    /// The bytes of an inclusive range of the context's tokens, without surrounding white space.
    fn range(&self, (from, to): (usize, usize)) -> Range<usize> {
        let (start, _) = self.windows.offsets(self.question, from);
        let (_, end) = self.windows.offsets(self.question, to);
        let text = self.context().get(start..end).unwrap_or_default();
        let start = start + text.len() - text.trim_start().len();
        start..start + text.trim().len()
    }
}

fn candidate(text: String, range: Option<Range<usize>>, span: Span) -> Candidate {
    Candidate { text, range, probability: 0.0, start_logit: span.start_logit, end_logit: span.end_logit }
}

/// Sets the probabilities to the softmax of the scores.
fn set_probabilities(candidates: &mut [Candidate]) {
    let best = candidates.iter().map(Candidate::score).fold(f64::NEG_INFINITY, f64::max);
    for candidate in &mut *candidates {
        candidate.probability = (candidate.score() - best).exp();
    }
    let sum: f64 = candidates.iter().map(|candidate| candidate.probability).sum();
    for candidate in candidates {
        candidate.probability /= sum;
    }
}

/// The indices of the `n` greatest logits, greatest first; the first of equals comes first.
fn largest(logits: &[f32], n: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| descending(logits[a].into(), logits[b].into()).then(a.cmp(&b));
    let mut all: Vec<usize> = (0..logits.len()).collect();
    if n < all.len() {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}

fn descending(a: f64, b: f64) -> Ordering {
    // Adding 0 turns -0 into 0, so that both compare equal.
    (b + 0.0).total_cmp(&(a + 0.0))
}

/// The predictions in the format of the official scripts: a JSON object from question ids to answers.
pub fn predictions_json(predictions: &[Prediction]) -> String {
    let answers: Map<String, Value> = predictions.iter().map(|p| (p.id.clone(), p.text.as_str().into())).collect();
    format!("{:#}\n", Value::Object(answers))
}

/// All candidates: a JSON object from question ids to lists of candidates.
///
/// # Errors
///
/// None in practice, as each candidate has a JSON form.
pub fn nbest_json(predictions: &[Prediction]) -> serde_json::Result<String> {
    let all: Map<String, Value> = predictions
        .iter()
        .map(|p| Ok((p.id.clone(), serde_json::to_value(&p.candidates)?)))
        .collect::<serde_json::Result<_>>()?;
    Ok(format!("{:#}\n", Value::Object(all)))
}
