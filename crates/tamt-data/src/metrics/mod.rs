//! How predictions are scored.
//!
//! Each metric equals, on the same predictions, what scikit-learn, scipy or the official script of the benchmark gives;
//! `tests/fixtures/make_metrics.py` says so with numbers.

mod answers;
mod classification;
mod correlation;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::tasks::{Head, Label};
use crate::{Error, Result};

pub use answers::{exact_match, normalize_answer, token_f1};
pub use classification::{accuracy, f1, f1_macro, matthews_correlation};
pub use correlation::{pearson, spearman};

/// A number that says how good predictions are; more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The share of right classes.
    Accuracy,
    /// Harmonic mean of precision and recall: of class 1, or over the words of answers.
    F1,
    /// The mean over classes of each class's F1.
    MacroF1,
    /// Mean of accuracy and F1, which the GLUE benchmark ranks MRPC and QQP by.
    AccuracyAndF1,
    /// Matthews correlation coefficient.
    Matthews,
    /// Pearson correlation coefficient.
    Pearson,
    /// Spearman rank correlation coefficient.
    Spearman,
    /// Mean of both correlations, which the GLUE benchmark ranks STS-B by.
    Correlation,
    /// The share of answers that are right to the word.
    ExactMatch,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Accuracy,
        Self::F1,
        Self::MacroF1,
        Self::AccuracyAndF1,
        Self::Matthews,
        Self::Pearson,
        Self::Spearman,
        Self::Correlation,
        Self::ExactMatch,
    ];

    /// What it is called in results and in task files.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::MacroF1 => "f1_macro",
            Self::AccuracyAndF1 => "acc_and_f1",
            Self::Matthews => "matthews_correlation",
            Self::Pearson => "pearson",
            Self::Spearman => "spearmanr",
            Self::Correlation => "corr",
            Self::ExactMatch => "exact_match",
        }
    }

    /// The metric that is called so.
    #[must_use]
    pub fn by_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.key() == key)
    }

    /// Whether it can be computed of such a head's predictions. F1 without further words is about two classes.
    #[must_use]
    pub fn fits(self, head: &Head) -> bool {
        match head {
            Head::Classification { labels } => match self {
                Self::Accuracy | Self::MacroF1 | Self::Matthews => true,
                Self::F1 | Self::AccuracyAndF1 => labels.len() == 2,
                Self::Pearson | Self::Spearman | Self::Correlation | Self::ExactMatch => false,
            },
            Head::Regression { .. } => matches!(self, Self::Pearson | Self::Spearman | Self::Correlation),
            Head::Span { .. } => matches!(self, Self::ExactMatch | Self::F1),
        }
    }
}

/// Metrics and their values, in the order of the task's declaration. Serializes as a map from [`Metric::key`]; what is
/// not a number becomes null.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores(pub Vec<(Metric, f64)>);

impl Scores {
    /// The value of a metric.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.iter().find(|(which, _)| *which == metric).map(|&(_, value)| value)
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (metric, value) in &self.0 {
            map.serialize_entry(metric.key(), value)?;
        }
        map.end()
    }
}

/// The metrics of predicted against right labels.
///
/// # Errors
///
/// [`Error::Count`] unless there are as many predictions as labels, and some; [`Error::WrongKind`] if they are not all
/// of the kind that the metric is about, or if it is about answers.
pub fn score(metrics: &[Metric], predictions: &[Label], gold: &[Label]) -> Result<Scores> {
    if predictions.len() != gold.len() || gold.is_empty() {
        return Err(Error::Count { what: "predictions", expected: gold.len().max(1), found: predictions.len() });
    }
    let classes = || Some((classes(predictions)?, classes(gold)?));
    let values = || Some((values(predictions)?, values(gold)?));
    let value = |metric: Metric| match metric {
        Metric::Accuracy => classes().map(|(p, g)| accuracy(&p, &g)),
        Metric::F1 => classes().map(|(p, g)| f1(&p, &g)),
        Metric::MacroF1 => classes().map(|(p, g)| f1_macro(&p, &g)),
        Metric::AccuracyAndF1 => classes().map(|(p, g)| (accuracy(&p, &g) + f1(&p, &g)) / 2.0),
        Metric::Matthews => classes().map(|(p, g)| matthews_correlation(&p, &g)),
        Metric::Pearson => values().map(|(p, g)| pearson(&p, &g)),
        Metric::Spearman => values().map(|(p, g)| spearman(&p, &g)),
        Metric::Correlation => values().map(|(p, g)| (pearson(&p, &g) + spearman(&p, &g)) / 2.0),
        Metric::ExactMatch => None,
    };
    let given = if matches!(gold[0], Label::Class(_)) { "classes" } else { "numbers" };
    let entry = |&metric: &Metric| {
        let value = value(metric).ok_or(Error::WrongKind { what: metric.key(), given })?;
        Ok((metric, value))
    };
    metrics.iter().map(entry).collect::<Result<_>>().map(Scores)
}

fn classes(labels: &[Label]) -> Option<Vec<u32>> {
    let class = |label: &Label| match *label {
        Label::Class(class) => Some(class),
        Label::Value(_) => None,
    };
    labels.iter().map(class).collect()
}

fn values(labels: &[Label]) -> Option<Vec<f64>> {
    let value = |label: &Label| match *label {
        Label::Value(value) => Some(f64::from(value)),
        Label::Class(_) => None,
    };
    labels.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_names_its_metric() {
        for metric in Metric::ALL {
            assert_eq!(Metric::by_key(metric.key()), Some(metric));
        }
        assert_eq!(Metric::by_key("bleu"), None);
    }

    #[test]
    fn predictions_of_the_wrong_kind_or_number_are_refused() {
        let (class, value) = ([Label::Class(1), Label::Class(0)], [Label::Value(0.5), Label::Value(0.0)]);
        assert!(matches!(score(&[Metric::Accuracy], &value, &class), Err(Error::WrongKind { .. })));
        assert!(matches!(score(&[Metric::Pearson], &class, &class), Err(Error::WrongKind { .. })));
        assert!(matches!(score(&[Metric::ExactMatch], &class, &class), Err(Error::WrongKind { .. })));
        assert!(matches!(score(&[Metric::Accuracy], &class[..1], &class), Err(Error::Count { .. })));
        assert!(matches!(score(&[Metric::Accuracy], &[], &[]), Err(Error::Count { .. })));
    }

    #[test]
    fn scores_serialize_in_order_and_what_is_no_number_as_null() {
        let scores = Scores(vec![(Metric::F1, 0.5), (Metric::Accuracy, 0.25), (Metric::Pearson, f64::NAN)]);
        assert_eq!(serde_json::to_string(&scores).unwrap(), r#"{"f1":0.5,"accuracy":0.25,"pearson":null}"#);
        assert_eq!(scores.get(Metric::Accuracy), Some(0.25));
        assert_eq!(scores.get(Metric::Matthews), None);
    }
}
