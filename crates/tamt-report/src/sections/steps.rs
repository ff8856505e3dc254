//! Scores and losses against the work of the search.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::aggregate::{Row, row};
use crate::document::{Block, Cell, Column, Figure, Number, Section, Statistic, Table, duration, fixed, scientific};
use crate::error::Result;
use crate::figure::chart::{Chart, Point};
use crate::figure::ticks::Axis;
use crate::names::{Level, Method, Task, list};
use crate::sections::view::{LossKind, View, common, mean_of_tasks, pairs_of, seeds_of, with_deviation};
use crate::sections::work::Works;
use crate::stats::summary::Summary;
use crate::study::{Loss, Score, TicketFile, TicketKey};

/// What the tickets of a method have after a number of steps, over seeds.
#[derive(Default)]
struct At {
    mlm: Vec<(f64, usize)>,
    kd: Vec<(f64, usize)>,
    /// Averages over tasks, one a ticket.
    score: Vec<(f64, Vec<usize>)>,
    /// The ticket seeds of these losses and scores.
    seeds: BTreeSet<Option<u64>>,
    flop: Option<f64>,
    seconds: Option<f64>,
}

type Methods = BTreeMap<Method, BTreeMap<u64, At>>;

/// The curves of a sparsity.
struct Curves<'a> {
    methods: Methods,
    /// The tasks over which scores are averaged; none without scores after several numbers of steps.
    tasks: Vec<&'a Task>,
    /// The dense model's average over these tasks.
    dense: Option<f64>,
}

