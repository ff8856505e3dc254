//! The work of every search, from settings and the shapes of its ticket.

use std::collections::HashMap;

use crate::flops::{StepWork, step_work};
use crate::study::{Study, TicketFile};
use crate::ticket::{Matrix, TicketReader};

/// The work of a step, by run.
pub(super) struct Works(HashMap<usize, StepWork>);

impl Works {
    /// Reads one ticket of each base model for its shapes, of a search that pruned all layers.
    pub(super) fn new(study: &Study, reader: &dyn TicketReader) -> Self {
        let mut shapes: HashMap<&str, Vec<Matrix>> = HashMap::new();
        for file in study.tickets.iter().filter(|file| !study.runs[file.run].settings.contains_key("layers")) {
            let matrices = shapes.entry(&file.ticket.base).or_default();
            if let Some(path) = file.path.as_ref().filter(|_| matrices.is_empty()) {
                // A ticket that cannot be read is reported where its masks are shown.
                *matrices = reader.read(path).map(|ticket| ticket.matrices).unwrap_or_default();
            }
        }
        let work = |file: &TicketFile| {
            let matrices = shapes.get(file.ticket.base.as_str()).map_or(&[][..], Vec::as_slice);
            Some((file.run, step_work(&study.runs[file.run], matrices)?))
        };
        Self(study.tickets.iter().filter_map(work).collect())
    }

    /// The work of a step of a run.
    pub(super) fn of(&self, run: usize) -> Option<StepWork> {
        self.0.get(&run).copied()
    }
}
