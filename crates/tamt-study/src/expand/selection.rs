//! Which tickets a grid of losses or tasks uses.

use crate::expand::{Expander, Planned};
use crate::labels::Labels;
use crate::plan::{Grid, Word};

/// The axes that choose tickets, and whether a ticket has a value.
type Test = fn(&Labels, &str) -> bool;

const TESTS: [(&str, Test); 6] = [
    ("methods", |labels, text| labels.method == text),
    ("sparsities", |labels, text| text.parse().is_ok_and(|share: f64| labels.sparsity == Some(share))),
    ("ticket-seeds", |labels, text| labels.ticket_seed.is_none_or(|seed| text.parse() == Ok(seed))),
    ("scopes", |labels, text| labels.scope.as_deref() == Some(text)),
    ("starts", |labels, text| labels.start.as_deref().is_none_or(|start| start == text)),
    ("steps", |labels, text| labels.steps.is_none_or(|steps| text.parse() == Ok(steps))),
];

impl Expander<'_> {
    /// The tickets that a grid chooses: all of them, unless it names values. A value that no ticket has is a mistake.
    pub(super) fn chosen<'p>(&self, grid: &Grid, planned: &'p [Planned]) -> Vec<&'p Planned> {
        let mut chosen: Vec<&Planned> = planned.iter().collect();
        for (axis, test) in TESTS {
            if grid.axis(axis).is_none() {
                continue;
            }
            for word in grid.values(axis) {
                if !planned.is_empty() && !planned.iter().any(|planned| test(&planned.labels, &word.text)) {
                    self.problems.add(word.line, format!("`{axis}`: no ticket of the plan has {}", word.text));
                }
            }
            chosen.retain(|planned| grid.values(axis).iter().any(|Word { text, .. }| test(&planned.labels, text)));
        }
        chosen
    }
}
