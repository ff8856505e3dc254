//! Scores and losses against the work of the search.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::aggregate::row;
use crate::document::{Block, Cell, Column, Figure, Number, Section, Statistic, Table, duration, fixed, scientific};
use crate::error::Result;
use crate::figure::chart::{Chart, Point};
use crate::figure::ticks::Axis;
use crate::names::{Level, Method};
use crate::sections::view::{LossKind, View, mean_of_tasks, with_deviation};
use crate::sections::work::Works;
use crate::stats::summary::Summary;
use crate::study::{Score, TicketKey};

/// What the tickets of a method have after a number of steps, over seeds.
#[derive(Default)]
struct At {
    mlm: Vec<(f64, usize)>,
    kd: Vec<(f64, usize)>,
    /// Averages over tasks, one a ticket.
    score: Vec<(f64, Vec<usize>)>,
    flop: Option<f64>,
    seconds: Option<f64>,
}

type Curves = BTreeMap<Method, BTreeMap<u64, At>>;

/// The section; `None` where no method has tickets after different numbers of steps.
pub(super) fn section(views: &[View<'_>], works: &Works) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for view in views {
        for level in levels(view) {
            let curves = curves(view, level, works);
            let figures = figures(view, level, &curves)?;
            if figures.is_empty() {
                continue;
            }
            blocks.extend(sooner(view, level, &curves).map(Block::Finding));
            let caption = format!(
                "Tickets at {level} sparsity{} after different numbers of steps: losses and average score against \
                 optimiser steps, floating-point operations and seconds of the search. Bands: ± one sample deviation \
                 over ticket seeds. Dashed: the dense model. Horizontal axes are logarithmic, with a place for 0.",
                view.of_base()
            );
            blocks.push(Block::Figures(figures, caption));
            blocks.push(Block::Table(table(view, level, &curves)));
        }
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    blocks.insert(0, Block::Text(HOW.to_owned()));
    let title = "Training steps".to_owned();
    Ok(Some(Section { id: "steps", title, short: "Steps".to_owned(), blocks }))
}

const HOW: &str = "Steps are optimiser steps of the search, for iterative magnitude pruning in all its rounds \
together. Operations are those of products with weight matrices, counted as if dense from batch size, block size and \
shapes; seconds are the search's own clock.";

/// The fewest steps after which each method scores at least as high as iterative pruning at its end.
fn sooner(view: &View<'_>, level: Level, curves: &Curves) -> Option<String> {
    let score = |at: &At| Some(Measure::Score.of(at)?.0.mean);
    let (_, imp) = curves.iter().find(|(method, _)| method.name == "imp")?;
    let (last, goal) = imp.iter().rev().find_map(|(steps, at)| Some((*steps, score(at)?)))?;
    let one = |(method, steps): (&Method, &BTreeMap<u64, At>)| {
        let reached =
            steps.iter().find_map(|(steps, at)| score(at).filter(|score| *score >= goal).map(|s| (*steps, s)));
        match reached {
            Some((steps, score)) => format!("{method} after {steps} ({})", fixed(score, 1)),
            None => format!("{method} not within {} steps", steps.keys().next_back().unwrap_or(&0)),
        }
    };
    let others: Vec<String> = curves.iter().filter(|(method, _)| method.name != "imp").map(one).collect();
    (!others.is_empty()).then(|| {
        format!(
            "At {level}{}, imp scores {} on average after its {last} steps. At least this score has: {}. These are \
             means, without a test.",
            view.of_base(),
            fixed(goal, 1),
            others.join("; ")
        )
    })
}

/// Sparsities at which a method has tickets after different numbers of steps.
fn levels(view: &View<'_>) -> Vec<Level> {
    let mut steps: BTreeMap<(Level, &Method), BTreeSet<u64>> = BTreeMap::new();
    let scored = view.all_scores().map(|score| &score.ticket);
    for ticket in scored.chain(view.all_losses().map(|loss| &loss.ticket)).filter(|ticket| !ticket.method.is_dense()) {
        steps.entry((ticket.level, &ticket.method)).or_default().insert(ticket.steps);
    }
    let several = steps.into_iter().filter(|(_, steps)| steps.len() > 1).map(|((level, _), _)| level);
    several.collect::<BTreeSet<_>>().into_iter().collect()
}

fn curves(view: &View<'_>, level: Level, works: &Works) -> Curves {
    let mut curves = Curves::new();
    for loss in view.all_losses().filter(|loss| loss.ticket.level == level && !loss.ticket.method.is_dense()) {
        let at = curves.entry(loss.ticket.method.clone()).or_default().entry(loss.ticket.steps).or_default();
        at.mlm.extend(loss.mlm.map(|value| (value, loss.run)));
        at.kd.extend(loss.kd.map(|value| (value, loss.run)));
    }
    let mut scores: BTreeMap<&TicketKey, Vec<&Score>> = BTreeMap::new();
    for score in view.all_scores().filter(|score| score.ticket.level == level && view.study.has_main_examples(score)) {
        scores.entry(&score.ticket).or_default().push(score);
    }
    let tasks = view.average_tasks();
    for (ticket, scores) in scores {
        let at = curves.entry(ticket.method.clone()).or_default().entry(ticket.steps).or_default();
        at.score.extend(mean_of_tasks(&row(scores), &tasks).map(|average| (average.summary.mean, average.runs)));
    }
    // One number of steps is no curve.
    curves.retain(|_, steps| steps.len() > 1);
    for (method, steps) in &mut curves {
        for (&steps, at) in steps {
            let files = view.study.tickets.iter().filter(|file| {
                file.ticket.base == view.base
                    && file.ticket.method == *method
                    && file.ticket.level == level
                    && file.ticket.steps == steps
            });
            at.flop = files.clone().find_map(|file| works.of(file.run)).map(|work| work.flop * steps as f64);
            let times: Vec<f64> = files.filter_map(|file| seconds(view, file.run, steps)).collect();
            at.seconds = Summary::of(&times).map(|summary| summary.mean);
        }
    }
    curves
}

/// The seconds of a search up to a step, from its log, or from its result at its end.
fn seconds(view: &View<'_>, run: usize, steps: u64) -> Option<f64> {
    let run = &view.study.runs[run];
    if run.labels.steps == Some(steps) {
        return run.number("seconds").or(run.seconds);
    }
    let log = fs::read_to_string(run.directory.join("log.jsonl")).ok()?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let clock = lines.filter_map(|line| Some((line.get("step")?.as_u64()?, line.get("seconds")?.as_f64()?)));
    if steps == 0 { Some(0.0) } else { clock.rev().find(|(step, _)| *step <= steps).map(|(_, seconds)| seconds) }
}

/// A measure on the vertical axis.
#[derive(Clone, Copy)]
enum Measure {
    Loss(LossKind),
    Score,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Loss(LossKind::Mlm), Self::Loss(LossKind::Kd), Self::Score];

    fn title(self) -> &'static str {
        match self {
            Self::Loss(kind) => kind.title(),
            Self::Score => "average score",
        }
    }

    fn slug(self) -> &'static str {
        match self {
            Self::Loss(kind) => kind.slug(),
            Self::Score => "score",
        }
    }

    fn decimals(self) -> usize {
        match self {
            Self::Loss(kind) => kind.decimals(),
            Self::Score => 1,
        }
    }

    fn of(self, at: &At) -> Option<(Summary, Vec<usize>)> {
        let losses = match self {
            Self::Loss(LossKind::Mlm) => &at.mlm,
            Self::Loss(LossKind::Kd) => &at.kd,
            Self::Score => {
                let values: Vec<f64> = at.score.iter().map(|(value, _)| *value).collect();
                return Some((Summary::of(&values)?, at.score.iter().flat_map(|(_, runs)| runs.clone()).collect()));
            }
        };
        let values: Vec<f64> = losses.iter().map(|(value, _)| *value).collect();
        Some((Summary::of(&values)?, losses.iter().map(|(_, run)| *run).collect()))
    }
}

