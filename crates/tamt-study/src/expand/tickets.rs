//! The searches of a plan.

use std::collections::BTreeSet;
use std::iter;

use crate::commands::{MethodTraits, PathKind, Verb};
use crate::expand::point::Point;
use crate::expand::rounds::Family;
use crate::expand::{Expander, Planned, Runs, command, extended, flag};
use crate::labels::Labels;
use crate::plan::{Base, Flag, Flags, Grid, Section, Setting, Word};

impl Expander<'_> {
    /// Adds the searches of a base, and returns the tickets that losses and tasks use.
    pub(super) fn tickets(&self, base: &Base, runs: &mut Runs) -> Vec<Planned> {
        let Some(section) = &self.plan.tickets else { return Vec::new() };
        let mut planned = Vec::new();
        for (number, grid) in section.grids.iter().enumerate() {
            let mut families: Vec<Family<'_>> = Vec::new();
            for axis in ["methods", "sparsities"] {
                if grid.axis(axis).is_none() {
                    self.problems.add(grid.line, format!("[tickets] has no `{axis}`"));
                }
            }
            for point in self.points(base, section, grid, number) {
                if !point.traits.in_rounds {
                    self.search(&point, runs, &mut planned);
                } else if point.flags.get("steps-per-round").is_some() {
                    Family::collect(&mut families, point);
                } else {
                    self.rounds_of_given_total(&point, runs, &mut planned);
                }
            }
            families.iter().for_each(|family| self.family(family, runs, &mut planned));
        }
        let mut seen = BTreeSet::new();
        planned.retain(|planned| seen.insert(planned.ticket.id.clone()));
        planned
    }

    /// The combinations of a grid's axes.
    fn points<'a>(&self, base: &'a Base, section: &Section, grid: &'a Grid, grid_number: usize) -> Vec<Point<'a>> {
        let mut points = Vec::new();
        for method in grid.values("methods") {
            let Some(traits) = self.commands.method(&method.text) else { continue };
            let flags = self.flags_of_method(base, section, grid, method, traits);
            if traits.trains && flags.get("corpus").is_none() {
                let problem = format!("{} trains on text, and base `{}` has no `corpus`", method.text, base.name);
                self.problems.add(method.line, problem);
                continue;
            }
            let default = |text: &str| vec![Word { text: text.to_owned(), line: grid.line }];
            let values = |axis: &str, usual: &str| {
                if grid.axis(axis).is_some() { grid.values(axis).to_vec() } else { default(usual) }
            };
            let optional = |axis: &str, usual: &str, used: bool| -> Vec<Option<Word>> {
                if used { values(axis, usual).into_iter().map(Some).collect() } else { vec![None] }
            };
            for sparsity in grid.values("sparsities") {
                let Ok(share) = sparsity.text.parse::<f64>() else { continue };
                for scope in values("scopes", "local") {
                    for start in optional("starts", "magnitude", traits.trains_masks) {
                        for (round, seed) in optional("seeds", "42", traits.draws).into_iter().enumerate() {
                            let labels = Labels {
                                base: base.name.clone(),
                                method: method.text.clone(),
                                sparsity: Some(share),
                                scope: Some(scope.text.clone()),
                                start: start.as_ref().map(|start| start.text.clone()),
                                ticket_seed: seed.as_ref().and_then(|seed| seed.text.parse().ok()),
                                ..Labels::default()
                            };
                            let mut flags = flags.clone();
                            let axes = [("method", Some(method)), ("scope", Some(&scope)), ("init", start.as_ref())];
                            for (name, word) in axes.into_iter().chain(iter::once(("seed", seed.as_ref()))) {
                                if let Some(word) = word {
                                    flags.set(flag(name, word.line, &word.text));
                                }
                            }
                            flags.set(flag("sparsity", sparsity.line, share.to_string()));
                            points.extend(flags.combinations().into_iter().map(|(choice, flags)| {
                                let labels = labels.clone();
                                Point { base, grid, traits, labels, choice, flags, grid_number, round }
                            }));
                        }
                    }
                }
            }
        }
        points
    }

    /// The flags for a method. Flags of the section and the grid that have no effect on the method are left out; a flag
    /// that is given for the method alone is a mistake then.
    fn flags_of_method(
        &self,
        base: &Base,
        section: &Section,
        grid: &Grid,
        method: &Word,
        traits: MethodTraits,
    ) -> Flags {
        let own = section.overrides.get(&method.text).map(|(_, flags)| flags.clone()).unwrap_or_default();
        let mut flags = section.flags.under(&own, Verb::Find, self.commands);
        flags = flags.under(&grid.flags, Verb::Find, self.commands);
        if traits.trains && flags.get("corpus").is_none() && !base.corpus.is_empty() {
            let setting = Setting::Values(base.corpus.clone());
            flags.set(Flag { name: "corpus".to_owned(), line: base.line, setting });
        }
        // What matters to a ticket that a search starts from matters to the axis, if one of its values is a ticket.
        let masks = match self.commands.path(Verb::Find, "init") {
            Some(PathKind::PathOrKeyword(masks)) => masks,
            _ => &[],
        };
        let start = grid.values("starts").iter().find(|start| !masks.contains(&start.text.as_str()));
        let without_effect = |flags: &Flags| -> BTreeSet<String> {
            let mut words = extended(command(Verb::Find, base), flags);
            words.extend([format!("--method={}", method.text), "--sparsity=0.5".to_owned()]);
            words.extend(start.map(|start| format!("--init={}", start.text)));
            self.commands.without_effect(&words).into_iter().collect()
        };
        // A flag that has an effect beside one of the choices of another flag stays beside all of them.
        let unused = flags.combinations().iter().map(|(_, flags)| without_effect(flags)).reduce(|all, one| &all & &one);
        for name in unused.unwrap_or_default() {
            if let Some(flag) = own.get(&name) {
                self.problems.add(flag.line, format!("`{name}` has no effect with {}", method.text));
            }
            flags.remove(&name);
        }
        flags
    }

    /// A search whose tickets on the way are of one run.
    fn search(&self, point: &Point<'_>, runs: &mut Runs, planned: &mut Vec<Planned>) {
        let steps = if point.traits.trains { point.grid.values("steps") } else { &[] };
        let numbers: Vec<(u64, usize)> = steps.iter().filter_map(|w| Some((w.text.parse().ok()?, w.line))).collect();
        let mut flags = point.flags.clone();
        let gives_length = ["max-steps", "preset"].iter().any(|name| flags.get(name).is_some());
        if let (Some(&(last, line)), false) = (numbers.iter().max(), gives_length) {
            if last == 0 {
                self.problems.add(line, "`steps` has 0 alone: that is the first mask, of no run");
                return;
            }
            flags.set(flag("max-steps", line, last.to_string()));
        }
        let words = extended(command(Verb::Find, point.base), &flags);
        let Some(resolved) = self.resolve(&words, point.grid.line, &point.labels.method) else { return };
        let Some(id) = self.identity(Verb::Find, &resolved, None, point.base.line) else { return };
        let total = resolved.steps.filter(|_| point.traits.trains);
        let labels = Labels { steps: total, ..point.labels.clone() };
        let mut run = point.run(id, words, labels.clone());
        for &(_, line) in numbers.iter().filter(|(step, _)| Some(*step) > total) {
            self.problems.add(line, format!("`steps`: the run has only {} steps", total.unwrap_or(0)));
        }
        run.ticket_steps = numbers.iter().map(|(step, _)| *step).filter(|step| Some(*step) < total).collect();
        run.ticket_steps.sort_unstable();
        let wanted: Vec<Option<u64>> =
            if numbers.is_empty() { vec![total] } else { numbers.iter().map(|(step, _)| Some(*step)).collect() };
        for steps in wanted {
            let ticket = run.ticket_after(steps.filter(|_| steps != total));
            planned.push(point.planned(ticket, Labels { steps, ..labels.clone() }));
        }
        runs.add(point.order(), run);
    }

    /// Searches in rounds: each number of steps is a run of its own, in which all rounds fit.
    fn rounds_of_given_total(&self, point: &Point<'_>, runs: &mut Runs, planned: &mut Vec<Planned>) {
        let axis = point.grid.values("steps").to_vec();
        let totals: Vec<Option<Word>> = if axis.is_empty() { vec![None] } else { axis.into_iter().map(Some).collect() };
        for total in totals {
            let mut flags = point.flags.clone();
            if let Some(word) = &total {
                if word.text == "0" {
                    let problem = "`steps`: iterative pruning takes at least one step; give it a grid of its own";
                    self.problems.add(word.line, problem);
                    continue;
                }
                flags.set(flag("max-steps", word.line, &word.text));
            }
            let words = extended(command(Verb::Find, point.base), &flags);
            let line = total.map_or(point.grid.line, |word| word.line);
            let Some(resolved) = self.resolve(&words, line, &point.labels.method) else { continue };
            let Some(id) = self.identity(Verb::Find, &resolved, None, point.base.line) else { continue };
            let labels = Labels { steps: resolved.steps, ..point.labels.clone() };
            let run = point.run(id, words, labels.clone());
            planned.push(point.planned(run.ticket_after(None), labels));
            runs.add(point.order(), run);
        }
    }
}
