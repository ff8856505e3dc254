//! From logits to answers, as BERT's and the reference's `compute_predictions_logits` find them.

use std::cmp::Ordering;
use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Dataset, Window, Windows};
use crate::{Error, Result};

/// What a span head puts out for a window: a number for each of its ids.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowLogits {
    /// How likely an answer starts here.
    pub start: Vec<f32>,
    /// How likely an answer ends here, inclusive.
    pub end: Vec<f32>,
}

/// How answers are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictOptions {
    /// Starts and ends that are tried per window, and candidates kept per question.
    pub n_best: usize,
    /// Tokens in the longest answer.
    pub max_answer_tokens: usize,
    /// Whether a question may have no answer (`SQuAD` 2.0).
    pub unanswerable: bool,
    /// By how much the score of no answer must exceed that of the best answer for none to be given.
    pub null_threshold: f64,
}

impl Default for PredictOptions {
    /// Those of BERT and of the reference, for `SQuAD` 1.1.
    fn default() -> Self {
        Self { n_best: 20, max_answer_tokens: 30, unanswerable: false, null_threshold: 0.0 }
    }
}

/// A possible answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// A piece of the context; empty for no answer.
    pub text: String,
    /// Among the question's candidates.
    pub probability: f64,
    /// Logit of its first token.
    pub start_logit: f32,
    /// Logit of its last token.
    pub end_logit: f32,
}

impl Candidate {
    fn score(&self) -> f64 {
        f64::from(self.start_logit) + f64::from(self.end_logit)
    }
}

/// What is predicted for a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// The answer; empty for none.
    pub text: String,
    /// Where there may be no answer: by how much the score of none exceeds that of the best answer.
    pub null_score_diff: Option<f64>,
    /// Possible answers, best first, all different; at least one.
    pub candidates: Vec<Candidate>,
}

/// Finds the answers to all questions, in order. `logits` belong to the windows, in order.
///
/// In each window the `n_best` likeliest starts are combined with the `n_best` likeliest ends. A pair is an answer if
/// both are in the context, not in the wrong order and not too far apart, and the start has its maximal context in this
/// window. Answers are ranked by the sum of their logits. No answer scores as `cls` does where it scores least.
///
/// Where the reference finds nothing at all and says "empty", this gives the empty text.
///
/// # Errors
///
/// [`Error::Count`] unless each window has as many logits as ids; [`Error::OutOfRange`] if `n_best` is 0.
pub fn predict(
    dataset: &Dataset,
    windows: &Windows,
    logits: &[WindowLogits],
    options: PredictOptions,
) -> Result<Vec<Prediction>> {
    if options.n_best == 0 {
        return Err(Error::OutOfRange { name: "n-best", value: 0.0, expected: "must be at least 1" });
    }
    if logits.len() != windows.len() {
        return Err(Error::Count { what: "windows with logits", expected: windows.len(), found: logits.len() });
    }
    for (i, logits) in logits.iter().enumerate() {
        let expected = windows.ids_len(i);
        if let Some(wrong) = [&logits.start, &logits.end].into_iter().find(|of| of.len() != expected) {
            return Err(Error::Count { what: "logits of a window", expected, found: wrong.len() });
        }
    }
    let prediction = |question: usize| {
        let candidates = Candidates { dataset, windows, logits, options, question };
        candidates.prediction()
    };
    Ok((0..dataset.questions.len()).into_par_iter().with_min_len(16).map(prediction).collect())
}

/// A pair of a start and an end.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The context's tokens, the last inclusive; none for no answer.
    tokens: Option<(usize, usize)>,
    start_logit: f32,
    end_logit: f32,
}

impl Span {
    /// In double precision, so that sums that differ do not become equals.
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
            candidates.push(candidate(String::new(), null));
        }
        if candidates.is_empty() {
            candidates.push(candidate(String::new(), Span { tokens: None, start_logit: 0.0, end_logit: 0.0 }));
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

    /// All pairs that can be answers, window by window, by falling logit of the start, then of the end.
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

    /// No answer, as the window says that is surest of having one.
    fn null(&self) -> Span {
        let of_window = |i: usize| {
            let WindowLogits { start, end } = &self.logits[i];
            Span { tokens: None, start_logit: start[0], end_logit: end[0] }
        };
        let all = self.windows.of_question(self.question).map(of_window);
        let least = all.min_by(|a, b| descending(b.score(), a.score()));
        least.unwrap_or(Span { tokens: None, start_logit: 0.0, end_logit: 0.0 })
    }

    /// The best spans with different texts.
    fn distinct(&self, spans: &[Span]) -> Vec<Candidate> {
        let mut seen = HashSet::new();
        let mut candidates = Vec::new();
        for span in spans {
            if candidates.len() == self.options.n_best {
                break;
            }
            let text = span.tokens.map_or("", |tokens| self.text(tokens));
            if seen.insert(text) {
                candidates.push(candidate(text.to_owned(), *span));
            }
        }
        candidates
    }

    fn text(&self, (from, to): (usize, usize)) -> &str {
        let context = &self.dataset.contexts[self.dataset.questions[self.question].context];
        let (start, _) = self.windows.offsets(self.question, from);
        let (_, end) = self.windows.offsets(self.question, to);
        context.get(start..end).unwrap_or_default().trim()
    }
}

fn candidate(text: String, span: Span) -> Candidate {
    Candidate { text, probability: 0.0, start_logit: span.start_logit, end_logit: span.end_logit }
}

/// The softmax of the candidates' scores.
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

/// The indices of the `n` largest logits, largest first; of equals, the first.
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
    // Zero and negative zero are equals.
    (b + 0.0).total_cmp(&(a + 0.0))
}

/// The predictions as the official scripts read them: a JSON object from question ids to answers.
#[must_use]
pub fn predictions_json(predictions: &[Prediction]) -> String {
    let answers: Map<String, Value> = predictions.iter().map(|p| (p.id.clone(), p.text.as_str().into())).collect();
    format!("{:#}\n", Value::Object(answers))
}

/// All candidates: a JSON object from question ids to lists of them.
///
/// # Errors
///
/// None in practice: every candidate can be written as JSON.
pub fn nbest_json(predictions: &[Prediction]) -> serde_json::Result<String> {
    let all: Map<String, Value> = predictions
        .iter()
        .map(|p| Ok((p.id.clone(), serde_json::to_value(&p.candidates)?)))
        .collect::<serde_json::Result<_>>()?;
    Ok(format!("{:#}\n", Value::Object(all)))
}
