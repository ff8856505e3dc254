//! Scores of answers, as `SQuAD`'s official scripts compute them.

use serde::Serialize;

use super::{Dataset, Prediction, Question};
use crate::metrics::{exact_match, normalize_answer, token_f1};
use crate::{Error, Result};

/// Scores of some questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Percentage of answers that are right to the word.
    pub exact_match: f64,
    /// Mean F1 of words, in percent.
    pub f1: f64,
    /// How many questions.
    pub total: usize,
}

/// The threshold on [`Prediction::null_score_diff`] that would have been best, and what it would have given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Threshold {
    /// Percentage of answers right to the word.
    pub best_exact: f64,
    /// The threshold for it: questions above it get no answer.
    pub best_exact_threshold: f64,
    /// Mean F1, in percent.
    pub best_f1: f64,
    /// The threshold for it.
    pub best_f1_threshold: f64,
}

/// Scores of all questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpanScores {
    /// All questions.
    #[serde(flatten)]
    pub all: Part,
    /// Those that can be answered; only where some cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_answer: Option<Part>,
    /// Those that cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer: Option<Part>,
}

/// Scores predictions, one for each question in order: each against the right answer that it is most like, or against
/// the empty answer if there is none.
///
/// # Errors
///
/// [`Error::Count`] unless there is a prediction for each question.
pub fn evaluate(dataset: &Dataset, predictions: &[Prediction]) -> Result<SpanScores> {
    check(dataset, predictions)?;
    let pairs = || dataset.questions.iter().zip(predictions);
    let part = |of: &dyn Fn(&Question) -> bool| {
        let scores: Vec<Scored> = pairs().filter(|(q, _)| of(q)).map(|(q, p)| Scored::new(q, &p.text)).collect();
        let mean = |value: fn(&Scored) -> f64| 100.0 * scores.iter().map(value).sum::<f64>() / scores.len() as f64;
        (!scores.is_empty()).then(|| Part { exact_match: mean(|s| s.exact), f1: mean(|s| s.f1), total: scores.len() })
    };
    let all = part(&|_| true).ok_or(Error::Count { what: "questions", expected: 1, found: 0 })?;
    let no_answer = part(&|question| !has_answer(question));
    let has_answer = no_answer.and_then(|_| part(&has_answer));
    Ok(SpanScores { all, has_answer, no_answer })
}

impl Threshold {
    /// Tries every threshold on the score of no answer, against the best answer of each question.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] unless there is a prediction for each question, with a [`Prediction::null_score_diff`].
    pub fn best(dataset: &Dataset, predictions: &[Prediction]) -> Result<Self> {
        check(dataset, predictions)?;
        // Score of no answer, then what answering is worth over not answering.
        let mut gains = Vec::with_capacity(predictions.len());
        let mut unanswered = 0.0;
        for (question, prediction) in dataset.questions.iter().zip(predictions) {
            let Some(null) = prediction.null_score_diff else {
                break;
            };
            let best = prediction.candidates.iter().find(|candidate| !candidate.text.is_empty());
            let scored = Scored::new(question, best.map_or("", |candidate| &candidate.text));
            let none = Scored::new(question, "");
            unanswered += none.exact;
            gains.push((null, scored.exact - none.exact, scored.f1 - none.f1));
        }
        if gains.len() != predictions.len() {
            return Err(Error::Count { what: "null scores", expected: predictions.len(), found: gains.len() });
        }
        // Questions get an answer in the order of the score of none; stable, so equals in the order of the file.
        gains.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut exact, mut f1) = (unanswered, unanswered);
        let (mut best_exact, mut best_f1) = ((exact, 0.0), (f1, 0.0));
        for (null, exact_gain, f1_gain) in gains {
            exact += exact_gain;
            f1 += f1_gain;
            if exact > best_exact.0 {
                best_exact = (exact, null);
            }
            if f1 > best_f1.0 {
                best_f1 = (f1, null);
            }
        }
        let percent = |sum: f64| 100.0 * sum / predictions.len() as f64;
        Ok(Self {
            best_exact: percent(best_exact.0),
            best_exact_threshold: best_exact.1,
            best_f1: percent(best_f1.0),
            best_f1_threshold: best_f1.1,
        })
    }
}

struct Scored {
    exact: f64,
    f1: f64,
}

impl Scored {
    fn new(question: &Question, prediction: &str) -> Self {
        let most = |score: fn(&str, &str) -> f64| {
            let scores = real_answers(question).map(|gold| score(prediction, gold));
            scores.reduce(f64::max).unwrap_or_else(|| score(prediction, ""))
        };
        Self { exact: most(exact_match), f1: most(token_f1) }
    }
}

/// Answers that are not empty once normalized.
fn real_answers(question: &Question) -> impl Iterator<Item = &str> {
    let texts = question.answers.iter().map(|answer| answer.text.as_str());
    texts.filter(|text| !normalize_answer(text).is_empty())
}

fn has_answer(question: &Question) -> bool {
    !question.answers.is_empty()
}

fn check(dataset: &Dataset, predictions: &[Prediction]) -> Result<()> {
    let (expected, found) = (dataset.questions.len(), predictions.len());
    if expected == found { Ok(()) } else { Err(Error::Count { what: "predictions", expected, found }) }
}
