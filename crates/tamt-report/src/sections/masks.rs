//! How alike masks are, and how far from their start.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Block, Figure, Section, fixed};
use crate::error::Result;
use crate::figure::chart::{Chart, Point, Series};
use crate::figure::heat::{Field, Heat};
use crate::figure::theme::look;
use crate::figure::ticks::Axis;
use crate::names::{Level, Method};
use crate::sections::view::View;
use crate::stats::summary::Summary;
use crate::study::{TicketFile, TicketKey};
use crate::ticket::{Ticket, TicketReader};

/// Most tickets of a heat map.
const MOST: usize = 24;

/// The section; `None` with fewer than two tickets, unless some cannot be read, whose reasons it has.
pub(super) fn section(views: &[View<'_>], reader: &dyn TicketReader) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for view in views {
        let files: Vec<&TicketFile> = view.study.tickets.iter().filter(|file| file.ticket.base == view.base).collect();
        let levels: BTreeSet<Level> = files.iter().map(|file| file.ticket.level).collect();
        let (mut maps, mut distances, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        let mut likeness = Vec::new();
        // The masks of one sparsity at a time are in memory.
        for level in levels {
            let chosen: Vec<&TicketFile> = files.iter().copied().filter(|file| file.ticket.level == level).collect();
            let mut tickets = Vec::new();
            for file in chosen {
                let Some(path) = &file.path else { continue };
                match reader.read(path) {
                    Ok(ticket) => tickets.push((file, ticket)),
                    Err(reason) => unread.push(format!("{}: {reason}", view.study.runs[file.run].name)),
                }
            }
            likeness.extend(sentence(view, level, &tickets));
            maps.extend(similarity(view, level, &tickets)?);
            distances.extend(distance(view, level, &tickets)?);
        }
        blocks.extend(likeness.into_iter().map(Block::Finding));
        if !maps.is_empty() {
            let caption = format!(
                "Similarity of masks{}: weights that both tickets keep over weights that either keeps (Jaccard index), \
                 the unweighted mean over matrices. Two random masks of density d have d / (2 − d) on average.",
                view.of_base()
            );
            blocks.push(Block::Figures(maps, caption));
        }
        if !distances.is_empty() {
            let caption = format!(
                "Distance of trained masks from the magnitude masks that they start from{}: one minus the Jaccard \
                 index, against optimiser steps. Bands: ± one sample deviation over ticket seeds.",
                view.of_base()
            );
            blocks.push(Block::Figures(distances, caption));
        }
        blocks.extend(unread.into_iter().map(|reason| Block::Text(format!("A ticket is left out. {reason}"))));
    }
    let title = "Similarity of masks".to_owned();
    Ok((!blocks.is_empty()).then(|| Section { id: "masks", title, short: "Masks".to_owned(), blocks }))
}

fn name(ticket: &TicketKey, seeds: bool) -> String {
    match ticket.seed.filter(|_| seeds) {
        Some(seed) => format!("{}, seed {seed}", ticket.method),
        None => ticket.method.to_string(),
    }
}

/// How alike the masks of two seeds of a method, and of two methods under one scope, are; random masks left out. A pair
/// of methods counts once, whatever its number of seeds.
fn sentence(view: &View<'_>, level: Level, tickets: &[(&TicketFile, Ticket)]) -> Option<String> {
    let shown: Vec<&(&TicketFile, Ticket)> = tickets
        .iter()
        .filter(|(file, _)| view.study.is_main(&file.ticket) && file.ticket.method.name != "random")
        .collect();
    let scope = |file: &TicketFile| view.study.runs[file.run].labels.scope.as_deref().unwrap_or("local");
    let mut found: BTreeMap<(&Method, &Method), Vec<f64>> = BTreeMap::new();
    for (i, (a, mine)) in shown.iter().enumerate() {
        for (b, theirs) in &shown[i + 1..] {
            let (first, second) = (&a.ticket.method, &b.ticket.method);
            if first == second || (first.name != second.name && scope(a) == scope(b)) {
                let pair = if first <= second { (first, second) } else { (second, first) };
                found.entry(pair).or_default().extend(mine.jaccard(theirs));
            }
        }
    }
    let part = |of_one: bool, what: &str| {
        let pairs = found.iter().filter(|(pair, _)| (pair.0 == pair.1) == of_one);
        let means: Vec<f64> = pairs.filter_map(|(_, values)| Some(Summary::of(values)?.mean)).collect();
        Summary::of(&means).map(|summary| format!("{} between {what}", fixed(summary.mean, 2)))
    };
    let parts: Vec<String> =
        part(true, "two seeds of a method").into_iter().chain(part(false, "two methods under one scope")).collect();
    let density = 1.0 - level.percent() / 100.0;
    let chance = fixed(density / (2.0 - density), 2);
    (!parts.is_empty()).then(|| {
        format!(
            "At {level}{}, similarity is on average {}; random masks have {chance}.",
            view.of_base(),
            parts.join(" and ")
        )
    })
}

fn similarity(view: &View<'_>, level: Level, tickets: &[(&TicketFile, Ticket)]) -> Result<Option<Figure>> {
    let mut shown: Vec<&(&TicketFile, Ticket)> =
        tickets.iter().filter(|(file, _)| view.study.is_main(&file.ticket)).collect();
    shown.sort_by(|a, b| a.0.ticket.cmp(&b.0.ticket));
    shown.dedup_by(|a, b| a.0.ticket == b.0.ticket);
    let all = shown.len();
    shown.truncate(MOST);
    if shown.len() < 2 {
        return Ok(None);
    }
    let seeds: BTreeSet<u64> = shown.iter().filter_map(|(file, _)| file.ticket.seed).collect();
    let names: Vec<String> = shown.iter().map(|(file, _)| name(&file.ticket, seeds.len() > 1)).collect();
    let mut fields = Vec::new();
    for (i, (a, mine)) in shown.iter().enumerate() {
        let field = |(j, (b, theirs)): (usize, &&(&TicketFile, Ticket))| {
            let value = mine.jaccard(theirs)?;
            let tip = format!("{level}: {} and {}: {}", names[i], names[j], fixed(value, 3));
            Some(Field { value, tip, runs: vec![a.run, b.run] })
        };
        fields.push(shown.iter().enumerate().map(field).collect());
    }
    let cut = if all > MOST { format!(", the first {MOST} of {all} tickets") } else { String::new() };
    let title = format!("masks at {level}{cut}");
    let heat =
        Heat { title: title.clone(), rows: names.clone(), columns: names, fields, range: (0.0, 1.0), decimals: 2 };
    let id = view.id(&format!("similarity-{}", level.slug()));
    Ok(Some(Figure { id, title, svg: heat.draw()?, wide: heat.is_wide() }))
}

/// Distances with their runs, by steps.
type Distances = BTreeMap<u64, Vec<(f64, usize)>>;

/// Distances from the magnitude ticket of the same scope, of methods with tickets after different numbers of steps.
fn distance(view: &View<'_>, level: Level, tickets: &[(&TicketFile, Ticket)]) -> Result<Option<Figure>> {
    let scope = |file: &TicketFile| view.study.runs[file.run].labels.scope.clone();
    let started = |file: &TicketFile| view.study.runs[file.run].labels.start.as_deref() == Some("magnitude");
    let mut found: BTreeMap<&Method, Distances> = BTreeMap::new();
    for (file, ticket) in tickets.iter().filter(|(file, _)| started(file)) {
        let start = tickets
            .iter()
            .find(|(other, _)| view.study.runs[other.run].labels.method == "magnitude" && scope(other) == scope(file));
        let distance = start.and_then(|(_, start)| Some(1.0 - ticket.jaccard(start)?));
        let entry = found.entry(&file.ticket.method).or_default().entry(file.ticket.steps).or_default();
        entry.extend(distance.map(|distance| (distance, file.run)));
    }
    let methods = view.study.methods();
    let mut series = Vec::new();
    for (method, steps) in found {
        let point = |(steps, values): (u64, Vec<(f64, usize)>)| {
            let summary = Summary::of(&values.iter().map(|(value, _)| *value).collect::<Vec<_>>())?;
            Some(Point {
                x: steps as f64,
                y: summary.mean,
                deviation: summary.deviation,
                tip: format!("{method}, {steps} steps: distance {}", fixed(summary.mean, 3)),
                runs: values.iter().map(|(_, run)| *run).collect(),
            })
        };
        let points: Vec<Point> = steps.into_iter().filter_map(point).collect();
        if points.len() < 2 {
            continue;
        }
        let look = look(method, &methods);
        series.push(Series { label: method.to_string(), look, joined: true, points });
    }
    if series.is_empty() {
        return Ok(None);
    }
    let title = format!("distance from the start at {level}");
    let chart = Chart {
        title: title.clone(),
        x: Axis { label: "steps".to_owned(), log: true, ..Axis::default() },
        y: Axis { label: "1 − Jaccard index".to_owned(), ..Axis::default() },
        series,
        dense: None,
    };
    let id = view.id(&format!("distance-{}", level.slug()));
    Ok(Some(Figure { id, title, svg: chart.draw()?, wide: false }))
}
