//! From the grids of a plan to runs.
//!
//! | section | axes, combined | runs |
//! |---|---|---|
//! | `[tickets]` | methods, sparsities, scopes, starts, seeds | `find`; `steps` are tickets of one run, but for `imp` |
//! | `[losses]` | the tickets and the dense model | `eval` on the held-out text |
//! | `[tasks]` | names, train-examples, seeds; the tickets and the dense model | `tune` |
//!
//! The order of runs: the grids of tickets in the order of the plan, and in each grid the grids of tasks. In each, first
//! everything of the first ticket seed and the first tuning seed, then of the second ones: at any time, what is done is a
//! complete smaller study.

mod measures;
mod point;
mod rounds;
mod selection;
mod tickets;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::commands::{Commands, Resolved, Verb};
use crate::identity::{Digests, identity};
use crate::labels::{Kind, Labels};
use crate::plan::{Base, Flag, Flags, Plan, Setting};
use crate::problems::Problems;
use crate::run::{Run, Source, Ticket};

/// The place of a run in the order of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    ticket_grid: usize,
    task_grid: usize,
    round: usize,
    kind: Kind,
}

/// A ticket that losses and tasks use.
#[derive(Clone, Debug)]
struct Planned {
    ticket: Ticket,
    labels: Labels,
    /// The words of the ticket's name.
    words: String,
    grid: usize,
    /// The position of the ticket's seed in the grid.
    round: usize,
}

/// The runs of a plan in the order of the work. Mistakes go to `problems`; runs with mistakes are left out.
pub fn expand(plan: &Plan, commands: &dyn Commands, digests: &mut Digests, problems: &Problems) -> Vec<Run> {
    let expander = Expander { plan, commands, problems, digests: RefCell::new(digests), known: RefCell::default() };
    let mut runs = Runs::default();
    for base in &plan.bases {
        let planned = expander.tickets(base, &mut runs);
        expander.losses(base, &planned, &mut runs);
        expander.tasks(base, &planned, &mut runs);
    }
    if plan.tickets.is_none() && plan.losses.is_none() && plan.tasks.is_none() {
        problems.add(1, "the plan has neither [tickets] nor [losses] nor [tasks]: there is nothing to run");
    }
    runs.finish(problems)
}

struct Expander<'a> {
    plan: &'a Plan,
    commands: &'a dyn Commands,
    problems: &'a Problems,
    digests: RefCell<&'a mut Digests>,
    /// The meanings of command lines.
    known: RefCell<BTreeMap<Vec<String>, Option<Resolved>>>,
}

impl Expander<'_> {
    /// The meaning of a command line; `None` after a mistake, which is told at `line` with the words `what`.
    fn resolve(&self, words: &[String], line: usize, what: &str) -> Option<Resolved> {
        if let Some(known) = self.known.borrow().get(words) {
            return known.clone();
        }
        let resolved =
            self.commands.resolve(words).map_err(|problem| self.problems.add(line, format!("{what}: {problem}")));
        let resolved = resolved.ok();
        self.known.borrow_mut().insert(words.to_vec(), resolved.clone());
        resolved
    }

    /// The identity of a run; `None` if an input cannot be read, which is told at `line`.
    fn identity(&self, verb: Verb, resolved: &Resolved, ticket: Option<&str>, line: usize) -> Option<String> {
        let id = identity(verb, resolved, ticket, &mut self.digests.borrow_mut());
        id.map_err(|error| self.problems.add(line, with_cause(&error))).ok()
    }
}

fn with_cause(error: &crate::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// The words of a command line ahead of its flags.
fn command(verb: Verb, base: &Base) -> Vec<String> {
    vec!["tamt".to_owned(), verb.name().to_owned(), format!("--model={}", base.model)]
}

fn flag(name: &str, line: usize, value: impl Into<String>) -> Flag {
    Flag { name: name.to_owned(), line, setting: Setting::Values(vec![value.into()]) }
}

/// Adds flags to a command line.
fn extended(mut words: Vec<String>, flags: &Flags) -> Vec<String> {
    words.extend(flags.words());
    words
}

/// The runs so far, each once.
#[derive(Default)]
struct Runs {
    runs: Vec<(Order, Run)>,
    by_id: BTreeMap<String, usize>,
}

impl Runs {
    /// Adds a run. A run that another grid has already gets the needs of both.
    fn add(&mut self, order: Order, run: Run) {
        let Some(&known) = self.by_id.get(&run.id) else {
            self.by_id.insert(run.id.clone(), self.runs.len());
            self.runs.push((order, run));
            return;
        };
        let (place, known) = &mut self.runs[known];
        *place = order.min(*place);
        known.ticket_steps.extend(run.ticket_steps);
        known.ticket_steps.sort_unstable();
        known.ticket_steps.dedup();
        known.levels.extend(run.levels);
        known.levels.sort_unstable();
        known.levels.dedup();
    }

    /// Leaves out each search whose tickets a search of another grid to a higher level writes on its way.
    fn merge_levels(&mut self) {
        let planned = |source: &&Source| self.by_id.contains_key(&source.run);
        let is_part = |run: &Run| run.alternatives.iter().any(|source| planned(&source));
        let parts: BTreeSet<String> =
            self.runs.iter().filter(|(_, run)| is_part(run)).map(|(_, run)| run.id.clone()).collect();
        let (left_out, kept): (Vec<_>, Vec<_>) =
            mem::take(&mut self.runs).into_iter().partition(|(_, run)| parts.contains(&run.id));
        self.runs = kept;
        for (order, part) in left_out {
            for source in part.alternatives {
                if let Some((place, run)) = self.runs.iter_mut().find(|(_, run)| run.id == source.run) {
                    *place = order.min(*place);
                    run.levels.extend(source.folder.into_iter().chain(part.levels));
                    run.levels.sort_unstable();
                    run.levels.dedup();
                    break;
                }
            }
        }
    }

    /// The runs in order. Two runs that neither labels nor chosen settings tell apart are a mistake.
    fn finish(mut self, problems: &Problems) -> Vec<Run> {
        self.merge_levels();
        let mut seen: BTreeMap<String, (&str, usize)> = BTreeMap::new();
        for (_, run) in &self.runs {
            let ticket = run.ticket.as_ref().map(|ticket| &ticket.id);
            let labels = format!("{:?} {:?} {ticket:?} {}", run.kind, run.labels, run.choice);
            match seen.insert(labels, (&run.id, run.line)) {
                Some((id, line)) if id != run.id => {
                    let words = run.name.rsplit_once('-').map_or(run.name.as_str(), |(words, _)| words);
                    let advice =
                        "give the values of the setting as an array, or make two plans, which may share a store";
                    let problem = format!("two runs with one name, {words}: line {line} has another one; {advice}");
                    problems.add(run.line, problem);
                }
                _ => {}
            }
        }
        self.runs.sort_by_key(|(order, _)| *order);
        self.runs.into_iter().map(|(_, run)| run).collect()
    }
}
