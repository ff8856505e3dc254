//! Iterative pruning with a fixed number of steps for each round: one run writes the tickets of all its levels.
//!
//! A level's ticket depends on the rounds up to it alone, so a run to 0.7 writes the bits that a run to 0.5 would write.
//! For this the learning rate must not depend on the last level: without another setting it falls towards eight rounds, all
//! that there can be, in each round anew.

use crate::commands::Verb;
use crate::expand::point::Point;
use crate::expand::{Expander, Planned, Runs, command, extended, flag};
use crate::labels::Labels;
use crate::plan::Flags;
use crate::run::{Run, Source, Ticket, level_folder};

/// Rounds to the highest level, 0.9: one ahead of each pruning but the first.
const ALL_ROUNDS: u64 = 8;

/// Searches that differ in the sparsity only.
pub(super) struct Family<'a> {
    /// The flags but for the sparsity.
    shared: Flags,
    members: Vec<Point<'a>>,
}

/// A level of a family: the search that ends there.
struct Level {
    sparsity: f64,
    run: Run,
}

impl<'a> Family<'a> {
    /// Adds a search to its family.
    pub(super) fn collect(families: &mut Vec<Self>, mut point: Point<'a>) {
        let per_round = point.flags.value("steps-per-round").and_then(|steps| steps.parse::<u64>().ok());
        if let (Some(steps), None) = (per_round, point.flags.get("lr-horizon-steps")) {
            point.flags.set(flag("lr-horizon-steps", point.grid.line, steps.saturating_mul(ALL_ROUNDS).to_string()));
        }
        let mut shared = point.flags.clone();
        shared.remove("sparsity");
        match families.iter_mut().find(|family| family.shared == shared) {
            Some(family) => family.members.push(point),
            None => families.push(Self { shared, members: vec![point] }),
        }
    }
}

/// The tenths of a sparsity, if it is a whole number of them.
fn tenths(sparsity: f64) -> Option<u64> {
    let tenths = (sparsity * 10.0).round();
    ((tenths / 10.0 - sparsity).abs() < 1e-9).then_some(tenths as u64)
}

impl Expander<'_> {
    /// Adds the run to the highest level of a family, and one to each sparsity between the levels.
    pub(super) fn family(&self, family: &Family<'_>, runs: &mut Runs, planned: &mut Vec<Planned>) {
        if let Some(axis) = family.members.first().and_then(|point| point.grid.axis("steps")) {
            self.problems.add(axis.line, "`steps` and `steps-per-round` exclude each other");
            return;
        }
        let lowest = family.members.iter().filter_map(|point| tenths(point.labels.sparsity?)).min();
        let highest = family.members.iter().filter_map(|point| tenths(point.labels.sparsity?)).max();
        let (Some(lowest), Some(highest)) = (lowest, highest) else {
            family.members.iter().for_each(|point| self.alone(point, runs, planned));
            return;
        };
        let Some(any) = family.members.first() else { return };
        // Runs beyond the highest level may be in the store, of another plan.
        let levels: Vec<Level> = (lowest..=9).filter_map(|tenth| self.level(any, tenth)).collect();
        let mut on_the_way = Vec::new();
        for point in &family.members {
            let Some(tenth) = point.labels.sparsity.and_then(tenths) else {
                self.alone(point, runs, planned);
                continue;
            };
            let Some(own) = levels.iter().position(|level| tenths(level.sparsity) == Some(tenth)) else { continue };
            let labels = levels[own].run.labels.clone();
            let ticket = ticket(&levels[own..], highest);
            planned.push(point.planned(ticket, labels));
            if tenth < highest {
                on_the_way.push(level_folder(levels[own].sparsity));
            }
        }
        if let Some(last) = levels.iter().position(|level| tenths(level.sparsity) == Some(highest)) {
            let mut run = levels[last].run.clone();
            run.levels = on_the_way;
            run.alternatives = ticket(&levels[last..], highest).sources;
            run.alternatives.retain(|source| source.run != run.id);
            runs.add(any.order(), run);
        }
    }

    /// The search of a family that ends at a number of tenths.
    fn level(&self, point: &Point<'_>, tenth: u64) -> Option<Level> {
        let sparsity = tenth as f64 / 10.0;
        let mut flags = point.flags.clone();
        flags.set(flag("sparsity", point.grid.line, sparsity.to_string()));
        let labels = Labels { sparsity: Some(sparsity), ..point.labels.clone() };
        let words = extended(command(Verb::Find, point.base), &flags);
        let resolved = self.resolve(&words, point.grid.line, &labels.method)?;
        let id = self.identity(Verb::Find, &resolved, None, point.base.line)?;
        let labels = Labels { steps: resolved.steps, ..labels };
        Some(Level { sparsity, run: point.run(id, words, labels) })
    }

    /// A sparsity between the levels has a run of its own.
    fn alone(&self, point: &Point<'_>, runs: &mut Runs, planned: &mut Vec<Planned>) {
        let words = point.words();
        let Some(resolved) = self.resolve(&words, point.grid.line, &point.labels.method) else { return };
        let Some(id) = self.identity(Verb::Find, &resolved, None, point.base.line) else { return };
        let labels = Labels { steps: resolved.steps, ..point.labels.clone() };
        let run = point.run(id, words, labels.clone());
        planned.push(point.planned(run.ticket_after(None), labels));
        runs.add(point.order(), run);
    }
}

/// The ticket of the first of `levels`: the searches to its level and to each higher one write it. The plan runs the one to
/// `highest`.
fn ticket(levels: &[Level], highest: u64) -> Ticket {
    let folder = level_folder(levels[0].sparsity);
    let source = |(at, level): (usize, &Level)| {
        let folder = (at > 0).then(|| folder.clone());
        (level.sparsity, Source { run: level.run.id.clone(), name: level.run.name.clone(), folder })
    };
    let mut sources: Vec<(f64, Source)> = levels.iter().enumerate().map(source).collect();
    sources.sort_by_key(|(sparsity, _)| tenths(*sparsity) == Some(highest));
    Ticket { id: levels[0].run.id.clone(), sources: sources.into_iter().map(|(_, source)| source).collect() }
}
