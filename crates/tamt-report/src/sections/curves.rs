//! Losses and scores against sparsity.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Block, Cell, Column, Figure, Number, Section, Statistic, Table};
use crate::error::Result;
use crate::figure::chart::{Chart, Point};
use crate::figure::ticks::Axis;
use crate::names::{Level, Method, Task};
use crate::run::Kind;
use crate::sections::view::{LossKind, View, mean_of_tasks, slug, with_deviation};
use crate::stats::summary::Summary;

/// The section; `None` without losses or scores of tickets.
pub(super) fn section(views: &[View<'_>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for view in views {
        let losses = losses(view)?;
        if !losses.is_empty() {
            let caption = format!(
                "Losses on held-out text against sparsity{}. Bands: ± one sample deviation over ticket seeds. Dashed: \
                 the dense model, whose KD loss is 0.",
                view.of_base()
            );
            blocks.push(Block::Figures(losses, caption));
        }
        let scores = scores(view)?;
        if !scores.is_empty() {
            let caption = format!(
                "Scores against sparsity{}, in percent points. A point is the mean over all seeds of its sparsity; \
                 another sparsity may have others. Bands: ± one sample deviation over seeds. Dashed: the dense model. \
                 Axes do not begin at 0.",
                view.of_base()
            );
            blocks.push(Block::Figures(scores, caption));
        }
        blocks.extend(LossKind::ALL.into_iter().filter_map(|kind| table(view, kind)).map(Block::Table));
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    blocks.extend(conditions(views).map(Block::Finding));
    let title = "Losses and scores against sparsity".to_owned();
    Ok(Some(Section { id: "sparsity", title, short: "Sparsity".to_owned(), blocks }))
}

/// A warning where losses were measured on different texts or in different ways.
fn conditions(views: &[View<'_>]) -> Option<String> {
    const KEYS: [&str; 5] = ["tokens", "masked_tokens", "block_size", "seed", "mlm_probability"];
    let mut found = BTreeSet::new();
    for loss in views.iter().flat_map(View::losses) {
        let results = &loss_results(&views[0], loss.run);
        let run = &views[0].study.runs[loss.run];
        if run.directory.is_none() {
            continue;
        }
        let text = if run.kind == Kind::Find { "eval-corpus-sha256" } else { "corpus-sha256" };
        let settings = [text, "precision"].map(|key| run.settings.get(key).cloned());
        found.insert((KEYS.map(|key| results.get(key).map(ToString::to_string)), settings));
    }
    (found.len() > 1).then(|| {
        format!(
            "Losses were measured in {} ways (text, block size, masked positions, precision): compare them with care.",
            found.len()
        )
    })
}

/// The conditions of an evaluation, which `find` writes into an object of their own.
fn loss_results<'v>(view: &'v View<'_>, run: usize) -> &'v serde_json::Map<String, serde_json::Value> {
    let results = &view.study.runs[run].results;
    results.get("evaluation").and_then(serde_json::Value::as_object).unwrap_or(results)
}

fn axis(levels: impl IntoIterator<Item = Level>) -> Axis {
    let ticks = levels.into_iter().collect::<BTreeSet<_>>().into_iter().map(Level::percent).collect();
    Axis { label: "sparsity".to_owned(), ticks, unit: " %", ..Axis::default() }
}

fn losses(view: &View<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in LossKind::ALL {
        let point = |method: &Method, level: Level, (summary, runs): (Summary, Vec<usize>)| Point {
            x: level.percent(),
            y: summary.mean,
            deviation: summary.deviation,
            tip: format!("{method}, {level}: {} {}", kind.title(), with_deviation(&summary, kind.decimals())),
            runs,
        };
        let series = view.loss_methods().into_iter().filter_map(|method| {
            let points: Vec<Point> =
                view.losses_of(&method, kind).into_iter().map(|(level, found)| point(&method, level, found)).collect();
            (!points.is_empty()).then(|| view.curve(&method, points))
        });
        let series: Vec<_> = series.collect();
        if series.is_empty() {
            continue;
        }
        let chart = Chart {
            title: kind.title().to_owned(),
            x: axis(view.loss_levels()),
            y: Axis { label: kind.unit().to_owned(), ..Axis::default() },
            series,
            dense: view.dense_loss(kind).map(|(loss, _)| loss).filter(|_| kind == LossKind::Mlm),
        };
        let id = view.id(&format!("{}-sparsity", kind.slug()));
        figures.push(Figure { id, title: chart.title.clone(), svg: chart.draw()?, wide: false });
    }
    Ok(figures)
}

fn scores(view: &View<'_>) -> Result<Vec<Figure>> {
    let (dense, average_tasks, levels) = (view.dense(), view.average_tasks(), view.score_levels());
    let rows: Vec<(Level, Vec<_>)> = levels.iter().map(|level| (*level, view.rows(*level))).collect();
    let tasks: BTreeSet<&Task> =
        rows.iter().flat_map(|(_, rows)| rows).flat_map(|(_, row)| row.keys().copied()).collect();
    let mut panels: Vec<(String, Vec<&Task>)> = Vec::new();
    if average_tasks.len() > 1 {
        panels.push((format!("average of {} tasks", average_tasks.len()), average_tasks));
    }
    panels.extend(tasks.into_iter().map(|task| (task.to_string(), vec![task])));
    let mut figures = Vec::new();
    for (title, tasks) in panels {
        let mut points: BTreeMap<Method, Vec<Point>> = BTreeMap::new();
        for (level, rows) in &rows {
            for (method, row) in rows {
                let Some(average) = mean_of_tasks(row, &tasks) else { continue };
                let tip = format!("{method}, {level}: {title} {}", with_deviation(&average.summary, 1));
                points.entry(method.clone()).or_default().push(Point {
                    x: level.percent(),
                    y: average.summary.mean,
                    deviation: average.summary.deviation,
                    tip,
                    runs: average.runs,
                });
            }
        }
        let chart = Chart {
            title: title.clone(),
            x: axis(levels.iter().copied()),
            y: Axis { label: "score".to_owned(), ..Axis::default() },
            series: points.into_iter().map(|(method, points)| view.curve(&method, points)).collect(),
            dense: mean_of_tasks(&dense, &tasks).map(|average| average.summary.mean),
        };
        let id = view.id(&format!("score-sparsity-{}", slug(&title)));
        figures.push(Figure { id, title, svg: chart.draw()?, wide: false });
    }
    Ok(figures)
}

fn table(view: &View<'_>, kind: LossKind) -> Option<Table> {
    let levels = view.loss_levels();
    let mut columns = vec![Column::new("method")];
    columns.extend(levels.iter().map(|level| Column::new(level.to_string())));
    let mut rows = Vec::new();
    for method in view.loss_methods() {
        let found = view.losses_of(&method, kind);
        let cell = |level: &Level| match found.get(level) {
            Some((summary, runs)) => Cell::Number(Number {
                deviation: summary.deviation,
                ..Number::new(summary.mean, kind.decimals(), Statistic::Mean, kind.key(), runs.clone())
            }),
            None => Cell::Empty,
        };
        if !found.is_empty() {
            rows.push(std::iter::once(Cell::text(method.to_string())).chain(levels.iter().map(cell)).collect());
        }
    }
    mark_least(&mut rows);
    let mut caption = format!("{} on held-out text, {}{}", kind.title(), kind.unit(), view.of_base());
    if let (Some((loss, runs)), LossKind::Mlm) = (view.dense_loss(kind), kind) {
        let dense = Number::new(loss, kind.decimals(), Statistic::Mean, kind.key(), runs);
        rows.insert(
            0,
            std::iter::once(Cell::text("dense")).chain(levels.iter().map(|_| Cell::Number(dense.clone()))).collect(),
        );
    }
    caption.push_str(". Mean over ticket seeds ± sample deviation; bold is the least.");
    (!rows.is_empty()).then(|| Table { id: view.id(kind.slug()), caption, columns, rows })
}

/// Marks the least number of each column.
fn mark_least(rows: &mut [Vec<Cell>]) {
    let columns = rows.first().map_or(0, Vec::len);
    for column in 1..columns {
        let value = |cell: &Cell| match cell {
            Cell::Number(number) => Some(number.value),
            _ => None,
        };
        let least = rows.iter().filter_map(|row| value(&row[column])).fold(f64::INFINITY, f64::min);
        let several = rows.iter().filter(|row| value(&row[column]).is_some()).count() > 1;
        for row in rows.iter_mut() {
            if let Cell::Number(number) = &mut row[column] {
                number.best = several && number.value <= least;
            }
        }
    }
}
