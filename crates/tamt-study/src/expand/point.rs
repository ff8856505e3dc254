//! One combination of the axes of tickets.

use crate::commands::{MethodTraits, Verb};
use crate::expand::{Order, Planned, command, extended};
use crate::labels::{Kind, Labels};
use crate::plan::{Base, Flags, Grid};
use crate::run::{Run, Ticket, named, ticket_words};

/// One combination of the axes but for the steps.
pub(super) struct Point<'a> {
    pub(super) base: &'a Base,
    pub(super) grid: &'a Grid,
    pub(super) traits: MethodTraits,
    pub(super) labels: Labels,
    /// The settings of which the plan gives several values.
    pub(super) choice: String,
    /// The flags of the search, those of the axes included.
    pub(super) flags: Flags,
    pub(super) grid_number: usize,
    /// The position of the seed.
    pub(super) round: usize,
}

impl Point<'_> {
    pub(super) fn order(&self) -> Order {
        Order { ticket_grid: self.grid_number, task_grid: 0, round: self.round, kind: Kind::Find }
    }

    pub(super) fn words(&self) -> Vec<String> {
        extended(command(Verb::Find, self.base), &self.flags)
    }

    /// The search with this identity.
    pub(super) fn run(&self, id: String, command: Vec<String>, labels: Labels) -> Run {
        let name = named(&ticket_words(&labels), &id);
        let (ticket_steps, levels, alternatives) = (Vec::new(), Vec::new(), Vec::new());
        let (kind, ticket, line, choice) = (Kind::Find, None, self.grid.line, self.choice.clone());
        Run { kind, id, name, labels, choice, command, ticket_steps, levels, alternatives, ticket, line }
    }

    pub(super) fn planned(&self, ticket: Ticket, labels: Labels) -> Planned {
        let words = ticket_words(&labels);
        Planned { ticket, labels, words, grid: self.grid_number, round: self.round }
    }
}
