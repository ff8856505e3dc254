//! The figures of docs/results.md are those of a report of docs/data/minilm.csv.

use std::fs;
use std::path::{Path, PathBuf};

use tamt_report::report::report;
use tamt_report::ticket::{Ticket, TicketReader};

use crate::runs::read;

/// Names in docs/figures, without `minilm-`, and in the report.
const FIGURES: [(&str, &str); 9] = [
    ("mlm-loss-sparsity", "mlm-loss-sparsity"),
    ("kd-loss-sparsity", "kd-loss-sparsity"),
    ("mlm-loss-steps", "mlm-loss-steps-70"),
    ("score-kd-loss", "score-kd-loss"),
    ("score-mlm-loss", "score-mlm-loss"),
    ("transfer", "transfer-70"),
    ("scarcity-trec", "scarcity-trec-70"),
    ("scarcity-sst-2", "scarcity-sst-2-70"),
    ("scarcity-subj", "scarcity-subj-70"),
];

/// A table of runs has no ticket.
struct NoTickets;

impl TicketReader for NoTickets {
    fn read(&self, path: &Path) -> Result<Ticket, String> {
        panic!("{}", path.display())
    }
}

#[test]
fn figures_are_those_of_a_report_of_the_runs() {
    let directory = tempfile::tempdir().unwrap();
    let runs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/data/minilm.csv");
    report(&[runs], directory.path(), &NoTickets).unwrap();
    for (published, drawn) in FIGURES {
        let drawn = fs::read_to_string(directory.path().join(format!("figures/{drawn}.svg"))).unwrap();
        assert!(read(&format!("docs/figures/minilm-{published}.svg")) == drawn, "{published}");
    }
}
