//! The paper's figure: scores against losses, every ticket a point.

use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate::{Row, row};
use crate::document::{Block, Cell, Column, Figure, Number, Section, Statistic, Table, fixed};
use crate::error::Result;
use crate::figure::chart::{Chart, Point, Series};
use crate::figure::ticks::Axis;
use crate::names::{Level, Method, Task, count, list};
use crate::sections::view::{LossKind, View, common, mean_of_tasks, row_of_seeds, slug, tuning_seeds};
use crate::stats::rank::{LEAST_CLUSTERS, RESAMPLES, RankCorrelation};
use crate::study::{Loss, Score, TicketKey};

/// The losses of a ticket.
struct Losses {
    mlm: Option<f64>,
    kd: Option<f64>,
    runs: Vec<usize>,
}

impl Losses {
    /// The losses of a ticket; `None` where it has none.
    fn of(view: &View<'_>, ticket: &TicketKey) -> Option<Self> {
        let losses: Vec<&Loss> = view.all_losses().filter(|loss| loss.ticket == *ticket).collect();
        let value = |kind: LossKind| losses.iter().find_map(|loss| kind.of(loss));
        let (mlm, kd) = (value(LossKind::Mlm), value(LossKind::Kd));
        (mlm.is_some() || kd.is_some()).then(|| Self { mlm, kd, runs: losses.iter().map(|loss| loss.run).collect() })
    }

    /// All digits of both losses; `None` where one is missing.
    fn digits(&self) -> Option<(u64, u64)> {
        Some((self.mlm?.to_bits(), self.kd?.to_bits()))
    }
}

/// A ticket with its losses and its score.
struct Ticket {
    key: TicketKey,
    score: f64,
    losses: Losses,
    runs: Vec<usize>,
}

impl Ticket {
    fn loss(&self, kind: LossKind) -> Option<f64> {
        match kind {
            LossKind::Mlm => self.losses.mlm,
            LossKind::Kd => self.losses.kd,
        }
    }

    /// What the ticket shares with those that it depends on: seeds of a method and steps of a search have masks that
    /// are alike. The method includes the scope.
    fn group(&self) -> (&Method, Level) {
        (&self.key.method, self.key.level)
    }
}

/// A ticket with its losses and its scores on the tasks of a target.
struct Measured<'a> {
    key: &'a TicketKey,
    row: Row<'a>,
    losses: Losses,
}

impl Measured<'_> {
    /// The ticket with its average over tasks and these seeds of fine-tuning.
    fn over(self, tasks: &[&Task], tunings: &BTreeSet<Option<u64>>) -> Option<Ticket> {
        let average = mean_of_tasks(&row_of_seeds(&self.row, tunings), tasks)?;
        // Equal means are ties, whatever the order of their terms leaves in the last bits.
        let score = (average.summary.mean * 1e9).round() / 1e9;
        let runs = average.runs.iter().chain(&self.losses.runs).copied().collect();
        Some(Ticket { key: self.key.clone(), score, losses: self.losses, runs })
    }
}

/// A score, the average over tasks or that of one task, with the tickets that have it.
struct Target<'a> {
    task: Option<&'a Task>,
    /// The dense model's score.
    dense: Option<f64>,
    tickets: Vec<Ticket>,
    correlations: Vec<Found>,
}

impl<'a> Target<'a> {
    fn average(view: &View<'a>) -> Self {
        Self::new(view, None, &view.average_tasks())
    }

    /// Each task by itself, with tickets that have no score on the others, too; none where a single task is the average.
    fn of_each_task(view: &View<'a>) -> Vec<Self> {
        let tasks: BTreeSet<&Task> = view.all_scores().map(|score| &score.task).collect();
        let targets = tasks.into_iter().map(|task| Self::new(view, Some(task), &[task]));
        let targets: Vec<Self> = targets.filter(Self::has_enough).collect();
        if targets.len() > 1 { targets } else { Vec::new() }
    }

    fn new(view: &View<'a>, task: Option<&'a Task>, tasks: &[&Task]) -> Self {
        let measured = measured(view, tasks);
        // The luck of a seed that one sparsity has and another does not have would look like an effect of the sparsity.
        let seeds = || measured.iter().flat_map(|ticket| ticket.row.values()).map(tuning_seeds);
        let tunings = common(seeds()).unwrap_or_else(|| seeds().flatten().collect());
        let tickets: Vec<Ticket> = measured.into_iter().filter_map(|ticket| ticket.over(tasks, &tunings)).collect();
        Self { task, dense: view.dense_average(tasks, &tunings), correlations: correlations(&tickets), tickets }
    }

    fn has_enough(&self) -> bool {
        self.tickets.len() >= 3
    }

    fn name(&self) -> String {
        self.task.map_or_else(|| "average".to_owned(), ToString::to_string)
    }

    /// The correlation with a loss over the tickets of all sparsities.
    fn overall(&self, kind: LossKind) -> Option<&Found> {
        self.correlations.iter().find(|found| found.kind == kind && found.level.is_none())
    }
}

