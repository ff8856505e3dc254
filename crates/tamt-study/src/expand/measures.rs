//! The losses and fine-tunings of a plan: of every chosen ticket, and of the dense model beside them.

use std::iter;

use crate::commands::{Resolved, Verb};
use crate::expand::{Expander, Order, Planned, Runs, command, extended, flag};
use crate::labels::{DENSE, Kind, Labels};
use crate::plan::{Base, Flag, Flags, Grid, Section, Setting, Word};
use crate::run::{Run, named, task_words};

/// Conditions under which losses compare: a ticket's own conditions take no precedence in a study.
const CONDITIONS: [&str; 3] = ["block-size", "mlm-probability", "seed"];

/// The flag for the model that a fine-tuning writes. A study of many runs keeps scores only, unless its plan says more.
const KEEP: (&str, &str) = ("keep", "none");

/// Flags that belong to a ticket, which the command of the dense model lacks.
const OF_A_TICKET: [&str; 2] = ["mlm-head", "dense-pooler"];

/// A command line with its meaning.
struct Call {
    words: Vec<String>,
    resolved: Resolved,
}

/// The command lines for the dense model and, but for its path, for a ticket.
struct Calls {
    dense: Call,
    ticket: Call,
}

/// A fine-tuning, or the measurement of losses, of the dense model and of tickets.
struct Fitting {
    calls: Calls,
    labels: Labels,
    choice: String,
    task_grid: usize,
    round: usize,
    line: usize,
}

