//! Amounts that many requests share: tokens and bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit to the sum of what all holders have reserved.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    budget: Arc<Budget>,
    amount: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Reserves `amount`; `None` if that is more than is left.
    pub(crate) fn reserve(self: &Arc<Self>, amount: usize) -> Option<Reserved> {
        let mut reserved = Reserved { budget: self.clone(), amount: 0 };
        reserved.grow(amount).then_some(reserved)
    }
}

impl Reserved {
    /// Reserves `more`; `false` if that is more than is left.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let Budget { limit, used } = &*self.budget;
        let fits = |used: usize| used.checked_add(more).filter(|sum| sum <= limit);
        let grown = used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok();
        self.amount += if grown { more } else { 0 };
        grown
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_all_parts_stays_below_the_limit_and_parts_come_back() {
        let budget = Budget::new(10);
        let mut first = budget.reserve(6).unwrap();
        assert!(budget.reserve(5).is_none());
        assert_eq!(budget.used(), 6);
        assert!(first.grow(4) && !first.grow(1));
        assert!(!first.grow(usize::MAX));
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(10).is_some());
    }
}
