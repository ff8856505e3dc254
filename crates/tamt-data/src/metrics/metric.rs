//! The metrics of a task by name, and their values for a list of predictions.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::{Error, Result};
use crate::head::{Head, Label};
use crate::metrics::classification::{accuracy, f1, f1_macro, matthews_correlation};
use crate::metrics::correlation::{pearson, spearman};

/// A metric of predictions; greater values are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The share of correct classes.
    Accuracy,
    /// F1, the harmonic mean of precision and recall: of class 1, or of the words of answers.
    F1,
    /// The mean of the F1 of each class.
    MacroF1,
    /// The mean of accuracy and F1: GLUE's score of MRPC and QQP.
    AccuracyAndF1,
    /// Matthews correlation coefficient.
    Matthews,
    /// Pearson correlation coefficient.
    Pearson,
    /// Spearman rank correlation coefficient.
    Spearman,
    /// The mean of both correlations: GLUE's score of STS-B.
    Correlation,
    /// The share of answers that equal a gold answer after normalisation.
    ExactMatch,
}

impl Metric {
    /// All metrics.
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

    /// The metric's name in results and in task files.
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

    /// The metric with this name.
    pub fn by_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.key() == key)
    }

    /// Whether the metric is defined for the predictions of a head. F1 of class 1 needs exactly two classes.
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

/// Metrics and their values, in the order of the task's declaration.
///
/// The serialized form is a map from [`Metric::key`] to the value; NaN becomes null.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores(pub Vec<(Metric, f64)>);

impl Scores {
    /// The value of a metric.
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

/// The values of `metrics` for predicted and gold labels.
///
/// # Errors
///
/// [`Error::Count`] if the lists differ in length or are empty; [`Error::WrongKind`] if a label has the wrong kind for a
/// metric, or for a metric of answers.
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

/// The labels as classes, or `None` if one is a number.
fn classes(labels: &[Label]) -> Option<Vec<u32>> {
    let class = |label: &Label| match *label {
        Label::Class(class) => Some(class),
        Label::Value(_) => None,
    };
    labels.iter().map(class).collect()
}

/// The labels as numbers, or `None` if one is a class.
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