impl Curves<'_> {
    /// The tasks of the scores as the end of a phrase; `None` without scores.
    fn over_tasks(&self) -> Option<String> {
        match self.tasks.as_slice() {
            [] => None,
            [only] => Some(format!("on {only}")),
            several => Some(format!("on average over {}", list(several))),
        }
    }

    /// The measures that have curves, in words.
    fn drawn(&self) -> String {
        let is_drawn = |measure: Measure| {
            let points = |steps: &BTreeMap<u64, At>| steps.values().filter(|at| measure.of(at).is_some()).count();
            self.methods.values().any(|steps| points(steps) > 1)
        };
        let losses = LossKind::ALL.into_iter().filter(|kind| is_drawn(Measure::Loss(*kind)));
        let mut names: Vec<String> = losses.map(|kind| kind.title().to_owned()).collect();
        names.extend(self.over_tasks().map(|tasks| format!("score {tasks}")));
        list(&names)
    }
}

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
                "Tickets at {level} sparsity{} after different numbers of steps: {} against optimiser steps, \
                 floating-point operations and seconds of the search. A curve is of the seeds that a method has after \
                 each of its numbers of steps. Bands: ± one sample deviation over ticket seeds. Dashed: the dense \
                 model. Horizontal axes are logarithmic, with a place for 0.",
                view.of_base(),
                curves.drawn()
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
fn sooner(view: &View<'_>, level: Level, curves: &Curves<'_>) -> Option<String> {
    let tasks = curves.over_tasks()?;
    let scores = |steps: &BTreeMap<u64, At>| -> Vec<(u64, f64)> {
        steps.iter().filter_map(|(steps, at)| Some((*steps, Measure::Score.of(at)?.0.mean))).collect()
    };
    let (_, imp) = curves.methods.iter().find(|(method, _)| method.name == "imp")?;
    let (last, goal) = scores(imp).last().copied()?;
    let one = |(method, steps): (&Method, &BTreeMap<u64, At>)| {
        let scores = scores(steps);
        let (most, _) = scores.last()?;
        Some(match scores.iter().find(|(_, score)| *score >= goal) {
            Some((steps, score)) => format!("{method} after {steps} ({})", fixed(*score, 1)),
            None => format!("{method} not within {most} steps"),
        })
    };
    let others = curves.methods.iter().filter(|(method, _)| method.name != "imp");
    let others: Vec<String> = others.filter_map(one).collect();
    (!others.is_empty()).then(|| {
        format!(
            "At {level}{}, imp scores {} {tasks} after its {last} steps. At least this score has: {}. These are means, \
             without a test.",
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

fn curves<'a>(view: &View<'a>, level: Level, works: &Works) -> Curves<'a> {
    let mut methods = losses(view, level);
    let (tasks, dense) = add_scores(view, level, &mut methods);
    // One number of steps is no curve.
    methods.retain(|_, steps| steps.len() > 1);
    for (method, steps) in &mut methods {
        for (&steps, at) in steps {
            let is_of = |ticket: &TicketKey| {
                ticket.base == view.base
                    && ticket.method == *method
                    && ticket.level == level
                    && ticket.steps == steps
                    && at.seeds.contains(&ticket.seed)
            };
            let files: Vec<&TicketFile> = view.study.tickets.iter().filter(|file| is_of(&file.ticket)).collect();
            at.flop = files.iter().find_map(|file| works.of(file.run)?.flop).map(|flop| flop * steps as f64);
            let times: Vec<f64> = files.iter().filter_map(|file| seconds(view, file.run, steps)).collect();
            at.seconds = Summary::of(&times).map(|summary| summary.mean);
        }
    }
    Curves { methods, tasks, dense }
}

/// The losses after each number of steps, of the ticket seeds that a method has after all of them: a mean over other
/// seeds at one of its points would put a kink into a curve.
fn losses(view: &View<'_>, level: Level) -> Methods {
    let mut found: BTreeMap<&Method, BTreeMap<u64, Vec<&Loss>>> = BTreeMap::new();
    for loss in view.all_losses().filter(|loss| loss.ticket.level == level && !loss.ticket.method.is_dense()) {
        found.entry(&loss.ticket.method).or_default().entry(loss.ticket.steps).or_default().push(loss);
    }
    let mut methods = Methods::new();
    for (method, steps) in found {
        let of_steps = |losses: &Vec<&Loss>| losses.iter().map(|loss| loss.ticket.seed).collect::<BTreeSet<_>>();
        let Some(seeds) = common(steps.values().map(of_steps)) else { continue };
        for loss in steps.into_values().flatten().filter(|loss| seeds.contains(&loss.ticket.seed)) {
            let at = methods.entry(method.clone()).or_default().entry(loss.ticket.steps).or_default();
            at.mlm.extend(loss.mlm.map(|value| (value, loss.run)));
            at.kd.extend(loss.kd.map(|value| (value, loss.run)));
            at.seeds.insert(loss.ticket.seed);
        }
    }
    methods
}

/// Adds scores after each number of steps: averages over the tasks that every method with a curve of scores has after
/// all of them, of the pairs of seeds that the method has on all of these. Gives the tasks and the dense model's score.
fn add_scores<'a>(view: &View<'a>, level: Level, methods: &mut Methods) -> (Vec<&'a Task>, Option<f64>) {
    let mut found: BTreeMap<&Method, BTreeMap<u64, Vec<&'a Score>>> = BTreeMap::new();
    for score in view.all_scores().filter(|score| score.ticket.level == level && view.study.has_main_examples(score)) {
        found.entry(&score.ticket.method).or_default().entry(score.ticket.steps).or_default().push(score);
    }
    // Scores after one number of steps say nothing about steps.
    found.retain(|_, steps| steps.len() > 1);
    let mut rows: BTreeMap<&Method, Vec<Row<'a>>> = BTreeMap::new();
    for (&method, steps) in &found {
        rows.insert(method, steps.values().map(|scores| row(scores.iter().copied())).collect());
    }
    let of_row = |row: &Row<'a>| row.keys().copied().collect::<BTreeSet<&'a Task>>();
    let tasks = view.one_recipe(common(rows.values().flatten().map(of_row)).unwrap_or_default());
    let mut tunings = BTreeSet::new();
    for (method, steps) in found {
        let cells = rows[method].iter().flat_map(|row| tasks.iter().filter_map(move |task| row.get(task)));
        let Some(pairs) = common(cells.map(pairs_of)) else { continue };
        let mut tickets: BTreeMap<&TicketKey, Vec<&Score>> = BTreeMap::new();
        for score in steps.into_values().flatten().filter(|score| pairs.contains(&seeds_of(score))) {
            tickets.entry(&score.ticket).or_default().push(score);
        }
        for (ticket, scores) in tickets {
            let Some(average) = mean_of_tasks(&row(scores), &tasks) else { continue };
            let at = methods.entry(method.clone()).or_default().entry(ticket.steps).or_default();
            at.score.push((average.summary.mean, average.runs));
            at.seeds.insert(ticket.seed);
        }
        tunings.extend(pairs.into_iter().map(|(_, tuning)| tuning));
    }
    let tasks = if tunings.is_empty() { Vec::new() } else { tasks };
    let dense = view.dense_average(&tasks, &tunings);
    (tasks, dense)
}

/// The seconds of a search up to a step, from its log, or from its result at its end.
fn seconds(view: &View<'_>, run: usize, steps: u64) -> Option<f64> {
    let run = &view.study.runs[run];
    let directory = run.directory.as_ref()?;
    if run.labels.steps == Some(steps) {
        return run.number("seconds").or(run.seconds);
    }
    let log = fs::read_to_string(directory.join("log.jsonl")).ok()?;
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

fn figures(view: &View<'_>, level: Level, curves: &Curves<'_>) -> Result<Vec<Figure>> {
    type Horizontal = (&'static str, &'static str, fn(u64, &At) -> Option<f64>);
    let axes: [Horizontal; 3] = [
        ("steps", "steps", |steps, _| Some(steps as f64)),
        ("operations", "floating-point operations", |_, at| at.flop),
        ("seconds", "seconds", |_, at| at.seconds),
    ];
    let dense = |measure: Measure| match measure {
        Measure::Loss(LossKind::Mlm) => view.dense_loss(LossKind::Mlm).map(|(loss, _)| loss),
        Measure::Loss(LossKind::Kd) => None,
        Measure::Score => curves.dense,
    };
    let mut figures = Vec::new();
    for measure in Measure::ALL {
        for (short, label, value) in axes {
            let mut series = Vec::new();
            for (method, steps) in &curves.methods {
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
fn counted(curves: &Curves<'_>) -> Vec<f64> {
    let steps: BTreeSet<u64> = curves.methods.values().flat_map(BTreeMap::keys).copied().collect();
    steps.into_iter().map(|steps| steps as f64).collect()
}

fn table(view: &View<'_>, level: Level, curves: &Curves<'_>) -> Table {
    let mut rows = Vec::new();
    for (method, steps) in &curves.methods {
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
    let scores = curves.over_tasks().map_or_else(String::new, |tasks| format!("; scores {tasks}"));
    Table {
        id: view.id(&format!("steps-{}", level.slug())),
        caption: format!("Tickets at {level} sparsity{} after different numbers of steps{scores}.", view.of_base()),
        columns: ["method", "steps", "operations", "time", "MLM loss", "KD loss", "average score"]
            .map(Column::new)
            .into(),
        rows,
    }
}
