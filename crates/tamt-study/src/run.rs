//! One run of a study.

use std::path::{Path, PathBuf};

use crate::identity::ticket_on_the_way;
use crate::labels::{Kind, Labels};

/// Digits of the identity in the name of a directory.
const DIGITS: usize = 8;

/// A run: a command line with labels.
#[derive(Clone, Debug)]
pub struct Run {
    /// The kind.
    pub kind: Kind,
    /// The identity.
    pub id: String,
    /// The name of the directory.
    pub name: String,
    /// What the run is; the name of the ticket is known when the run begins.
    pub labels: Labels,
    /// The settings of which the plan gives several values, as in [`crate::plan::Flags::combinations`].
    pub choice: String,
    /// The command line without output directory and ticket; the program's name first.
    pub command: Vec<String>,
    /// Tickets that a search writes ahead of its end, after so many steps.
    pub ticket_steps: Vec<u64>,
    /// The folders with tickets that a search of iterative pruning writes on its way.
    pub levels: Vec<String>,
    /// Other searches that write the final ticket of this one, in which case there is nothing to do.
    pub alternatives: Vec<Source>,
    /// The ticket of the run; `None` for a search, and for the dense model.
    pub ticket: Option<Ticket>,
    /// The line of the plan.
    pub line: usize,
}

/// A ticket that runs use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The identity.
    pub id: String,
    /// The searches that write the ticket, all to the same bits, and the folder of the ticket in their directories; the one
    /// that the plan runs comes last.
    pub sources: Vec<Source>,
}

/// A search that writes a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The identity of the search.
    pub run: String,
    /// The name of its directory.
    pub name: String,
    /// The folder of the ticket inside of the directory; `None` for the final ticket.
    pub folder: Option<String>,
}

impl Source {
    /// The ticket as labels name it, and as a path below the folder of tickets.
    #[must_use]
    pub fn label(&self) -> String {
        self.folder.as_ref().map_or_else(|| self.name.clone(), |folder| format!("{}/{folder}", self.name))
    }
}

/// The folder of the ticket after so many steps.
#[must_use]
pub fn step_folder(steps: u64) -> String {
    format!("step-{steps}")
}

/// The folder of the ticket of a level of iterative pruning.
#[must_use]
pub fn level_folder(sparsity: f64) -> String {
    format!("sparsity-{sparsity}")
}

impl Run {
    /// The run's directory below the store.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(self.kind.folder()).join(&self.name)
    }

    /// The folders with tickets that the run writes beside its result, as the plan needs them.
    pub fn folders(&self) -> impl Iterator<Item = String> {
        self.ticket_steps.iter().map(|&steps| step_folder(steps)).chain(self.levels.iter().cloned())
    }

    /// The final ticket of this search, or the one after so many steps.
    #[must_use]
    pub fn ticket_after(&self, steps: Option<u64>) -> Ticket {
        let source = |folder| Source { run: self.id.clone(), name: self.name.clone(), folder };
        match steps {
            None => Ticket { id: self.id.clone(), sources: vec![source(None)] },
            Some(n) => Ticket { id: ticket_on_the_way(&self.id, n), sources: vec![source(Some(step_folder(n)))] },
        }
    }
}

/// The name of a directory: words for people, and the first digits of the identity.
pub(crate) fn named(words: &str, id: &str) -> String {
    format!("{words}-{}", id.get(..DIGITS).unwrap_or(id))
}

/// Whether a directory has the name of a run with this identity, as far as the digits in the name tell.
pub(crate) fn is_named_after(directory: &Path, id: &str) -> bool {
    directory.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&named("", id)))
}

/// The words of a ticket's name: `tamt-mlm-0.7-seed1`.
pub(crate) fn ticket_words(labels: &Labels) -> String {
    let mut words = labels.method.clone();
    if let Some(sparsity) = labels.sparsity {
        words.push_str(&format!("-{sparsity}"));
    }
    if let Some(scope) = labels.scope.as_ref().filter(|scope| *scope != "local") {
        words.push_str(&format!("-{scope}"));
    }
    if let Some(start) = labels.start.as_ref().filter(|start| *start != "magnitude") {
        // A start may be the path of a ticket.
        let start: String =
            start.rsplit('/').next().unwrap_or(start).chars().filter(char::is_ascii_alphanumeric).collect();
        words.push_str(&format!("-from-{start}"));
    }
    if let Some(seed) = labels.ticket_seed {
        words.push_str(&format!("-seed{seed}"));
    }
    words
}

/// The words of a fine-tuning's name: `cola-seed1-tamt-mlm-0.7-seed1`.
pub(crate) fn task_words(labels: &Labels, ticket: &str) -> String {
    let task: String =
        labels.task.iter().flat_map(|task| task.chars()).map(|c| if c == '/' { '-' } else { c }).collect();
    let subset = labels.train_examples.map_or_else(String::new, |n| format!("-{n}"));
    let seed = labels.seed.map_or_else(String::new, |seed| format!("-seed{seed}"));
    format!("{task}{subset}{seed}-{ticket}")
}
