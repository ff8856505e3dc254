//! The work of every search, from settings and the shapes of its ticket.

use std::collections::HashMap;

use crate::flops::{StepWork, step_work};
use crate::study::Study;
use crate::ticket::TicketReader;

/// The work of a step, by run.
pub(super) struct Works(HashMap<usize, StepWork>);

impl Works {
    /// Reads one ticket of each base model for its shapes.
    pub(super) fn new(study: &Study, reader: &dyn TicketReader) -> Self {
        let (mut shapes, mut works) = (HashMap::new(), HashMap::new());
        for file in &study.tickets {
            let matrices = shapes.entry(file.ticket.base.clone()).or_insert_with(Vec::new);
            if matrices.is_empty() {
                // A ticket that cannot be read is reported where its masks are shown.
                *matrices = reader.read(&file.path).map(|ticket| ticket.matrices).unwrap_or_default();
            }
            works.extend(step_work(&study.runs[file.run], matrices).map(|work| (file.run, work)));
        }
        Self(works)
    }

    /// The work of a step of a run.
    pub(super) fn of(&self, run: usize) -> Option<StepWork> {
        self.0.get(&run).copied()
    }
}