impl Expander<'_> {
    /// Adds the losses of a base and of its tickets.
    pub(super) fn losses(&self, base: &Base, planned: &[Planned], runs: &mut Runs) {
        let Some(section) = &self.plan.losses else { return };
        if base.validation.is_empty() && section.flags.get("corpus").is_none() {
            let problem = format!("[losses] needs held-out text, and base `{}` has no `validation`", base.name);
            self.problems.add(section.line, problem);
            return;
        }
        for grid in &section.grids {
            let mut flags = section.flags.under(&grid.flags, Verb::Eval, self.commands);
            let setting = Setting::Values(base.validation.clone());
            flags.set(Flag { name: "corpus".to_owned(), line: base.line, setting });
            if let Some(size) = self.plan.tickets.as_ref().and_then(|tickets| tickets.flags.value("block-size"))
                && flags.get("block-size").is_none()
            {
                flags.set(flag("block-size", section.line, size));
            }
            let Some(flags) = self.with_conditions(base, grid, flags) else { continue };
            let Some(calls) = self.calls(Verb::Eval, base, &flags, grid.line, "eval") else { continue };
            let labels = Labels { base: base.name.clone(), ..Labels::default() };
            let (choice, task_grid, round, line) = (String::new(), 0, 0, grid.line);
            let fitting = Fitting { calls, labels, choice, task_grid, round, line };
            for ticket in iter::once(None).chain(self.chosen(grid, planned).into_iter().map(Some)) {
                self.measure(Kind::Losses, base, &fitting, ticket, runs);
            }
        }
    }

    /// The flags with block size, share and seed of the masked positions as the dense model has them.
    fn with_conditions(&self, base: &Base, grid: &Grid, mut flags: Flags) -> Option<Flags> {
        let Calls { dense, .. } = self.calls(Verb::Eval, base, &flags, grid.line, "eval")?;
        for name in CONDITIONS {
            if let Some(value) = dense.resolved.settings.get(name) {
                flags.set(flag(name, grid.line, value.to_string()));
            }
        }
        Some(flags)
    }

    /// The command lines with these flags.
    fn calls(&self, verb: Verb, base: &Base, flags: &Flags, line: usize, what: &str) -> Option<Calls> {
        let call = |flags: &Flags| {
            let words = extended(command(verb, base), flags);
            let resolved = self.resolve(&words, line, what)?;
            Some(Call { words, resolved })
        };
        let mut dense = flags.clone();
        OF_A_TICKET.iter().for_each(|name| dense.remove(name));
        Some(Calls { dense: call(&dense)?, ticket: call(flags)? })
    }

    /// Adds the fine-tunings of a base and of its tickets.
    pub(super) fn tasks(&self, base: &Base, planned: &[Planned], runs: &mut Runs) {
        let Some(section) = &self.plan.tasks else { return };
        for (number, grid) in section.grids.iter().enumerate() {
            if grid.axis("names").is_none() {
                self.problems.add(grid.line, "[tasks] has no `names`");
            }
            let chosen = self.chosen(grid, planned);
            for fitting in self.fittings(base, section, grid, number) {
                for ticket in iter::once(None).chain(chosen.iter().copied().map(Some)) {
                    self.measure(Kind::Tune, base, &fitting, ticket, runs);
                }
            }
        }
    }

    /// The combinations of task, number of examples, seed and chosen settings.
    fn fittings(&self, base: &Base, section: &Section, grid: &Grid, task_grid: usize) -> Vec<Fitting> {
        let or = |axis: &str, usual: &str| {
            let usual = Word { text: usual.to_owned(), line: grid.line };
            if grid.axis(axis).is_some() { grid.values(axis).to_vec() } else { vec![usual] }
        };
        let mut fittings = Vec::new();
        for name in grid.values("names") {
            for examples in or("train-examples", "all") {
                for (round, seed) in or("seeds", "42").into_iter().enumerate() {
                    let mut flags = self.flags_of_task(section, grid, name);
                    flags.set(flag("seed", seed.line, &seed.text));
                    if examples.text != "all" {
                        flags.set(flag("train-examples", examples.line, &examples.text));
                    }
                    for (choice, flags) in flags.combinations() {
                        let calls = self.calls(Verb::Tune, base, &flags, name.line, &name.text);
                        let Some(calls) = calls else { continue };
                        let labels = Labels {
                            base: base.name.clone(),
                            task: Some(name.text.clone()),
                            seed: seed.text.parse().ok(),
                            train_examples: examples.text.parse().ok(),
                            ..Labels::default()
                        };
                        let line = name.line;
                        fittings.push(Fitting { calls, labels, choice, task_grid, round, line });
                    }
                }
            }
        }
        fittings
    }

    fn flags_of_task(&self, section: &Section, grid: &Grid, name: &Word) -> Flags {
        let mut flags = Flags::default();
        flags.set(flag(KEEP.0, grid.line, KEEP.1));
        flags = flags.under(&section.flags, Verb::Tune, self.commands);
        if let Some((_, own)) = section.overrides.get(&name.text) {
            flags = flags.under(own, Verb::Tune, self.commands);
        }
        flags = flags.under(&grid.flags, Verb::Tune, self.commands);
        if flags.get("task-file").is_none() {
            flags.set(flag("task", name.line, &name.text));
        }
        flags
    }

    /// Adds a measurement of a ticket, or of the dense model.
    fn measure(&self, kind: Kind, base: &Base, fitting: &Fitting, ticket: Option<&Planned>, runs: &mut Runs) {
        let verb = if kind == Kind::Tune { Verb::Tune } else { Verb::Eval };
        let ticket_id = ticket.map(|planned| planned.ticket.id.as_str());
        let call = if ticket.is_some() { &fitting.calls.ticket } else { &fitting.calls.dense };
        let Some(id) = self.identity(verb, &call.resolved, ticket_id, base.line) else { return };
        let own = fitting.labels.clone();
        let labels = match ticket {
            Some(planned) => {
                Labels { task: own.task, seed: own.seed, train_examples: own.train_examples, ..planned.labels.clone() }
            }
            None => Labels { method: DENSE.to_owned(), ..own },
        };
        let model = ticket.map_or_else(|| DENSE.to_owned(), |planned| planned.words.clone());
        let model = match labels.steps.filter(|_| ticket.is_some_and(is_on_the_way)) {
            Some(steps) => format!("{model}-step{steps}"),
            None => model,
        };
        let words = if kind == Kind::Tune { task_words(&labels, &model) } else { model };
        let order = Order {
            ticket_grid: ticket.map_or(0, |planned| planned.grid),
            task_grid: fitting.task_grid,
            round: fitting.round.max(ticket.map_or(0, |planned| planned.round)),
            kind,
        };
        let (name, command, line) = (named(&words, &id), call.words.clone(), fitting.line);
        let (ticket, choice) = (ticket.map(|planned| planned.ticket.clone()), fitting.choice.clone());
        let (ticket_steps, levels, alternatives) = (Vec::new(), Vec::new(), Vec::new());
        runs.add(
            order,
            Run { kind, id, name, labels, choice, command, ticket_steps, levels, alternatives, ticket, line },
        );
    }
}

/// Whether the search goes on after the ticket.
fn is_on_the_way(planned: &Planned) -> bool {
    planned.ticket.sources.iter().all(|source| source.folder.as_ref().is_some_and(|folder| folder.starts_with("step-")))
}
