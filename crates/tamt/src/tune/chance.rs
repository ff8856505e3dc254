//! Notices about answers that need no model: the same for every example, or no better than chance.

use tamt_data::metrics::{Metric, Scores};
use tamt_data::tasks::{Label, Split, Task};

/// Notices about the predictions of a split, given the correct labels and the scores. None where a single answer is
/// correct for every example.
pub(super) fn chance_notes(
    task: &Task,
    split: Split,
    predicted: &[Label],
    gold: &[Label],
    Scores(scores): &Scores,
) -> Vec<String> {
    let (Some(first), split) = (predicted.first(), split.name()) else { return Vec::new() };
    if gold.iter().all(|label| *label == gold[0]) {
        return Vec::new();
    }
    if predicted.iter().all(|label| label == first) {
        let (n, label) = (predicted.len(), spelled(task, *first));
        return vec![format!("the model predicts {label} for every one of the {n} examples of {split}")];
    }
    let (most_frequent, share) = majority(gold);
    let note = |&(metric, value): &(Metric, f64)| {
        let (name, shown) = (metric.key(), format!("{value:.4}"));
        match metric {
            Metric::Accuracy if value <= share => {
                let label = spelled(task, most_frequent);
                Some(format!("{name} {shown} on {split} is no better than {label} for every example: {share:.4}"))
            }
            Metric::Matthews | Metric::Pearson | Metric::Spearman if value <= 0.0 => {
                Some(format!("{name} {shown} on {split} is no better than chance: 0"))
            }
            _ => None,
        }
    };
    scores.iter().filter_map(note).collect()
}

/// The most frequent label, the first of equals, and its share.
fn majority(labels: &[Label]) -> (Label, f64) {
    let count = |label: &Label| labels.iter().filter(|other| *other == label).count();
    let mut distinct: Vec<Label> = Vec::new();
    // A regression has many labels and no metric that a share is compared with.
    for label in labels.iter().filter(|label| matches!(label, Label::Class(_))) {
        if !distinct.contains(label) {
            distinct.push(*label);
        }
    }
    let counts = distinct.iter().map(|label| (count(label), *label));
    let (count, label) =
        counts.reduce(|best, next| if next.0 > best.0 { next } else { best }).unwrap_or((0, labels[0]));
    (label, count as f64 / labels.len() as f64)
}

/// A label as a person reads it.
fn spelled(task: &Task, label: Label) -> String {
    match label {
        Label::Class(class) => task.labels().get(class as usize).cloned().unwrap_or_else(|| class.to_string()),
        Label::Value(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(task: &str, predicted: &[Label], gold: &[Label]) -> Vec<String> {
        let task = Task::by_name(task).unwrap();
        let scores = tamt_data::metrics::score(&task.metrics, predicted, gold).unwrap();
        chance_notes(task, Split::Dev, predicted, gold, &scores)
    }

    fn classes(classes: &[u32]) -> Vec<Label> {
        classes.iter().map(|&class| Label::Class(class)).collect()
    }

    fn values(values: &[f32]) -> Vec<Label> {
        values.iter().map(|&value| Label::Value(value)).collect()
    }

    #[test]
    fn one_class_for_every_example_is_noted() {
        let expected = ["the model predicts not_entailment for every one of the 3 examples of dev"];
        assert_eq!(notes("rte", &classes(&[1, 1, 1]), &classes(&[0, 1, 1])), expected);
        assert_eq!(notes("rte", &classes(&[1, 1, 1]), &classes(&[1, 1, 1])), [""; 0], "one class is right here");
        let expected = ["the model predicts 2.5 for every one of the 2 examples of dev"];
        assert_eq!(notes("stsb", &values(&[2.5, 2.5]), &values(&[1.0, 2.0])), expected);
    }

    #[test]
    fn a_score_of_chance_is_noted() {
        let gold = classes(&[2, 1, 1, 0]);
        let expected = ["accuracy 0.5000 on dev is no better than entailment for every example: 0.5000"];
        assert_eq!(notes("mnli", &classes(&[2, 1, 0, 1]), &gold), expected);
        assert_eq!(notes("mnli", &classes(&[2, 1, 1, 1]), &gold), [""; 0]);
        let expected = ["matthews_correlation 0.0000 on dev is no better than chance: 0"];
        assert_eq!(notes("cola", &classes(&[0, 1, 0, 1]), &classes(&[0, 0, 1, 1])), expected);
        let expected = [
            "pearson -1.0000 on dev is no better than chance: 0",
            "spearmanr -1.0000 on dev is no better than chance: 0",
        ];
        assert_eq!(notes("stsb", &values(&[2.0, 1.0]), &values(&[1.0, 2.0])), expected);
        assert_eq!(notes("stsb", &values(&[1.0, 2.0]), &values(&[1.0, 2.0])), [""; 0]);
    }
}
