//! Names and the order in which tables show them.

use std::cmp::Ordering;
use std::fmt::{self, Display};

use tamt_study::labels::DENSE;

/// What the report knows of a method.
#[derive(Debug)]
struct Known {
    /// The name on the command line.
    name: &'static str,
    /// The objective that a search minimises, in the words of tables.
    objective: Option<&'static str>,
    /// Whether a search trains masks, which have a start.
    trains_masks: bool,
    /// Whether a search draws random numbers, so that tickets have seeds.
    draws: bool,
}

/// Methods in the order of tables: the dense model, then from the simplest to the most trained.
const METHODS: [Known; 7] = [
    Known { name: DENSE, objective: None, trains_masks: false, draws: false },
    Known { name: "random", objective: Some("none"), trains_masks: false, draws: true },
    Known { name: "magnitude", objective: None, trains_masks: false, draws: false },
    Known { name: "imp", objective: Some("MLM (weights)"), trains_masks: false, draws: true },
    Known { name: "tamt-kd", objective: Some("KD"), trains_masks: true, draws: true },
    Known { name: "tamt-mlm", objective: Some("MLM"), trains_masks: true, draws: true },
    Known { name: "tamt-mlm-kd", objective: Some("MLM + KD"), trains_masks: true, draws: true },
];

fn known(name: &str) -> Option<&'static Known> {
    METHODS.iter().find(|method| method.name == name)
}

/// Whether the method of this name trains masks.
pub(crate) fn trains_masks(name: &str) -> bool {
    known(name).is_some_and(|method| method.trains_masks)
}

/// Whether the method of this name draws random numbers.
pub(crate) fn draws(name: &str) -> bool {
    known(name).is_none_or(|method| method.draws)
}

/// Tasks in the order of tables, with the names of their authors.
const TASKS: [(&str, &str); 13] = [
    ("cola", "CoLA"),
    ("sst2", "SST-2"),
    ("mrpc", "MRPC"),
    ("stsb", "STS-B"),
    ("qqp", "QQP"),
    ("mnli", "MNLI"),
    ("qnli", "QNLI"),
    ("rte", "RTE"),
    ("wnli", "WNLI"),
    ("squad", "SQuAD"),
    ("squad2", "SQuAD 2.0"),
    ("trec", "TREC"),
    ("subj", "Subj"),
];

/// Metrics and their names in headings.
const METRICS: [(&str, &str); 9] = [
    ("accuracy", "accuracy"),
    ("f1", "F1"),
    ("f1_macro", "macro F1"),
    ("acc_and_f1", "mean of accuracy, F1"),
    ("matthews_correlation", "Matthews"),
    ("pearson", "Pearson"),
    ("spearmanr", "Spearman"),
    ("corr", "mean of Pearson, Spearman"),
    ("exact_match", "exact match"),
];

/// A method, and what sets it apart from another row of the same method.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Method {
    /// The method's name on the command line.
    pub name: String,
    /// The settings that other runs of the method do not share; mostly empty.
    pub variant: String,
}

impl Method {
    /// The model without a ticket.
    #[must_use]
    pub fn dense() -> Self {
        Self { name: DENSE.to_owned(), variant: String::new() }
    }

    /// Whether this is the model without a ticket.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        self.name == DENSE
    }

    fn place(&self) -> usize {
        METHODS.iter().position(|method| method.name == self.name).unwrap_or(METHODS.len())
    }

    /// The place among the known methods with a ticket.
    pub(crate) fn place_of_ticket(&self) -> Option<usize> {
        METHODS.iter().filter(|method| method.name != DENSE).position(|method| method.name == self.name)
    }

    /// The objective that a search of the method minimises.
    pub(crate) fn objective(&self) -> Option<&'static str> {
        known(&self.name)?.objective
    }
}

impl Ord for Method {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |method: &Self| (method.place(), method.name.clone(), method.variant.clone());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Method {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.variant.is_empty() { f.write_str(&self.name) } else { write!(f, "{}, {}", self.name, self.variant) }
    }
}

/// A task, and what sets its recipe apart from another column of the same task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// The task's name on the command line.
    pub name: String,
    /// The settings that other runs of the task do not share; mostly empty.
    pub variant: String,
}

impl Task {
    fn place(&self) -> usize {
        TASKS.iter().position(|(name, _)| *name == self.name).unwrap_or(TASKS.len())
    }
}

impl Ord for Task {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |task: &Self| (task.place(), task.name.clone(), task.variant.clone());
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TASKS.iter().find(|(name, _)| *name == self.name).map_or(self.name.as_str(), |(_, title)| title);
        if self.variant.is_empty() { f.write_str(name) } else { write!(f, "{name}, {}", self.variant) }
    }
}

/// The name of a metric in a heading.
#[must_use]
pub fn metric(key: &str) -> &str {
    METRICS.iter().find(|(name, _)| *name == key).map_or(key, |(_, title)| title)
}

/// A sparsity in hundredths of a percent, so that sparsities can be compared and ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u32);

impl Level {
    /// The sparsity of the model without a ticket.
    pub const DENSE: Self = Self(0);

    /// The level of a share of dropped weights.
    #[must_use]
    pub fn of(sparsity: f64) -> Self {
        Self((sparsity.clamp(0.0, 1.0) * 10_000.0).round() as u32)
    }

    /// The sparsity in percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// The level as part of a file name.
    #[must_use]
    pub fn slug(self) -> String {
        self.percent().to_string().replace('.', "_")
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// Names as a list in a sentence: "a, b and c".
#[must_use]
pub fn list<T: Display>(names: &[T]) -> String {
    let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}

/// A number and a noun, in the plural where the number is not 1.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_ordered_from_dense_to_the_most_trained_and_others_follow() {
        let method = |name: &str| Method { name: name.to_owned(), variant: String::new() };
        let mut methods: Vec<Method> = ["tamt-mlm", "zeta", "dense", "imp", "alpha"].into_iter().map(method).collect();
        methods.sort();
        let names: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
        assert_eq!(names, ["dense", "imp", "tamt-mlm", "alpha", "zeta"]);
    }

    #[test]
    fn levels_show_the_percent_that_a_user_asked_for() {
        assert_eq!([0.7, 0.29, 0.945].map(|s| Level::of(s).to_string()), ["70 %", "29 %", "94.5 %"]);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!([list(&["a"]), list(&["a", "b"]), list(&["a", "b", "c"])], ["a", "a and b", "a, b and c"]);
        assert_eq!((count(1, "run"), count(2, "run")), ("1 run".to_owned(), "2 runs".to_owned()));
    }
}
