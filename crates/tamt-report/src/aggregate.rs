//! Means over seeds, averages over tasks, and pairs of runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::Task;
use crate::stats::paired::PairedT;
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
    /// The mean of each task over all seeds, in the order of the tasks.
    pub by_task: Vec<f64>,
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
    Some(Average { summary, by_seeds, by_task: means, runs: cells.iter().flat_map(|cell| cell.runs()).collect() })
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

/// The differences `a - b` of pairs that are independent of each other.
///
/// Where both sides have tickets of several common seeds, a pair is a seed of the tickets: fine-tunings of one ticket
/// share its mask, and are averaged over the seeds that both sides have. Where they have one common seed, a pair is a
/// seed of fine-tuning.
///
/// The dense model and magnitude tickets have no seed. Beside such a side, a pair is a ticket of the other side or a seed
/// of fine-tuning, whichever gives the larger p: tickets alone share the runs of the side without seeds, and seeds of
/// fine-tuning alone share the tickets.
#[must_use]
pub fn differences(a: &BTreeMap<Seeds, f64>, b: &BTreeMap<Seeds, f64>) -> Vec<f64> {
    match (has_ticket_seeds(a), has_ticket_seeds(b)) {
        (true, true) => {
            let pairs = a.iter().filter_map(|(seeds, value)| Some((seeds.0, rounded(value - b.get(seeds)?))));
            let of_tickets = grouped(pairs);
            if of_tickets.len() > 1 { means(&of_tickets) } else { of_tickets.into_values().flatten().collect() }
        }
        (true, false) => beside_one_without_seeds(a, b),
        (false, true) => beside_one_without_seeds(b, a).into_iter().map(|difference| -difference).collect(),
        (false, false) => of_fine_tunings(a, b),
    }
}

fn has_ticket_seeds(scores: &BTreeMap<Seeds, f64>) -> bool {
    scores.keys().all(|(ticket, _)| ticket.is_some())
}

/// The differences of tickets with seeds to a side without.
fn beside_one_without_seeds(seeded: &BTreeMap<Seeds, f64>, other: &BTreeMap<Seeds, f64>) -> Vec<f64> {
    let fine_tunings = of_fine_tunings(seeded, other);
    let other = over_tickets(other);
    let difference = |tuning, value: &f64| Some(rounded(value - other.get(tuning)?));
    let pairs = seeded.iter().filter_map(|((ticket, tuning), value)| Some((*ticket, difference(tuning, value)?)));
    let tickets = means(&grouped(pairs));
    let p = |pairs: &[f64]| PairedT::of(pairs).map_or(1.0, |test| test.p);
    if fine_tunings.len() > 1 && tickets.len() > 1 && p(&tickets) > p(&fine_tunings) { tickets } else { fine_tunings }
}

/// The difference of each seed of fine-tuning, with each side averaged over its tickets.
fn of_fine_tunings(a: &BTreeMap<Seeds, f64>, b: &BTreeMap<Seeds, f64>) -> Vec<f64> {
    let (a, b) = (over_tickets(a), over_tickets(b));
    a.iter().filter_map(|(seed, value)| Some(rounded(value - b.get(seed)?))).collect()
}

/// Values by a seed.
fn grouped(values: impl Iterator<Item = (Option<u64>, f64)>) -> BTreeMap<Option<u64>, Vec<f64>> {
    let mut groups: BTreeMap<Option<u64>, Vec<f64>> = BTreeMap::new();
    values.for_each(|(seed, value)| groups.entry(seed).or_default().push(value));
    groups
}

fn means(groups: &BTreeMap<Option<u64>, Vec<f64>>) -> Vec<f64> {
    groups.values().filter_map(|values| Some(rounded(Summary::of(values)?.mean))).collect()
}

/// A difference without the rounding of its last digits, which would make equal differences vary.
pub fn rounded(difference: f64) -> f64 {
    (difference * 1e10).round() / 1e10
}

fn over_tickets(scores: &BTreeMap<Seeds, f64>) -> BTreeMap<Option<u64>, f64> {
    let groups = grouped(scores.iter().map(|((_, tuning), value)| (*tuning, *value)));
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
    fn fine_tunings_of_one_ticket_are_one_pair_where_there_are_several_tickets() {
        let scores = |values: [f64; 4]| {
            let seeds = [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(ticket, tuning)| (Some(ticket), Some(tuning)));
            seeds.into_iter().zip(values).collect::<BTreeMap<Seeds, f64>>()
        };
        let (a, b) = (scores([82.0, 82.1, 81.0, 81.1]), scores([80.0, 80.0, 80.0, 80.0]));
        assert_eq!(differences(&a, &b), [2.05, 1.05]);
        let first = |scores: &BTreeMap<Seeds, f64>| scores.iter().take(2).map(|(k, v)| (*k, *v)).collect();
        assert_eq!(differences(&first(&a), &first(&b)), [2.0, 2.1], "of one ticket, each fine-tuning is a pair");
    }

    #[test]
    fn equal_differences_of_rounded_scores_are_equal() {
        let of = |values: [f64; 2]| (1..).zip(values).map(|(seed, v)| ((None, Some(seed)), v)).collect();
        let (a, b) =
            (of([100.0 * 703.0 / 872.0, 100.0 * 720.0 / 872.0]), of([100.0 * 700.0 / 872.0, 100.0 * 717.0 / 872.0]));
        let found = differences(&a, &b);
        assert!(found[0] == found[1], "{found:?}");
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

    #[test]
    fn tickets_that_disagree_are_the_pairs_beside_a_side_without_seeds() {
        let seeds = [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(ticket, tuning)| (Some(ticket), Some(tuning)));
        let of = |values: [f64; 4]| seeds.into_iter().zip(values).collect::<BTreeMap<Seeds, f64>>();
        let magnitude = BTreeMap::from([((None, Some(1)), 76.0), ((None, Some(2)), 76.1)]);
        // Both seeds of fine-tuning give +1.0, but one ticket is below magnitude.
        let disagreeing = of([75.0, 75.1, 79.0, 79.1]);
        assert_eq!(differences(&disagreeing, &magnitude), [-1.0, 3.0]);
        assert_eq!(differences(&magnitude, &disagreeing), [1.0, -3.0]);
        // Equal tickets, whose fine-tunings vary.
        assert_eq!(differences(&of([75.0, 79.0, 75.0, 79.0]), &magnitude), [-1.0, 2.9]);
        // One run of the other side beside several tickets is one pair.
        let one = BTreeMap::from([((None, Some(1)), 76.0)]);
        assert_eq!(differences(&disagreeing, &one), [1.0]);
    }
}
