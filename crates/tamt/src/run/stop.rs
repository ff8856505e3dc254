//! The request to stop a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// A request to stop a run. The training loop holds one clone, and the program that asks holds another.
///
/// Clones share the request. The library handles no signals: a program handles them and calls [`Stop::request`].
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    signal: AtomicI32,
    /// The number of [`Hold`]s.
    holds: AtomicUsize,
}

/// A promise to answer requests: while it lives, a run has something to save.
#[derive(Debug)]
pub struct Hold(Stop);

impl Stop {
    /// A request that no one has made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to save a checkpoint and stop, on behalf of signal number `signal` (1 SIGHUP, 2 SIGINT,
    /// 15 SIGTERM). The first request stays.
    pub fn request(&self, signal: i32) {
        // A failed exchange means that an earlier request is in place, and the first request stays.
        let _ = self.0.signal.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The number of the signal that asked, if one has.
    pub fn requested(&self) -> Option<i32> {
        match self.0.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Whether a run is between its first step and its result, so that it answers a request itself. In any other
    /// phase nothing is lost if the program ends at once.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.holds.load(Ordering::SeqCst) > 0
    }

    /// Holds requests until the result of a run is written.
    ///
    /// # Errors
    /// The signal of an earlier request. The program that asked found no run that held it, so it may end, and remove the
    /// traces of the run, at any moment: a run must not write any more.
    pub fn hold(&self) -> Result<Arc<Hold>, i32> {
        // The order matters: of a hold and a request at the same time, one at least sees the other.
        self.0.holds.fetch_add(1, Ordering::SeqCst);
        let hold = Arc::new(Hold(self.clone()));
        self.requested().map_or(Ok(hold), Err)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.holds.fetch_sub(1, Ordering::SeqCst);
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

    #[test]
    fn a_request_is_held_while_a_run_holds_it() {
        let stop = Stop::new();
        let (one, two) = (stop.hold().unwrap(), stop.clone().hold().unwrap());
        drop(one);
        assert!(stop.is_held());
        drop(two);
        assert!(!stop.is_held());
    }

    #[test]
    fn an_earlier_request_is_not_held() {
        let stop = Stop::new();
        stop.request(15);
        assert_eq!(stop.hold().unwrap_err(), 15);
        assert!(!stop.is_held());
    }
}
