//! Scores of predicted answers, equal to those of `SQuAD`'s official scripts.

use serde::Serialize;

use crate::error::{Error, Result, same_count};
use crate::metrics::{exact_match, normalize_answer, token_f1};
use crate::squad::dataset::{Dataset, Question};
use crate::squad::predict::Prediction;

/// Scores of a subset of the questions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SubsetScores {
    /// Percentage of exact matches.
    pub exact_match: f64,
    /// Mean F1 of the words, in percent.
    pub f1: f64,
    /// Number of questions.
    pub total: usize,
}

/// The best thresholds on [`Prediction::null_score_diff`], and their scores. Questions above the threshold get no answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BestThresholds {
    /// The greatest percentage of exact matches.
    pub best_exact: f64,
    /// The threshold for the most exact matches.
    pub best_exact_threshold: f64,
    /// The greatest mean F1, in percent.
    pub best_f1: f64,
    /// The threshold for the greatest F1.
    pub best_f1_threshold: f64,
}

/// Scores of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpanScores {
    /// All questions.
    #[serde(flatten)]
    pub all: SubsetScores,
    /// Answerable questions; `None` if all questions are answerable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_answer: Option<SubsetScores>,
    /// Unanswerable questions; `None` if all questions are answerable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer: Option<SubsetScores>,
}

/// Scores one prediction per question, in order. A prediction's score is the maximum over the gold answers, or the score
/// against the empty answer if the question has none.
///
/// # Errors
///
/// [`Error::Count`] if predictions and questions differ in number.
pub fn evaluate(dataset: &Dataset, predictions: &[Prediction]) -> Result<SpanScores> {
    same_count("predictions", dataset.questions.len(), predictions.len())?;
    let pairs = || dataset.questions.iter().zip(predictions);
    let part = |of: &dyn Fn(&Question) -> bool| {
        let scores: Vec<AnswerScore> =
            pairs().filter(|(q, _)| of(q)).map(|(q, p)| AnswerScore::new(q, &p.text)).collect();
        let (total, n) = (scores.len(), scores.len() as f64);
        let mean = |value: fn(&AnswerScore) -> f64| 100.0 * scores.iter().map(value).sum::<f64>() / n;
        (total > 0).then(|| SubsetScores { exact_match: mean(|s| s.exact), f1: mean(|s| s.f1), total })
    };
    let all = part(&|_| true).ok_or(Error::Count { what: "questions", expected: 1, found: 0 })?;
    let no_answer = part(&|question| !has_answer(question));
    let has_answer = no_answer.and_then(|_| part(&has_answer));
    Ok(SpanScores { all, has_answer, no_answer })
}

impl BestThresholds {
    /// Tries each distinct threshold, with the best non-empty answer of each question as the alternative to no answer.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] if predictions and questions differ in number, or a prediction lacks
    /// [`Prediction::null_score_diff`].
    pub fn best(dataset: &Dataset, predictions: &[Prediction]) -> Result<Self> {
        same_count("predictions", dataset.questions.len(), predictions.len())?;
        // (null score difference, gain in exact match, gain in F1) of an answer over no answer.
        let mut gains = Vec::with_capacity(predictions.len());
        let mut unanswered = 0.0;
        for (question, prediction) in dataset.questions.iter().zip(predictions) {
            let Some(null) = prediction.null_score_diff else {
                break;
            };
            let best = prediction.candidates.iter().find(|candidate| !candidate.text.is_empty());
            let scored = AnswerScore::new(question, best.map_or("", |candidate| &candidate.text));
            let none = AnswerScore::new(question, "");
            unanswered += none.exact;
            gains.push((null, scored.exact - none.exact, scored.f1 - none.f1));
        }
        same_count("null scores", predictions.len(), gains.len())?;
        // As the threshold rises, questions get an answer in this order; equals in the order of the file.
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

/// The score of one answer.
struct AnswerScore {
    exact: f64,
    f1: f64,
}

impl AnswerScore {
    fn new(question: &Question, prediction: &str) -> Self {
        let most = |score: fn(&str, &str) -> f64| {
            let scores = real_answers(question).map(|gold| score(prediction, gold));
            scores.reduce(f64::max).unwrap_or_else(|| score(prediction, ""))
        };
        Self { exact: most(exact_match), f1: most(token_f1) }
    }
}

/// The answers that are not empty after normalisation.
fn real_answers(question: &Question) -> impl Iterator<Item = &str> {
    let texts = question.answers.iter().map(|answer| answer.text.as_str());
    texts.filter(|text| !normalize_answer(text).is_empty())
}

fn has_answer(question: &Question) -> bool {
    !question.answers.is_empty()
}
