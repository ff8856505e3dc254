//! Scores against the number of training examples.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::Cell as Scores;
use crate::document::{Block, Cell, Column, Figure, Section, Table, fixed};
use crate::error::Result;
use crate::figure::chart::{Chart, Point};
use crate::figure::ticks::Axis;
use crate::names::{Level, Method, Task};
use crate::sections::scores::mark_best;
use crate::sections::view::{View, common, pairs_of, score_number, seeds_of, slug, with_deviation};
use crate::study::Score;

/// Scores by number of examples and method.
type ByExamples<'a> = BTreeMap<u64, BTreeMap<Method, Scores<'a>>>;

/// The section; `None` where no task was tuned on different numbers of examples.
pub(super) fn section(views: &[View<'_>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for view in views {
        for level in view.score_levels() {
            let tasks = tasks(view, level);
            if tasks.is_empty() {
                continue;
            }
            blocks.extend(gaps(view, level, &tasks).map(Block::Finding));
            let figures =
                tasks.iter().map(|(task, found)| figure(view, level, task, found)).collect::<Result<Vec<_>>>()?;
            let caption = format!(
                "Scores against the number of training examples at {level} sparsity{}, over the seeds that a method \
                 has with each number of examples, or over all seeds where it has none in common. Bands: ± one sample \
                 deviation over seeds. The horizontal axis is logarithmic.",
                view.of_base()
            );
            blocks.push(Block::Figures(figures, caption));
            blocks.push(Block::Table(table(view, level, &tasks)));
        }
    }
    let title = "Scarce data".to_owned();
    Ok((!blocks.is_empty()).then(|| Section { id: "scarcity", short: title.clone(), title, blocks }))
}

/// The tasks that tickets of a sparsity were tuned on with different numbers of examples, the dense model beside them.
/// A method with one number of examples is no curve, and left out.
fn tasks<'a>(view: &View<'a>, level: Level) -> BTreeMap<&'a Task, ByExamples<'a>> {
    let mut tasks: BTreeMap<&Task, ByExamples<'_>> = BTreeMap::new();
    let shown = |score: &&Score| view.study.is_main(&score.ticket);
    for score in view.all_scores().filter(shown) {
        let method = &score.ticket.method;
        if score.ticket.level == level || method.is_dense() {
            let cells = tasks.entry(&score.task).or_default().entry(score.examples).or_default();
            cells.entry(method.clone()).or_default().scores.push(score);
        }
    }
    for found in tasks.values_mut() {
        let several = |method: &Method| found.values().filter(|methods| methods.contains_key(method)).count() > 1;
        let kept: BTreeSet<Method> = found.values().flat_map(BTreeMap::keys).filter(|m| several(m)).cloned().collect();
        found.values_mut().for_each(|methods| methods.retain(|method, _| kept.contains(method)));
        found.retain(|_, methods| methods.keys().any(|method| !method.is_dense()));
        kept.iter().for_each(|method| keep_common_seeds(found, method));
    }
    tasks.retain(|_, found| found.len() > 1);
    tasks
}

/// Leaves the scores with the seeds that a method has with each number of examples: means over other seeds would differ
/// for another reason than the examples. Where no seeds are common, all scores stay.
fn keep_common_seeds(found: &mut ByExamples<'_>, method: &Method) {
    let cells = found.values().filter_map(|methods| methods.get(method));
    let Some(seeds) = common(cells.map(pairs_of)) else { return };
    for cell in found.values_mut().filter_map(|methods| methods.get_mut(method)) {
        cell.scores.retain(|score| seeds.contains(&seeds_of(score)));
    }
}

