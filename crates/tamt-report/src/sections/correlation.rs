//! The paper's figure: scores against losses, every ticket a point.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Row, row};
use crate::document::{Block, Cell, Column, Figure, Number, Section, Statistic, Table, fixed};
use crate::error::Result;
use crate::figure::chart::{Chart, Point, Series};
use crate::figure::ticks::Axis;
use crate::names::{Level, Method, count};
use crate::sections::view::{LossKind, View, mean_of_tasks};
use crate::stats::rank::{RESAMPLES, RankCorrelation};
use crate::study::{Score, TicketKey};

/// A ticket with its losses and its average score.
struct Ticket {
    key: TicketKey,
    score: f64,
    mlm: Option<f64>,
    kd: Option<f64>,
    runs: Vec<usize>,
}

impl Ticket {
    fn loss(&self, kind: LossKind) -> Option<f64> {
        match kind {
            LossKind::Mlm => self.mlm,
            LossKind::Kd => self.kd,
        }
    }
}

/// The section; `None` with fewer than three tickets that have a loss and a score.
pub(super) fn section(views: &[View<'_>]) -> Result<Option<(Section, Vec<String>)>> {
    let (mut blocks, mut findings) = (Vec::new(), Vec::new());
    for view in views {
        let tickets = tickets(view);
        if tickets.len() < 3 {
            continue;
        }
        let correlations = correlations(&tickets);
        let sentences = sentences(view, &correlations);
        findings.extend(sentences.iter().take(2).cloned());
        blocks.extend(sentences.into_iter().map(Block::Finding));
        let caption = format!(
            "Every ticket is a point: its score, the average over tasks and tuning seeds, against its loss on held-out \
             text{}. Dashed: the average score of the dense model.",
            view.of_base()
        );
        blocks.push(Block::Figures(overall(view, &tickets)?, caption));
        let levels: BTreeSet<Level> = tickets.iter().map(|ticket| ticket.key.level).collect();
        if levels.len() > 1 {
            let caption = format!("The same tickets, a panel for each sparsity{}.", view.of_base());
            blocks.push(Block::Figures(by_level(view, &tickets, &levels)?, caption));
        }
        blocks.push(Block::Table(table(view, &correlations)));
    }
    Ok((!blocks.is_empty()).then(|| {
        let title = "Scores against losses".to_owned();
        (Section { id: "correlation", title, short: "Score vs. loss".to_owned(), blocks }, findings)
    }))
}

/// Tickets of all methods, sparsities, seeds and steps with a score on every task and a loss.
fn tickets(view: &View<'_>) -> Vec<Ticket> {
    let mut scores: BTreeMap<&TicketKey, Vec<&Score>> = BTreeMap::new();
    for score in view.all_scores().filter(|score| view.study.has_main_examples(score)) {
        if !score.ticket.method.is_dense() {
            scores.entry(&score.ticket).or_default().push(score);
        }
    }
    let tasks = view.average_tasks();
    let mut tickets = Vec::new();
    for (key, scores) in scores {
        let row: Row<'_> = row(scores.iter().copied());
        let Some(average) = mean_of_tasks(&row, &tasks) else { continue };
        let losses: Vec<_> = view.all_losses().filter(|loss| loss.ticket == *key).collect();
        let loss = |kind: LossKind| losses.iter().find_map(|loss| kind.of(loss));
        let runs = average.runs.iter().copied().chain(losses.iter().map(|loss| loss.run)).collect();
        let (mlm, kd) = (loss(LossKind::Mlm), loss(LossKind::Kd));
        if mlm.is_some() || kd.is_some() {
            tickets.push(Ticket { key: key.clone(), score: average.summary.mean, mlm, kd, runs });
        }
    }
    tickets
}

/// A correlation over the tickets of one sparsity, or of all.
struct Found {
    kind: LossKind,
    level: Option<Level>,
    correlation: RankCorrelation,
    runs: Vec<usize>,
}

fn correlations(tickets: &[Ticket]) -> Vec<Found> {
    let levels: BTreeSet<Level> = tickets.iter().map(|ticket| ticket.key.level).collect();
    let scopes = std::iter::once(None).chain(levels.into_iter().map(Some));
    let mut found = Vec::new();
    for level in scopes {
        for kind in LossKind::ALL {
            let chosen: Vec<&Ticket> = tickets
                .iter()
                .filter(|ticket| level.is_none_or(|level| ticket.key.level == level) && ticket.loss(kind).is_some())
                .collect();
            let losses: Vec<f64> = chosen.iter().filter_map(|ticket| ticket.loss(kind)).collect();
            let scores: Vec<f64> = chosen.iter().map(|ticket| ticket.score).collect();
            let runs = chosen.iter().flat_map(|ticket| ticket.runs.iter().copied()).collect();
            found.extend(RankCorrelation::of(&losses, &scores).map(|correlation| Found {
                kind,
                level,
                correlation,
                runs,
            }));
        }
    }
    found
}

fn sentences(view: &View<'_>, found: &[Found]) -> Vec<String> {
    let mut sentences = Vec::new();
    for Found { kind, correlation, .. } in found.iter().filter(|found| found.level.is_none()) {
        let RankCorrelation { n, rho, interval } = *correlation;
        let interval = match interval {
            Some((low, high)) => format!(" (95 % interval {} to {})", fixed(low, 2), fixed(high, 2)),
            None => String::new(),
        };
        let verdict = match (correlation.is_clear(), rho < 0.0) {
            (true, true) => "tickets with a lower loss score higher",
            (true, false) => "tickets with a higher loss score higher, against the paper's claim",
            (false, _) => "the interval includes 0 or cannot be computed, so that no relation is shown",
        };
        sentences.push(format!(
            "Over {}{}, the rank correlation of score and {} is {}{interval}: {verdict}.",
            count(n, "ticket"),
            view.of_base(),
            kind.title(),
            fixed(rho, 2)
        ));
    }
    let inside: Vec<&Found> = found.iter().filter(|found| found.level.is_some()).collect();
    if inside.len() > 2 {
        let clear = inside.iter().filter(|found| found.correlation.is_clear() && found.correlation.rho < 0.0).count();
        sentences.push(format!(
            "Sparsity alone moves losses and scores together. Within a single sparsity, {clear} of {} correlations are \
             negative beyond their interval.",
            inside.len()
        ));
    }
    sentences
}

fn points(tickets: &[&Ticket], kind: LossKind) -> BTreeMap<Method, Vec<Point>> {
    let mut points: BTreeMap<Method, Vec<Point>> = BTreeMap::new();
    for ticket in tickets {
        let Some(loss) = ticket.loss(kind) else { continue };
        let TicketKey { method, level, steps, seed, .. } = &ticket.key;
        let steps = if *steps > 0 { format!(", {}", count(*steps as usize, "step")) } else { String::new() };
        let seed = seed.map_or(String::new(), |seed| format!(", seed {seed}"));
        let (shown, score) = (fixed(loss, kind.decimals()), fixed(ticket.score, 1));
        let tip = format!("{method}, {level}{steps}{seed}: {} {shown}, score {score}", kind.title());
        let point = Point { x: loss, y: ticket.score, deviation: None, tip, runs: ticket.runs.clone() };
        points.entry(method.clone()).or_default().push(point);
    }
    points
}

fn scatter(view: &View<'_>, title: String, tickets: &[&Ticket], kind: LossKind) -> Result<String> {
    let series = points(tickets, kind)
        .into_iter()
        .map(|(method, points)| Series { joined: false, ..view.curve(&method, points) });
    let dense = mean_of_tasks(&view.dense(), &view.average_tasks()).map(|average| average.summary.mean);
    let chart = Chart {
        title,
        x: Axis { label: format!("{}, {}", kind.title(), kind.unit()), ..Axis::default() },
        y: Axis { label: "average score".to_owned(), ..Axis::default() },
        series: series.collect(),
        dense,
    };
    chart.draw()
}

fn overall(view: &View<'_>, tickets: &[Ticket]) -> Result<Vec<Figure>> {
    let all: Vec<&Ticket> = tickets.iter().collect();
    let mut figures = Vec::new();
    for kind in LossKind::ALL {
        if all.iter().any(|ticket| ticket.loss(kind).is_some()) {
            let title = format!("score against {}", kind.title());
            let svg = scatter(view, title.clone(), &all, kind)?;
            figures.push(Figure { id: view.id(&format!("score-{}", kind.slug())), title, svg, wide: false });
        }
    }
    Ok(figures)
}

fn by_level(view: &View<'_>, tickets: &[Ticket], levels: &BTreeSet<Level>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in LossKind::ALL {
        for level in levels {
            let chosen: Vec<&Ticket> =
                tickets.iter().filter(|ticket| ticket.key.level == *level && ticket.loss(kind).is_some()).collect();
            if chosen.is_empty() {
                continue;
            }
            let title = format!("{level}: score against {}", kind.title());
            let id = view.id(&format!("score-{}-{}", kind.slug(), level.slug()));
            figures.push(Figure { id, title: title.clone(), svg: scatter(view, title, &chosen, kind)?, wide: false });
        }
    }
    Ok(figures)
}

fn table(view: &View<'_>, found: &[Found]) -> Table {
    let row = |found: &Found| {
        let number = |value| Number::new(value, 2, Statistic::Derived, found.kind.key(), found.runs.clone());
        let RankCorrelation { n, rho, interval } = found.correlation;
        vec![
            Cell::text(found.kind.title()),
            Cell::text(found.level.map_or_else(|| "all".to_owned(), |level| level.to_string())),
            Cell::text(n.to_string()),
            Cell::Number(number(rho)),
            interval.map_or(Cell::Empty, |(low, high)| Cell::text(format!("{} to {}", fixed(low, 2), fixed(high, 2)))),
        ]
    };
    Table {
        id: view.id("rank-correlation"),
        caption: format!(
            "Spearman's rank correlation of average score and loss{}, with the 95 % interval of a percentile bootstrap \
             over tickets ({} samples; from five tickets on). −1: a lower loss always means a higher score.",
            view.of_base(),
            fixed(RESAMPLES as f64, 0)
        ),
        columns: ["loss", "sparsity", "tickets", "rank correlation", "95 % interval"].map(Column::new).into(),
        rows: found.iter().map(row).collect(),
    }
}