fn figures(view: &View<'_>, level: Level, curves: &Curves) -> Result<Vec<Figure>> {
    type Horizontal = (&'static str, &'static str, fn(u64, &At) -> Option<f64>);
    let axes: [Horizontal; 3] = [
        ("steps", "steps", |steps, _| Some(steps as f64)),
        ("operations", "floating-point operations", |_, at| at.flop),
        ("seconds", "seconds", |_, at| at.seconds),
    ];
    let dense = |measure: Measure| match measure {
        Measure::Loss(LossKind::Mlm) => view.dense_loss(LossKind::Mlm).map(|(loss, _)| loss),
        Measure::Loss(LossKind::Kd) => None,
        Measure::Score => mean_of_tasks(&view.dense(), &view.average_tasks()).map(|average| average.summary.mean),
    };
    let mut figures = Vec::new();
    for measure in Measure::ALL {
        for (short, label, value) in axes {
            let mut series = Vec::new();
            for (method, steps) in curves {
                let mut points = Vec::new();
                for (&count, at) in steps {
                    let (Some((summary, runs)), Some(x)) = (measure.of(at), value(count, at)) else { continue };
                    let shown = with_deviation(&summary, measure.decimals());
                    let tip = format!("{method}, {} steps: {} {shown}", fixed(count as f64, 0), measure.title());
                    points.push(Point { x, y: summary.mean, deviation: summary.deviation, tip, runs });
                }
                points.sort_by(|a, b| a.x.total_cmp(&b.x));
                series.extend((!points.is_empty()).then(|| view.curve(method, points)));
            }
            if series.iter().all(|series| series.points.len() < 2) {
                continue;
            }
            let title = format!("{level}: {} against {short}", measure.title());
            let y = match measure {
                Measure::Loss(kind) => kind.unit(),
                Measure::Score => "score",
            };
            let chart = Chart {
                title: title.clone(),
                x: Axis {
                    label: label.to_owned(),
                    log: true,
                    ticks: if short == "steps" { counted(curves) } else { Vec::new() },
                    unit: "",
                },
                y: Axis { label: y.to_owned(), ..Axis::default() },
                series,
                dense: dense(measure),
            };
            let id = view.id(&format!("{}-{short}-{}", measure.slug(), level.slug()));
            figures.push(Figure { id, title, svg: chart.draw()?, wide: false });
        }
    }
    Ok(figures)
}

