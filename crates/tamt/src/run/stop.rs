//! The request to stop a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// A request to stop a run. The training loop holds one clone, and the program that asks holds another.
///
/// Clones share the request. The library handles no signals: a program handles them and calls [`Stop::request`].
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicI32>);

impl Stop {
    /// A request that no one has made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to save a checkpoint and stop, on behalf of signal number `signal` (2 SIGINT, 15 SIGTERM).
    /// The first request stays.
    pub fn request(&self, signal: i32) {
        // A failed exchange means that an earlier request is in place, and the first request stays.
        let _ = self.0.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The number of the signal that asked, if one has.
    pub fn requested(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_request_and_the_first_signal_stays() {
        let stop = Stop::new();
        let other = stop.clone();
        assert_eq!(other.requested(), None);
        stop.request(15);
        stop.request(2);
        assert_eq!(other.requested(), Some(15));
    }
}
