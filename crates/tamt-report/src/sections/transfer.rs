//! What transfers: gain over magnitude by source objective and target task.

use std::collections::BTreeSet;

use crate::aggregate::Row;
use crate::document::{Block, Cell, Column, Figure, Number, Section, Statistic, Table, signed};
use crate::error::Result;
use crate::figure::heat::{Field, Heat};
use crate::names::{Level, Method, Task};
use crate::sections::view::View;

/// The section; `None` where no sparsity has a magnitude ticket beside others.
pub(super) fn section(views: &[View<'_>]) -> Result<Option<Section>> {
    let (mut blocks, mut tables) = (Vec::new(), Vec::new());
    for view in views {
        let mut figures = Vec::new();
        for level in view.score_levels() {
            let rows = view.rows(level);
            let Some((_, magnitude)) = rows.iter().find(|(method, _)| method.name == "magnitude") else { continue };
            let others: Vec<&(Method, Row<'_>)> =
                rows.iter().filter(|(method, _)| method.name != "magnitude").collect();
            let tasks: BTreeSet<&Task> = others
                .iter()
                .flat_map(|(_, row)| row.keys().copied())
                .filter(|task| magnitude.contains_key(task))
                .collect();
            if tasks.is_empty() {
                continue;
            }
            let gains = Gains { level, magnitude, others: &others, tasks: tasks.into_iter().collect() };
            figures.push(gains.map(view)?);
            let title = format!("Gains at {level}{}, as a table", view.of_base());
            tables.push(Block::Details(title, vec![Block::Table(gains.table(view))]));
        }
        if !figures.is_empty() {
            let caption = format!(
                "Gain over the magnitude ticket of the same sparsity, in percent points, by method (rows, with the \
                 objective that it minimises on text) and target task (columns){}. The colours end at the largest \
                 gain or loss of a method other than random, which may lose more.",
                view.of_base()
            );
            blocks.push(Block::Figures(figures, caption));
        }
    }
    let title = "Transfer".to_owned();
    blocks.extend(tables);
    Ok((!blocks.is_empty()).then(|| Section { id: "transfer", short: title.clone(), title, blocks }))
}

struct Gains<'a> {
    level: Level,
    magnitude: &'a Row<'a>,
    others: &'a [&'a (Method, Row<'a>)],
    tasks: Vec<&'a Task>,
}

impl Gains<'_> {
    fn gain(&self, row: &Row<'_>, task: &Task) -> Option<(f64, Vec<usize>)> {
        let (cell, reference) = (row.get(task)?, self.magnitude.get(task)?);
        let gain = cell.summary()?.mean - reference.summary()?.mean;
        Some((gain, cell.runs().into_iter().chain(reference.runs()).collect()))
    }

    fn map(&self, view: &View<'_>) -> Result<Figure> {
        let field = |method: &Method, row: &Row<'_>, task: &Task| {
            let (value, runs) = self.gain(row, task)?;
            let tip = format!("{method} on {task} at {}: {} points over magnitude", self.level, signed(value, 1));
            Some(Field { value, tip, runs })
        };
        let fields: Vec<Vec<Option<Field>>> = self
            .others
            .iter()
            .map(|(method, row)| self.tasks.iter().map(|task| field(method, row, task)).collect())
            .collect();
        // What random tickets lose would leave no colour to the gains of others.
        let of_others = self.others.iter().zip(&fields).filter(|((method, _), _)| method.name != "random");
        let gains = of_others.flat_map(|(_, fields)| fields).flatten().map(|field| field.value.abs());
        let largest = gains.fold(1.0, f64::max);
        let title = format!("gain over magnitude at {}", self.level);
        let heat = Heat {
            title: title.clone(),
            rows: self.others.iter().map(|(method, _)| with_objective(method)).collect(),
            columns: self.tasks.iter().map(ToString::to_string).collect(),
            fields,
            range: (-largest, largest),
            decimals: 1,
        };
        let id = view.id(&format!("transfer-{}", self.level.slug()));
        Ok(Figure { id, title, svg: heat.draw()?, wide: heat.is_wide() })
    }

    fn table(&self, view: &View<'_>) -> Table {
        let mut columns = vec![Column::new("method"), Column::new("source objective")];
        columns.extend(self.tasks.iter().map(|task| Column::new(task.to_string())));
        let row = |(method, row): &&(Method, Row<'_>)| {
            let cell = |task: &&Task| match self.gain(row, task) {
                Some((gain, runs)) => {
                    Cell::Number(Number { signed: true, ..Number::new(gain, 1, Statistic::Derived, "score", runs) })
                }
                None => Cell::Empty,
            };
            let head = [Cell::text(method.to_string()), Cell::text(method.objective().unwrap_or(""))];
            head.into_iter().chain(self.tasks.iter().map(cell)).collect()
        };
        Table {
            id: view.id(&format!("transfer-{}", self.level.slug())),
            caption: format!("Gain over magnitude at {} sparsity{}, in percent points.", self.level, view.of_base()),
            columns,
            rows: self.others.iter().map(row).collect(),
        }
    }
}

fn with_objective(method: &Method) -> String {
    match method.objective() {
        Some(objective) => format!("{method} ({objective})"),
        None => method.to_string(),
    }
}
