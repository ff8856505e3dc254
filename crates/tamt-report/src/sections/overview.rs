//! The numbers of a study in one table, for a terminal.

use crate::aggregate::Average;
use crate::document::{Cell, Column, Number, Statistic, Table};
use crate::names::{Level, Method, count};
use crate::sections::scores::mark_best;
use crate::sections::view::{LossKind, View, average_number, mean_of_tasks};
use crate::study::Study;

/// Losses and scores of all methods at the sparsities of scores, a table for each base model.
#[must_use]
pub fn overview(study: &Study) -> Vec<Table> {
    let bases = study.bases();
    bases.iter().map(|base| table(&View::new(study, base, bases.len() > 1))).collect()
}

fn table(view: &View<'_>) -> Table {
    let methods: Vec<Method> = view.study.methods().into_iter().filter(|method| !method.is_dense()).collect();
    let mut columns = vec![Column::new("method")];
    let mut rows: Vec<Vec<Cell>> = methods.iter().map(|method| vec![Cell::text(method.to_string())]).collect();
    let mut dense = vec![Cell::text(Method::dense().to_string())];
    for kind in LossKind::ALL {
        for level in view.summary_levels() {
            columns.push(Column::with_note(kind.title(), level.to_string()));
            dense.push(view.dense_loss(kind).map_or(Cell::Empty, |(loss, runs)| {
                Cell::Number(Number::new(loss, kind.decimals(), Statistic::Mean, kind.key(), runs))
            }));
            for (method, row) in methods.iter().zip(&mut rows) {
                row.push(loss(view, method, kind, level));
            }
        }
    }
    let tasks = view.average_tasks();
    let what = if tasks.len() > 1 { "average score" } else { "score" };
    for level in view.score_levels() {
        columns.push(Column::with_note(what, level.to_string()));
        let of = view.rows(level);
        dense.push(mean_of_tasks(&view.dense(), &tasks).map_or(Cell::Empty, |average| average_cell(&average)));
        let mut column: Vec<Vec<Cell>> = methods
            .iter()
            .map(|method| {
                let row = of.iter().find(|(other, _)| other == method).map(|(_, row)| row);
                let average = row.and_then(|row| mean_of_tasks(row, &tasks));
                vec![Cell::Empty, average.map_or(Cell::Empty, |average| average_cell(&average))]
            })
            .collect();
        mark_best(&mut column, 0);
        rows.iter_mut().zip(column).for_each(|(row, mut cells)| row.extend(cells.pop()));
    }
    rows.insert(0, dense);
    let caption = format!("Losses on held-out text and scores over {}{}.", count(tasks.len(), "task"), view.of_base());
    Table { id: view.id("overview"), caption, columns, rows }
}

fn average_cell(average: &Average) -> Cell {
    Cell::Number(average_number(average))
}

fn loss(view: &View<'_>, method: &Method, kind: LossKind, level: Level) -> Cell {
    view.losses_of(method, kind).remove(&level).map_or(Cell::Empty, |(summary, runs)| {
        let number = Number::new(summary.mean, kind.decimals(), Statistic::Mean, kind.key(), runs);
        Cell::Number(Number { deviation: summary.deviation, n: summary.n, ..number })
    })
}