/// The section; `None` with fewer than three tickets that have a loss and a score.
pub(super) fn section(views: &[View<'_>]) -> Result<Option<(Section, Vec<String>)>> {
    let (mut blocks, mut findings) = (Vec::new(), Vec::new());
    for view in views {
        let average = Target::average(view);
        if !average.has_enough() {
            continue;
        }
        let tasks = Target::of_each_task(view);
        let sentences = sentences(view, &average);
        findings.extend(sentences.iter().take(2).cloned());
        blocks.extend(sentences.into_iter().chain(sentence_of_tasks(view, &tasks)).map(Block::Finding));
        let caption = format!(
            "Every ticket is a point: its score, the average over tasks and over the tuning seeds that all tickets \
             have (over all of its own where they have none in common), against its loss on held-out text{}. Tickets \
             with one mask are one point. Dashed: the average score of the dense model.",
            view.of_base()
        );
        blocks.push(Block::Figures(overall(view, &average)?, caption));
        let levels: BTreeSet<Level> = average.tickets.iter().map(|ticket| ticket.key.level).collect();
        if levels.len() > 1 {
            let caption = format!("The same tickets, a panel for each sparsity{}.", view.of_base());
            blocks.push(Block::Figures(by_level(view, &average, &levels)?, caption));
        }
        blocks.push(Block::Table(table(view, "rank-correlation", &[average])));
        if !tasks.is_empty() {
            blocks.push(of_tasks(view, &tasks)?);
        }
    }
    Ok((!blocks.is_empty()).then(|| {
        let title = "Scores against losses".to_owned();
        (Section { id: "correlation", title, short: "Score vs. loss".to_owned(), blocks }, findings)
    }))
}

/// The figures and correlations of single tasks.
fn of_tasks(view: &View<'_>, tasks: &[Target<'_>]) -> Result<Block> {
    let mut figures = Vec::new();
    for target in tasks {
        figures.extend(overall(view, target)?);
    }
    let caption = format!(
        "Every ticket with a score on the task is a point: the mean over the tuning seeds that all of them have, \
         against its loss on held-out text{}. Dashed: the score of the dense model.",
        view.of_base()
    );
    let blocks = vec![Block::Table(table(view, "rank-correlation-tasks", tasks)), Block::Figures(figures, caption)];
    Ok(Block::Details(format!("Scores of single tasks against losses{}", view.of_base()), blocks))
}

/// Tickets of all methods, sparsities, seeds and steps with a loss and a score on each of `tasks`. Of tickets with one
/// mask, as after no step of several searches, the first one stands for all.
fn measured<'a>(view: &View<'a>, tasks: &[&Task]) -> Vec<Measured<'a>> {
    let mut scores: BTreeMap<&'a TicketKey, Vec<&'a Score>> = BTreeMap::new();
    for score in view.all_scores().filter(|score| view.study.has_main_examples(score)) {
        if !score.ticket.method.is_dense() && tasks.contains(&&score.task) {
            scores.entry(&score.ticket).or_default().push(score);
        }
    }
    let (mut tickets, mut known) = (Vec::new(), BTreeSet::new());
    for (key, scores) in scores {
        let row: Row<'a> = row(scores);
        let Some(losses) = Losses::of(view, key).filter(|_| row.len() == tasks.len()) else { continue };
        // Two masks with both losses equal to the last digit are one mask.
        if losses.digits().is_none_or(|digits| known.insert((key.level, digits))) {
            tickets.push(Measured { key, row, losses });
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
    let mut levels: BTreeSet<Level> = tickets.iter().map(|ticket| ticket.key.level).collect();
    if levels.len() == 1 {
        // Its rows would repeat those of all tickets.
        levels.clear();
    }
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
            let groups: Vec<(&Method, Level)> = chosen.iter().map(|ticket| ticket.group()).collect();
            let runs = chosen.iter().flat_map(|ticket| ticket.runs.iter().copied()).collect();
            let correlation = RankCorrelation::of_clusters(&losses, &scores, &groups);
            found.extend(correlation.map(|correlation| Found { kind, level, correlation, runs }));
        }
    }
    found
}

fn sentences(view: &View<'_>, average: &Target<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    for Found { kind, correlation, .. } in LossKind::ALL.into_iter().filter_map(|kind| average.overall(kind)) {
        let RankCorrelation { n, clusters, rho, interval } = *correlation;
        let verdict = match (correlation.is_clear(), rho < 0.0) {
            (true, true) => "tickets with a lower loss score higher",
            (true, false) => "tickets with a higher loss score higher, against the paper's claim",
            (false, _) if interval.is_some() => "the interval includes 0, so that no relation is shown",
            (false, _) => "these are too few groups for an interval, so that no relation is shown",
        };
        let interval = match interval {
            Some((low, high)) => format!(" (95 % interval {} to {})", fixed(low, 2), fixed(high, 2)),
            None => String::new(),
        };
        sentences.push(format!(
            "Over {} in {} of a method at a sparsity{}, the rank correlation of score and {} is {}{interval}: \
             {verdict}.",
            count(n, "ticket"),
            count(clusters, "group"),
            view.of_base(),
            kind.title(),
            fixed(rho, 2)
        ));
    }
    let inside: Vec<&Found> = average.correlations.iter().filter(|found| found.level.is_some()).collect();
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

