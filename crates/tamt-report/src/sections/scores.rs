//! The main table: methods by tasks and average, at each sparsity.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{self, Row, Seeds, differences};
use crate::document::{Block, Cell, Column, Number, Section, Table, fixed};
use crate::names::{self, Level, Method, Task, count, list};
use crate::sections::order::{Orders, compare};
use crate::sections::view::{View, average_number, mean_of_tasks, of_seeds_or_all, score_number, tuning_seeds};
use crate::stats::paired::PairedT;
use crate::stats::summary::Summary;

const HOW: &str = "Scores are the best evaluation on the development set, in percent points: mean over ticket seeds × \
tuning seeds, ± sample deviation. Below stands the difference to the dense model, with a star (*) where a paired t \
test over seeds gives p < 0.05. The dense model has no ticket seed, so a method's runs are averaged over ticket seeds \
before they are paired with the dense model's by tuning seed, or its tuning seeds are averaged and the pairs are \
tickets, whichever gives the larger p. The dense model's row has the tuning seeds of the tickets in the table. Bold is the \
best ticket of a column.";

const AVERAGE: &str = "The average is GLUE's: the unweighted mean of one score a task, which is Matthews correlation \
for CoLA, the mean of accuracy and F1 for MRPC and QQP, Pearson correlation for STS-B, F1 for SQuAD, accuracy \
otherwise, or the metric that a task file declares. Its deviation is that of the averages over seeds, not the mean of \
the tasks' deviations.";

