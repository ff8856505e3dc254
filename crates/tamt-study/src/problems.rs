//! The mistakes of a plan, collected so that all of them are told at once.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// A mistake in a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line of the plan, from 1.
    pub line: usize,
    /// The mistake, in a sentence.
    pub text: String,
}

/// Mistakes found so far; equal ones count once.
#[derive(Debug, Default)]
pub struct Problems(RefCell<BTreeSet<Problem>>);

impl Problems {
    /// Adds a mistake.
    pub fn add(&self, line: usize, text: impl Into<String>) {
        self.0.borrow_mut().insert(Problem { line, text: text.into() });
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// All mistakes in the order of lines.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner().into_iter().collect()
    }
}

/// The end of a message about an unknown name: the nearest known one, and else all of them.
pub(crate) fn advice(name: &str, known: &[String]) -> String {
    let edits = |other: &String| strsim::osa_distance(&name.to_lowercase(), &other.to_lowercase());
    let nearest = known.iter().min_by_key(|other| edits(other));
    match nearest {
        // A name that differs in more than a third of its characters is another name.
        Some(nearest) if 3 * edits(nearest) <= name.chars().count().max(nearest.chars().count()) => {
            format!("; did you mean `{nearest}`?")
        }
        _ => format!("; known are {}", known.join(", ")),
    }
}