/// All numbers of steps.
fn counted(curves: &Curves) -> Vec<f64> {
    let steps: BTreeSet<u64> = curves.values().flat_map(BTreeMap::keys).copied().collect();
    steps.into_iter().map(|steps| steps as f64).collect()
}

fn table(view: &View<'_>, level: Level, curves: &Curves) -> Table {
    let mut rows = Vec::new();
    for (method, steps) in curves {
        for (&count, at) in steps {
            let runs: BTreeSet<usize> = at.mlm.iter().chain(&at.kd).map(|(_, run)| *run).collect();
            let runs = Vec::from_iter(runs);
            let recorded = |value: f64, text| {
                Cell::Number(Number {
                    text: Some(text),
                    ..Number::new(value, 0, Statistic::Recorded, "", runs.clone())
                })
            };
            let mut line = vec![
                Cell::text(method.to_string()),
                Cell::Number(Number::new(count as f64, 0, Statistic::Recorded, "", runs.clone())),
                at.flop.map_or(Cell::Empty, |flop| recorded(flop, scientific(flop))),
                at.seconds.map_or(Cell::Empty, |seconds| recorded(seconds, duration(seconds))),
            ];
            for measure in Measure::ALL {
                let (statistic, key) = match measure {
                    Measure::Loss(kind) => (Statistic::Mean, kind.key()),
                    Measure::Score => (Statistic::MeanOfTasks, "score"),
                };
                line.push(measure.of(at).map_or(Cell::Empty, |(summary, runs)| {
                    let number = Number::new(summary.mean, measure.decimals(), statistic, key, runs);
                    Cell::Number(Number { deviation: summary.deviation, n: summary.n, ..number })
                }));
            }
            rows.push(line);
        }
    }
    Table {
        id: view.id(&format!("steps-{}", level.slug())),
        caption: format!("Tickets at {level} sparsity{} after different numbers of steps.", view.of_base()),
        columns: ["method", "steps", "operations", "time", "MLM loss", "KD loss", "average score"]
            .map(Column::new)
            .into(),
        rows,
    }
}
