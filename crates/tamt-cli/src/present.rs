//! How far the present run of this process is, for the signs of life of a study's worker.

use std::sync::{Mutex, PoisonError};

/// A position in a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Present {
    /// The stage: the name of the method or the task.
    pub(crate) stage: String,
    /// Steps done.
    pub(crate) step: u64,
    /// Steps in all.
    pub(crate) total: u64,
    /// Seconds left, where steps have been timed.
    pub(crate) seconds_left: Option<f64>,
}

static PRESENT: Mutex<Option<Present>> = Mutex::new(None);

/// Replaces the position.
pub(crate) fn set(present: Option<Present>) {
    *PRESENT.lock().unwrap_or_else(PoisonError::into_inner) = present;
}

/// Updates the position within its stage.
pub(crate) fn at(step: u64, seconds_left: Option<f64>) {
    if let Some(present) = &mut *PRESENT.lock().unwrap_or_else(PoisonError::into_inner) {
        present.step = step;
        present.seconds_left = seconds_left;
    }
}

/// The position.
pub(crate) fn get() -> Option<Present> {
    PRESENT.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
