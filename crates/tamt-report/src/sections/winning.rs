//! Winning tickets: within one standard deviation of the dense model.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Cell as Scores, Row};
use crate::document::{Block, Cell, Column, Number, Section, Statistic, Table};
use crate::names::{Level, Method, Task, list};
use crate::sections::view::{View, of_seeds_or_all, tuning_seeds};

const HOW: &str = "The tickets of a method win on a task where the mean of their scores, over ticket seeds and tuning \
seeds, is at least the dense model's mean over the same tuning seeds less one sample deviation of the dense model over \
all of its tuning seeds (Chen et al. 2020); one of several tickets may score less. Tasks on which the dense model has \
one seed have no deviation, and are left out.";

/// The section; `None` where no task has several runs of the dense model.
pub(super) fn section(views: &[View<'_>]) -> Option<(Section, Vec<String>)> {
    let (mut blocks, mut findings) = (vec![Block::Text(HOW.to_owned())], Vec::new());
    for view in views {
        let dense = view.dense();
        let deviations: BTreeMap<&Task, f64> =
            dense.iter().filter_map(|(task, cell)| Some((*task, cell.summary()?.deviation?))).collect();
        let rows: BTreeMap<Level, Vec<(Method, Row<'_>)>> =
            view.score_levels().into_iter().map(|level| (level, view.rows(level))).collect();
        if deviations.is_empty() || rows.is_empty() {
            continue;
        }
        let wins = Wins { deviations, rows, dense };
        let finding = wins.sentence(view);
        blocks.push(Block::Finding(finding.clone()));
        findings.push(finding);
        blocks.push(Block::Table(wins.highest(view)));
        blocks.push(Block::Table(wins.counts(view)));
    }
    (blocks.len() > 1).then(|| {
        let title = "Winning tickets".to_owned();
        (Section { id: "winning", short: title.clone(), title, blocks }, findings)
    })
}

struct Wins<'a> {
    /// The dense model's deviation over all of its tuning seeds, by task.
    deviations: BTreeMap<&'a Task, f64>,
    rows: BTreeMap<Level, Vec<(Method, Row<'a>)>>,
    dense: Row<'a>,
}

impl Wins<'_> {
    fn methods(&self) -> BTreeSet<&Method> {
        self.rows.values().flatten().map(|(method, _)| method).collect()
    }

    /// The number of tasks with a deviation and a ticket's score.
    fn tasks(&self) -> usize {
        let has_score = |task: &Task| self.rows.values().flatten().any(|(_, row)| row.contains_key(task));
        self.deviations.keys().filter(|task| has_score(task)).count()
    }

    fn cell(&self, method: &Method, level: Level, task: &Task) -> Option<&Scores<'_>> {
        let (_, row) = self.rows.get(&level)?.iter().find(|(other, _)| other == method)?;
        row.get(task)
    }

    /// The score that tickets must reach. Its mean is over their tuning seeds, which may be others at another sparsity;
    /// the deviation is over all seeds, as one seed has none.
    fn bar(&self, cell: &Scores<'_>, task: &Task) -> Option<f64> {
        let dense = self.dense.get(task)?;
        let summary = of_seeds_or_all(dense, &tuning_seeds(cell)).summary()?;
        Some(summary.mean - self.deviations.get(task)?)
    }

    fn wins(&self, cell: &Scores<'_>, task: &Task) -> bool {
        let bar = self.bar(cell, task).unwrap_or(f64::INFINITY);
        cell.summary().is_some_and(|summary| summary.mean >= bar)
    }

    /// The highest sparsity at which a method wins, and the runs that show it.
    fn best(&self, method: &Method, task: &Task) -> Option<(Option<Level>, Vec<usize>)> {
        let cells: Vec<(Level, &Scores<'_>)> =
            self.rows.keys().filter_map(|level| Some((*level, self.cell(method, *level, task)?))).collect();
        let dense = self.dense.get(task).map(Scores::runs).unwrap_or_default();
        let winner = cells.iter().rev().find(|(_, cell)| self.wins(cell, task));
        match winner {
            Some((level, cell)) => Some((Some(*level), cell.runs().into_iter().chain(dense).collect())),
            None => {
                let all: Vec<usize> = cells.iter().flat_map(|(_, cell)| cell.runs()).chain(dense).collect();
                (!cells.is_empty()).then_some((None, all))
            }
        }
    }

    fn highest(&self, view: &View<'_>) -> Table {
        let mut columns = vec![Column::new("method")];
        columns.extend(self.deviations.keys().map(|task| Column::new(task.to_string())));
        let row = |method: &Method| {
            let cell = |task: &Task| match self.best(method, task) {
                Some((Some(level), runs)) => Cell::Number(Number {
                    text: Some(level.to_string()),
                    ..Number::new(level.percent(), 1, Statistic::Derived, "score", runs)
                }),
                Some((None, runs)) => Cell::Number(Number {
                    text: Some("none".to_owned()),
                    ..Number::new(0.0, 1, Statistic::Derived, "score", runs)
                }),
                None => Cell::Empty,
            };
            let cells = self.deviations.keys().map(|task| cell(task));
            std::iter::once(Cell::text(method.to_string())).chain(cells).collect()
        };
        let levels: Vec<&Level> = self.rows.keys().collect();
        let caption = format!(
            "The highest sparsity, of {}, at which the mean over a method's tickets wins{}.",
            list(&levels),
            view.of_base()
        );
        Table { id: view.id("winning-highest"), caption, columns, rows: self.methods().into_iter().map(row).collect() }
    }

    /// The number of tasks won and tried by a method at a sparsity.
    fn count(&self, method: &Method, level: Level) -> (usize, usize, Vec<usize>) {
        let (mut won, mut tried, mut runs) = (0, 0, Vec::new());
        for task in self.deviations.keys() {
            if let Some(cell) = self.cell(method, level, task) {
                tried += 1;
                won += usize::from(self.wins(cell, task));
                runs.extend(cell.runs());
            }
        }
        (won, tried, runs)
    }

    fn counts(&self, view: &View<'_>) -> Table {
        let mut columns = vec![Column::new("method")];
        columns.extend(self.rows.keys().map(|level| Column::new(level.to_string())));
        let row = |method: &Method| {
            let cell = |level: Level| match self.count(method, level) {
                (_, 0, _) => Cell::Empty,
                (won, tried, runs) => Cell::Number(Number {
                    text: Some(format!("{won} of {tried}")),
                    ..Number::new(won as f64, 0, Statistic::Derived, "score", runs)
                }),
            };
            std::iter::once(Cell::text(method.to_string())).chain(self.rows.keys().map(|level| cell(*level))).collect()
        };
        let caption =
            format!("Tasks on which the mean over a method's tickets wins, at each sparsity{}.", view.of_base());
        Table { id: view.id("winning-counts"), caption, columns, rows: self.methods().into_iter().map(row).collect() }
    }

    fn sentence(&self, view: &View<'_>) -> String {
        let all = |method: &&Method, level: Level| {
            let (won, tried, _) = self.count(method, level);
            tried > 0 && tried == self.tasks() && won == tried
        };
        let mut parts = Vec::new();
        for level in self.rows.keys().rev() {
            let winners: Vec<&Method> = self.methods().into_iter().filter(|method| all(method, *level)).collect();
            if !winners.is_empty() {
                parts.push(format!("at {level} {}", list(&winners)));
                break;
            }
        }
        match parts.first() {
            Some(part) => format!(
                "The highest sparsity with a method whose tickets win on every measured task, in the mean over \
                 seeds{}: {part}.",
                view.of_base()
            ),
            None => format!(
                "No method has tickets that win on every measured task, in the mean over seeds{}.",
                view.of_base()
            ),
        }
    }
}
