//! What a run is, in words for tables.

use serde::{Deserialize, Serialize};

/// The kind of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A search for a ticket.
    Find,
    /// Losses of a ticket, or of the dense model, on held-out text.
    Losses,
    /// Fine-tuning of a ticket, or of the dense model, on a task.
    Tune,
}

impl Kind {
    /// The folder of the store with the runs of this kind.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Find => "tickets",
            Self::Losses => "losses",
            Self::Tune => "tasks",
        }
    }

    /// All kinds, each after those that it depends on.
    pub const ALL: [Self; 3] = [Self::Find, Self::Losses, Self::Tune];
}

/// The labels of a run: `None` where a label has no meaning for the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// The plan's name of the base model.
    pub base: String,
    /// The method of the ticket; `dense` for the dense model.
    pub method: String,
    /// The ticket's share of dropped weights.
    pub sparsity: Option<f64>,
    /// `local` or `global`.
    pub scope: Option<String>,
    /// The masks that mask training starts from.
    pub start: Option<String>,
    /// The seed of the ticket; `None` where the method draws nothing.
    pub ticket_seed: Option<u64>,
    /// Steps of the search after which the ticket was written; `None` for methods without steps.
    pub steps: Option<u64>,
    /// The ticket: the name of its search's directory, with the folder inside of it where the ticket is not the final one.
    pub ticket: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// The seed of the fine-tuning.
    pub seed: Option<u64>,
    /// Training examples; `None` for all of them.
    pub train_examples: Option<u64>,
}

/// The method of runs without a ticket.
pub const DENSE: &str = "dense";
