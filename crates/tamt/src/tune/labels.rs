//! Which output of a classifier stands for which label of a task.

use serde_json::Value;
use tamt_data::nearest;
use tamt_data::tasks::Task;

use crate::error::{Error, Result};

/// How the order of a head's outputs is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelOrder {
    /// The head is new or has no labels, so that the task decides.
    Task,
    /// The configuration names the outputs by the task's labels.
    Named,
    /// The caller named the outputs.
    Given,
    /// Nothing says which output is which label, and the task's order is assumed.
    Guessed {
        /// The names of the outputs in the configuration; empty if there are none.
        names: Vec<String>,
    },
}

/// For each label of a classification, the number of its output in a checkpoint, and how the order is known. `given` are
/// labels in the order of outputs, which count more than the names in the configuration's `id2label`.
///
/// # Errors
/// [`Error::Setting`] if `given` is not an order of the task's labels.
pub(super) fn output_order(
    id2label: Option<&Value>,
    task: &Task,
    given: Option<&[String]>,
) -> Result<(Vec<usize>, LabelOrder)> {
    let labels = task.labels();
    if let Some(given) = given {
        return Ok((given_order(given, task)?, LabelOrder::Given));
    }
    let names = output_names(id2label);
    Ok(match order(&names, labels) {
        Some(order) => (order, LabelOrder::Named),
        None => ((0..labels.len()).collect(), LabelOrder::Guessed { names }),
    })
}

/// The order of the outputs that a caller named.
///
/// # Errors
/// As [`output_order`].
pub(super) fn given_order(given: &[String], task: &Task) -> Result<Vec<usize>> {
    let (labels, name) = (task.labels(), &task.name);
    let refuse = |reason: String| Err(Error::setting("labels", reason));
    if labels.is_empty() {
        return refuse(format!("{name} has no labels"));
    }
    let known = || labels.join(", ");
    if let Some(unknown) = given.iter().find(|given| !labels.iter().any(|label| is_named(label, given))) {
        let meant = nearest(unknown, labels.iter().map(String::as_str));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        return refuse(format!("{unknown:?} is no label of {name}, which has {}{meant}", known()));
    }
    match order(given, labels) {
        Some(order) => Ok(order),
        None => refuse(format!("name each label of {name} once: {}", known())),
    }
}

/// The names of the outputs 0, 1, .. in `id2label`; none if an output lacks a name.
pub(super) fn output_names(id2label: Option<&Value>) -> Vec<String> {
    let Some(names) = id2label.and_then(Value::as_object) else { return Vec::new() };
    let name = |i: usize| Some(names.get(&i.to_string())?.as_str()?.to_owned());
    (0..names.len()).map(name).collect::<Option<_>>().unwrap_or_default()
}

/// For each label, the output with its name; `None` unless the names are those of the labels, each once.
fn order(names: &[String], labels: &[String]) -> Option<Vec<usize>> {
    if names.len() != labels.len() {
        return None;
    }
    let order: Vec<usize> =
        labels.iter().map(|label| names.iter().position(|name| is_named(label, name))).collect::<Option<_>>()?;
    let mut outputs = order.clone();
    outputs.sort_unstable();
    outputs.dedup();
    (outputs.len() == labels.len()).then_some(order)
}

/// Whether a name of an output means this label. Case, hyphens and blanks do not count, and `LABEL_1`, the name that
/// `transformers` gives to output 1, is the name of a label `1`.
fn is_named(label: &str, name: &str) -> bool {
    let spelling = |name: &str| name.trim().to_lowercase().replace(['-', ' '], "_");
    let (label, name) = (spelling(label), spelling(name));
    label == name || name.strip_prefix("label_") == Some(&label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(name: &str) -> &'static Task {
        Task::by_name(name).unwrap()
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn labels_are_matched_by_name_whatever_their_order_and_case() {
        let order = |id2label: &Value, name: &str| output_order(Some(id2label), task(name), None).unwrap();
        let theirs = json!({"0": "ENTAILMENT", "1": "NEUTRAL", "2": "CONTRADICTION"});
        assert_eq!(order(&theirs, "mnli"), (vec![2, 0, 1], LabelOrder::Named));
        assert_eq!(order(&json!({"0": "not-entailment", "1": "Entailment"}), "rte"), (vec![1, 0], LabelOrder::Named));
        // The names that `transformers` invents are the integers that a data set of integers has.
        assert_eq!(order(&json!({"0": "LABEL_0", "1": "LABEL_1"}), "sst2"), (vec![0, 1], LabelOrder::Named));
    }

    #[test]
    fn an_order_that_no_name_tells_is_a_guess() {
        for (id2label, names) in [
            (json!({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}), &["LABEL_0", "LABEL_1", "LABEL_2"][..]),
            (json!({"0": "entail", "1": "neutral", "2": "contradict"}), &["entail", "neutral", "contradict"]),
            (json!({"0": "neutral", "1": "neutral", "2": "entailment"}), &["neutral", "neutral", "entailment"]),
            (json!({"0": "entailment", "7": "neutral", "2": "contradiction"}), &[]),
            (json!({}), &[]),
            (json!(3), &[]),
        ] {
            let expected = (vec![0, 1, 2], LabelOrder::Guessed { names: strings(names) });
            assert_eq!(output_order(Some(&id2label), task("mnli"), None).unwrap(), expected, "{id2label}");
        }
        let expected = (vec![0, 1, 2], LabelOrder::Guessed { names: Vec::new() });
        assert_eq!(output_order(None, task("mnli"), None).unwrap(), expected);
    }

    #[test]
    fn a_given_order_counts_more_than_names_and_fits_the_task() {
        let theirs = json!({"0": "entailment", "1": "neutral", "2": "contradiction"});
        let given = |labels: &[&str], name: &str| output_order(Some(&theirs), task(name), Some(&strings(labels)));
        let order = given(&["Contradiction", "neutral", "entailment"], "mnli").unwrap();
        assert_eq!(order, (vec![0, 2, 1], LabelOrder::Given));
        for (labels, name, expected) in [
            (
                &["entailment", "neutrl", "contradiction"][..],
                "mnli",
                "\"neutrl\" is no label of mnli, which has \
                contradiction, entailment, neutral; did you mean neutral?",
            ),
            (&["entailment", "neutral"], "mnli", "name each label of mnli once: contradiction, entailment, neutral"),
            (&["entailment", "neutral", "neutral"], "mnli", "name each label of mnli once"),
            (&["0", "1"], "stsb", "stsb has no labels"),
        ] {
            let error = given(labels, name).unwrap_err();
            assert!(matches!(&error, Error::Setting { name: "labels", .. }) && error.to_string().contains(expected));
        }
    }
}