/// The tasks on which a lower loss goes with a higher score.
fn sentence_of_tasks(view: &View<'_>, tasks: &[Target<'_>]) -> Option<String> {
    let clear = |kind: LossKind| {
        let clear = |found: &Found| found.correlation.is_clear() && found.correlation.rho < 0.0;
        let names: Vec<String> =
            tasks.iter().filter(|target| target.overall(kind).is_some_and(clear)).map(Target::name).collect();
        let names = if names.is_empty() { "on none".to_owned() } else { format!("on {}", list(&names)) };
        format!("with the {} {names}", kind.title())
    };
    (!tasks.is_empty()).then(|| {
        format!(
            "Of {}{}, the correlation is negative beyond its interval {}, and {}.",
            count(tasks.len(), "single task"),
            view.of_base(),
            clear(LossKind::Mlm),
            clear(LossKind::Kd)
        )
    })
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

fn scatter(view: &View<'_>, target: &Target<'_>, title: String, tickets: &[&Ticket], kind: LossKind) -> Result<String> {
    let series = points(tickets, kind)
        .into_iter()
        .map(|(method, points)| Series { joined: false, ..view.curve(&method, points) });
    let chart = Chart {
        title,
        x: Axis { label: format!("{}, {}", kind.title(), kind.unit()), ..Axis::default() },
        y: Axis { label: format!("{} score", target.name()), ..Axis::default() },
        series: series.collect(),
        dense: target.dense,
    };
    chart.draw()
}

fn overall(view: &View<'_>, target: &Target<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in LossKind::ALL {
        let tickets: Vec<&Ticket> = target.tickets.iter().filter(|ticket| ticket.loss(kind).is_some()).collect();
        if tickets.is_empty() {
            continue;
        }
        let (id, title) = match target.task {
            None => (format!("score-{}", kind.slug()), format!("score against {}", kind.title())),
            Some(task) => (
                format!("score-{}-{}", slug(&task.to_string()), kind.slug()),
                format!("{task}: score against {}", kind.title()),
            ),
        };
        let svg = scatter(view, target, title.clone(), &tickets, kind)?;
        figures.push(Figure { id: view.id(&id), title, svg, wide: false });
    }
    Ok(figures)
}

fn by_level(view: &View<'_>, average: &Target<'_>, levels: &BTreeSet<Level>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in LossKind::ALL {
        for level in levels {
            let of_level = |ticket: &&Ticket| ticket.key.level == *level && ticket.loss(kind).is_some();
            let chosen: Vec<&Ticket> = average.tickets.iter().filter(of_level).collect();
            if chosen.is_empty() {
                continue;
            }
            let title = format!("{level}: score against {}", kind.title());
            let id = view.id(&format!("score-{}-{}", kind.slug(), level.slug()));
            let svg = scatter(view, average, title.clone(), &chosen, kind)?;
            figures.push(Figure { id, title, svg, wide: false });
        }
    }
    Ok(figures)
}

fn table(view: &View<'_>, id: &str, targets: &[Target<'_>]) -> Table {
    let row = |target: &Target<'_>, found: &Found| {
        let number = |value| Number::new(value, 2, Statistic::Derived, found.kind.key(), found.runs.clone());
        let RankCorrelation { n, clusters, rho, interval } = found.correlation;
        vec![
            Cell::text(target.name()),
            Cell::text(found.kind.title()),
            Cell::text(found.level.map_or_else(|| "all".to_owned(), |level| level.to_string())),
            Cell::text(n.to_string()),
            Cell::text(clusters.to_string()),
            Cell::Number(number(rho)),
            interval.map_or(Cell::Empty, |(low, high)| Cell::text(format!("{} to {}", fixed(low, 2), fixed(high, 2)))),
        ]
    };
    let rows = targets.iter().flat_map(|target| target.correlations.iter().map(|found| row(target, found)));
    Table {
        id: view.id(id),
        caption: format!(
            "Spearman's rank correlation of score and loss{}, with the 95 % interval of a percentile bootstrap \
             ({} samples; from {LEAST_CLUSTERS} groups on). The bootstrap draws groups of tickets: those of a method \
             at a sparsity, of all seeds and steps, as they depend on each other. Tickets with one mask count once. \
             −1: a lower loss always means a higher score.",
            view.of_base(),
            fixed(RESAMPLES as f64, 0)
        ),
        columns: ["score", "loss", "sparsity", "tickets", "groups", "rank correlation", "95 % interval"]
            .map(Column::new)
            .into(),
        rows: rows.collect(),
    }
}
