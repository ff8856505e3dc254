//! Means over seeds, averages over tasks, and pairs of runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Task;
use crate::stats::summary::Summary;
use crate::study::Score;

/// The seeds of a run: of the ticket's search, and of fine-tuning.
pub type Seeds = (Option<u64>, Option<u64>);

/// The scores of one ticket or method on one task, over seeds.
#[derive(Clone, Debug, Default)]
pub struct Cell<'a> {
    /// The scores.
    pub scores: Vec<&'a Score>,
}

impl Cell<'_> {
    /// Mean and deviation over all seeds.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        Summary::of(&self.scores.iter().map(|score| score.value).collect::<Vec<_>>())
    }

    /// The runs.
    #[must_use]
    pub fn runs(&self) -> Vec<usize> {
        self.scores.iter().map(|score| score.run).collect()
    }

    /// The score of each pair of seeds.
    #[must_use]
    pub fn by_seeds(&self) -> BTreeMap<Seeds, f64> {
        self.scores.iter().map(|score| ((score.ticket.seed, score.seed), score.value)).collect()
    }
}

/// The scores of one ticket or method, by task.
pub type Row<'a> = BTreeMap<&'a Task, Cell<'a>>;

/// Sorts scores by task.
pub fn row<'a>(scores: impl IntoIterator<Item = &'a Score>) -> Row<'a> {
    let mut row = Row::new();
    for score in scores {
        row.entry(&score.task).or_default().scores.push(score);
    }
    row
}

/// An average over tasks.
#[derive(Clone, Debug)]
pub struct Average {
    /// The unweighted mean of the tasks' means, with the deviation over seeds of the average.
    pub summary: Summary,
    /// The average of each pair of seeds with a run on every task.
    pub by_seeds: BTreeMap<Seeds, f64>,
    /// All runs.
    pub runs: Vec<usize>,
}

/// The average of a row over `tasks`, as GLUE's: the unweighted mean of one score a task. `None` where a task has none.
#[must_use]
pub fn average(row: &Row<'_>, tasks: &[&Task]) -> Option<Average> {
    let cells: Vec<&Cell<'_>> = tasks.iter().map(|task| row.get(task)).collect::<Option<_>>()?;
    let means: Vec<f64> = cells.iter().map(|cell| Some(cell.summary()?.mean)).collect::<Option<_>>()?;
    let of_seeds: Vec<BTreeMap<Seeds, f64>> = cells.iter().map(|cell| cell.by_seeds()).collect();
    let complete = |seeds: &Seeds| -> Option<(Seeds, f64)> {
        let scores: Vec<f64> = of_seeds.iter().map(|scores| scores.get(seeds).copied()).collect::<Option<_>>()?;
        Some((*seeds, Summary::of(&scores)?.mean))
    };
    let by_seeds: BTreeMap<Seeds, f64> = of_seeds.first()?.keys().filter_map(complete).collect();
    let deviation = Summary::of(&by_seeds.values().copied().collect::<Vec<_>>()).and_then(|summary| summary.deviation);
    let summary = Summary { n: by_seeds.len(), deviation, ..Summary::of(&means)? };
    Some(Average { summary, by_seeds, runs: cells.iter().flat_map(|cell| cell.runs()).collect() })
}

/// The tasks over which rows are averaged: those that each row has, of the rows with at least half as many tasks as the
/// fullest one. A row with fewer has no average, instead of shrinking that of all.
#[must_use]
pub fn common_tasks<'a>(rows: &[&Row<'a>]) -> Vec<&'a Task> {
    let most = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let full = rows.iter().filter(|row| 2 * row.len() >= most);
    let sets: Vec<BTreeSet<&'a Task>> = full.map(|row| row.keys().copied().collect()).collect();
    let Some((first, rest)) = sets.split_first() else { return Vec::new() };
    first.iter().copied().filter(|task| rest.iter().all(|set| set.contains(task))).collect()
}

/// The differences `a - b` of runs with equal seeds.
///
/// Runs are paired by both seeds where both sides have tickets of common seeds. Otherwise (the dense model and
/// magnitude tickets have no seed) each side is averaged over its tickets and paired by the seed of fine-tuning alone:
/// one run of the dense model beside several tickets is not several pairs.
#[must_use]
pub fn differences(a: &BTreeMap<Seeds, f64>, b: &BTreeMap<Seeds, f64>) -> Vec<f64> {
    let seeded = |scores: &BTreeMap<Seeds, f64>| scores.keys().all(|(ticket, _)| ticket.is_some());
    if seeded(a) && seeded(b) && a.keys().any(|seeds| b.contains_key(seeds)) {
        return a.iter().filter_map(|(seeds, value)| Some(value - b.get(seeds)?)).collect();
    }
    let (a, b) = (over_tickets(a), over_tickets(b));
    a.iter().filter_map(|(seed, value)| Some(value - b.get(seed)?)).collect()
}

fn over_tickets(scores: &BTreeMap<Seeds, f64>) -> BTreeMap<Option<u64>, f64> {
    let mut groups: BTreeMap<Option<u64>, Vec<f64>> = BTreeMap::new();
    for ((_, seed), value) in scores {
        groups.entry(*seed).or_default().push(*value);
    }
    groups.into_iter().filter_map(|(seed, values)| Some((seed, Summary::of(&values)?.mean))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_with_seeds_are_paired_by_both_seeds() {
        let a = BTreeMap::from([((Some(1), Some(1)), 5.0), ((Some(1), Some(2)), 6.0), ((Some(2), Some(1)), 9.0)]);
        let b = BTreeMap::from([((Some(1), Some(1)), 4.0), ((Some(2), Some(1)), 7.0), ((Some(3), Some(1)), 0.0)]);
        assert_eq!(differences(&a, &b), [1.0, 2.0]);
    }

    #[test]
    fn several_tickets_beside_one_dense_model_are_one_pair_a_seed() {
        let tickets = BTreeMap::from([
            ((Some(1), Some(1)), 5.0),
            ((Some(2), Some(1)), 7.0),
            ((Some(1), Some(2)), 8.0),
            ((Some(2), Some(2)), 8.0),
        ]);
        let dense = BTreeMap::from([((None, Some(1)), 10.0), ((None, Some(2)), 11.0)]);
        assert_eq!(differences(&tickets, &dense), [-4.0, -3.0]);
    }
}