/// The section; `None` without scores of tickets.
pub(super) fn section(views: &[View<'_>]) -> Option<(Section, Vec<String>)> {
    let (mut blocks, mut findings) = (Vec::new(), Vec::new());
    for view in views {
        let tasks = view.average_tasks();
        let levels = view.score_levels().into_iter();
        let tables: Vec<Block> = levels.map(|level| Block::Table(table(view, level, &tasks))).collect();
        let Orders { sentences, short, table } = compare(view, &tasks);
        blocks.extend(sentences.into_iter().map(Block::Finding));
        findings.extend(short);
        blocks.extend(tables);
        blocks.extend(table);
    }
    if !blocks.iter().any(|block| matches!(block, Block::Table(_))) {
        return None;
    }
    let mut how = Vec::new();
    let tests: Vec<bool> = blocks.iter().flat_map(tests).collect();
    if !tests.is_empty() {
        how.push(Block::Text(format!(
            "{} of {} tested differences to the dense model have a star; chance alone would give about {}.",
            tests.iter().filter(|is_clear| **is_clear).count(),
            tests.len(),
            fixed(0.05 * tests.len() as f64, 0)
        )));
    }
    let reading = [HOW, AVERAGE].map(|text| Block::Text(text.to_owned()));
    how.push(Block::Details("How to read these tables".to_owned(), reading.into()));
    let at = blocks.iter().position(|block| matches!(block, Block::Table(_))).unwrap_or(0);
    blocks.splice(at..at, how);
    let section = Section { id: "scores", title: "Scores on tasks".to_owned(), short: "Scores".to_owned(), blocks };
    Some((section, findings))
}

/// Of each tested difference to the dense model, whether it is more than noise.
fn tests(block: &Block) -> Vec<bool> {
    let Block::Table(table) = block else { return Vec::new() };
    let test = |cell: &Cell| match cell {
        Cell::Number(Number { difference: Some((_, test)), .. }) => *test,
        _ => None,
    };
    table.rows.iter().flatten().filter_map(test).collect()
}

/// The table of a sparsity.
fn table(view: &View<'_>, level: Level, average_tasks: &[&Task]) -> Table {
    let rows = view.rows(level);
    let dense = with_seeds_of(view.dense(), &rows);
    let tasks: BTreeSet<&Task> = rows.iter().flat_map(|(_, row)| row.keys().copied()).collect();
    let mut columns = vec![Column::new("method")];
    columns
        .extend(tasks.iter().map(|task| Column::with_note(task.to_string(), names::metric(view.study.metric(task)))));
    let has_average = average_tasks.len() > 1;
    if has_average {
        columns.push(Column::with_note("average", count(average_tasks.len(), "task")));
    }
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    let all = [(Method::dense(), dense.clone())].into_iter().filter(|(_, row)| !row.is_empty()).chain(rows);
    for (method, row) in all {
        let mut line = vec![Cell::text(method.to_string())];
        line.extend(tasks.iter().map(|task| score(&row, task, &dense, method.is_dense())));
        if has_average {
            line.push(average(&row, &dense, average_tasks, method.is_dense()));
        }
        lines.push(line);
    }
    mark_best(&mut lines, usize::from(!dense.is_empty()));
    let caption = if average_tasks.len() > 1 && average_tasks.len() < tasks.len() {
        format!("Scores at {level} sparsity{}. The average is over {}.", view.of_base(), list(average_tasks))
    } else {
        format!("Scores at {level} sparsity{}.", view.of_base())
    };
    Table { id: view.id(&format!("scores-{}", level.slug())), caption, columns, rows: lines }
}

/// The dense model's runs with the seeds of fine-tuning that the rows have, so that a row compares with the differences
/// below it; all runs of a task where there is none with such a seed.
fn with_seeds_of<'a>(dense: Row<'a>, rows: &[(Method, Row<'a>)]) -> Row<'a> {
    let same_seeds = |(task, cell): (&'a Task, aggregate::Cell<'a>)| {
        let of_rows = rows.iter().filter_map(|(_, row)| row.get(task));
        (task, of_seeds_or_all(&cell, &of_rows.flat_map(tuning_seeds).collect()))
    };
    dense.into_iter().map(same_seeds).collect()
}

fn score(row: &Row<'_>, task: &Task, dense: &Row<'_>, is_dense: bool) -> Cell {
    let Some((cell, summary)) = row.get(task).and_then(|cell| Some((cell, cell.summary()?))) else {
        return Cell::Empty;
    };
    let mut number = score_number(summary, cell.runs());
    if let Some((reference, other)) =
        dense.get(task).and_then(|cell| Some((cell, cell.summary()?))).filter(|_| !is_dense)
    {
        number.difference = Some(to_dense((summary.mean, &cell.by_seeds()), (other.mean, &reference.by_seeds())));
    }
    Cell::Number(number)
}

/// The difference to the dense model, of means and scores by seeds, and whether it is more than noise. It is the mean
/// over pairs, so that the two are of the same runs; without a pair, the difference of the means.
fn to_dense(
    (mean, scores): (f64, &BTreeMap<Seeds, f64>),
    (dense_mean, dense): (f64, &BTreeMap<Seeds, f64>),
) -> (f64, Option<bool>) {
    let pairs = differences(scores, dense);
    let difference = Summary::of(&pairs).map_or(mean - dense_mean, |pairs| pairs.mean);
    let test = PairedT::of(&pairs);
    (difference, test.map(|test| test.is_clear()))
}

fn average(row: &Row<'_>, dense: &Row<'_>, tasks: &[&Task], is_dense: bool) -> Cell {
    let Some(average) = mean_of_tasks(row, tasks) else { return Cell::Empty };
    let mut number = average_number(&average);
    if let Some(reference) = mean_of_tasks(dense, tasks).filter(|_| !is_dense) {
        number.difference =
            Some(to_dense((average.summary.mean, &average.by_seeds), (reference.summary.mean, &reference.by_seeds)));
    }
    Cell::Number(number)
}

/// Marks the largest number of each column, from the row `first` on; equal ones as shown share the mark.
pub(super) fn mark_best(rows: &mut [Vec<Cell>], first: usize) {
    let columns = rows.first().map_or(0, Vec::len);
    for column in 1..columns {
        let shown = |cell: &Cell| match cell {
            Cell::Number(number) => Some((number.value, number.shown())),
            _ => None,
        };
        let numbers: Vec<(f64, String)> = rows[first..].iter().filter_map(|row| shown(&row[column])).collect();
        if numbers.len() < 2 {
            continue;
        }
        let Some((_, best)) = numbers.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        for row in &mut rows[first..] {
            if let Cell::Number(number) = &mut row[column] {
                number.best = number.shown() == best;
            }
        }
    }
}