fn figure(view: &View<'_>, level: Level, task: &Task, found: &ByExamples<'_>) -> Result<Figure> {
    let methods: BTreeSet<&Method> = found.values().flat_map(BTreeMap::keys).collect();
    let curve = |method: &Method| {
        let point = |(examples, cells): (&u64, &BTreeMap<Method, Scores<'_>>)| {
            let cell = cells.get(method)?;
            let summary = cell.summary()?;
            let shown = with_deviation(&summary, 1);
            Some(Point {
                x: *examples as f64,
                y: summary.mean,
                deviation: summary.deviation,
                tip: format!("{method}, {} examples: {shown}", fixed(*examples as f64, 0)),
                runs: cell.runs(),
            })
        };
        view.curve(method, found.iter().filter_map(point).collect())
    };
    let chart = Chart {
        title: task.to_string(),
        x: Axis {
            label: "training examples".to_owned(),
            log: true,
            ticks: found.keys().map(|examples| *examples as f64).collect(),
            ..Axis::default()
        },
        y: Axis { label: "score".to_owned(), ..Axis::default() },
        series: methods.into_iter().map(curve).collect(),
        dense: None,
    };
    let id = view.id(&format!("scarcity-{}-{}", slug(&task.to_string()), level.slug()));
    Ok(Figure { id, title: chart.title.clone(), svg: chart.draw()?, wide: false })
}

fn table(view: &View<'_>, level: Level, tasks: &BTreeMap<&Task, ByExamples<'_>>) -> Table {
    let columns: Vec<(&Task, u64)> =
        tasks.iter().flat_map(|(task, found)| found.keys().map(|examples| (*task, *examples))).collect();
    let methods: BTreeSet<&Method> = tasks.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys).collect();
    let row = |method: &&Method| {
        let cell = |(task, examples): &(&Task, u64)| {
            let cell = tasks[task].get(examples).and_then(|cells| cells.get(method));
            let number = cell.and_then(|cell| Some(score_number(cell.summary()?, cell.runs())));
            number.map_or(Cell::Empty, Cell::Number)
        };
        std::iter::once(Cell::text(method.to_string())).chain(columns.iter().map(cell)).collect()
    };
    let mut rows: Vec<Vec<Cell>> = methods.iter().map(row).collect();
    mark_best(&mut rows, usize::from(methods.iter().any(|method| method.is_dense())));
    let mut headings = vec![Column::new("method")];
    headings
        .extend(columns.iter().map(|(task, examples)| Column::with_note(task.to_string(), fixed(*examples as f64, 0))));
    let caption = format!(
        "Scores by number of training examples (second line of the heading) at {level} sparsity{}.",
        view.of_base()
    );
    Table { id: view.id(&format!("scarcity-{}", level.slug())), caption, columns: headings, rows }
}

/// Whether the advantage over magnitude grows or shrinks where data are scarce, over all tasks with the fewest and the
/// most examples.
fn gaps(view: &View<'_>, level: Level, tasks: &BTreeMap<&Task, ByExamples<'_>>) -> Option<String> {
    let gap = |cells: &BTreeMap<Method, Scores<'_>>, method: &Method| {
        let mean = |name: &Method| cells.get(name)?.summary().map(|summary| summary.mean);
        let magnitude = cells.keys().find(|method| method.name == "magnitude")?;
        Some(mean(method)? - mean(magnitude)?)
    };
    let methods: BTreeSet<&Method> = tasks.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys).collect();
    let mut parts = Vec::new();
    for method in methods.into_iter().filter(|method| !method.is_dense() && method.name != "magnitude") {
        let ends: Vec<(f64, f64)> = tasks
            .values()
            .filter_map(|found| Some((gap(found.values().next()?, method)?, gap(found.values().next_back()?, method)?)))
            .collect();
        if ends.is_empty() {
            continue;
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let (few, many) = (mean(ends.iter().map(|e| e.0).collect()), mean(ends.iter().map(|e| e.1).collect()));
        let signed = crate::document::signed;
        parts.push(format!(
            "{method} {} with the fewest examples and {} with the most",
            signed(few, 1),
            signed(many, 1)
        ));
    }
    (!parts.is_empty()).then(|| {
        format!(
            "Mean difference to magnitude over the tasks at {level}{}, in points: {}.",
            view.of_base(),
            parts.join("; ")
        )
    })
}
