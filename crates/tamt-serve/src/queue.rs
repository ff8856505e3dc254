//! Texts that wait for the engine, and the batches that they form.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::job::Item;

/// Texts in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    tokens: usize,
    /// Requests whose texts are being tokenized.
    arriving: usize,
    is_closed: bool,
}

/// A request whose texts are being tokenized, for which a batch may wait.
#[derive(Debug)]
pub(crate) struct Arrival(Arc<Queue>);

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces texts.
    pub(crate) fn arrive(self: &Arc<Self>) -> Arrival {
        self.state().arriving += 1;
        Arrival(self.clone())
    }

    /// Adds the texts of a request.
    pub(crate) fn push(&self, items: impl Iterator<Item = Item>) {
        let mut state = self.state();
        for item in items {
            state.tokens += item.tokens.ids.len();
            state.items.push_back(item);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Lets [`Queue::next`] end once the queue is empty.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    /// The next batch: the oldest text, and the following ones of the same model up to `most` tokens. A batch that is not
    /// full waits at most for `wait`, and only while other texts are arriving. `None` once the queue is closed and empty.
    pub(crate) fn next(&self, most: usize, wait: Duration) -> Option<Vec<Item>> {
        let mut state = self.state();
        loop {
            while state.items.is_empty() {
                if state.is_closed {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let full_at = Instant::now() + wait;
            while state.arriving > 0 && state.tokens < most {
                let left = full_at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            let mut batch = state.take(most);
            if !batch.is_empty() {
                // Long sequences first: the shorter ones fill the threads at the end.
                batch.sort_by_key(|item| std::cmp::Reverse(item.tokens.ids.len()));
                return Some(batch);
            }
        }
    }
}

impl State {
    /// Takes a batch. Texts for which no one waits are left out, so that the batch may be empty.
    fn take(&mut self, most: usize) -> Vec<Item> {
        let (mut batch, mut passed): (Vec<Item>, _) = (Vec::new(), VecDeque::new());
        let mut tokens = 0;
        while let Some(item) = self.items.pop_front() {
            let own = item.tokens.ids.len();
            if item.job.is_abandoned() {
                self.tokens -= own;
            } else if batch.first().is_some_and(|first| first.model != item.model) {
                passed.push_back(item);
            } else if !batch.is_empty() && tokens + own > most {
                passed.push_back(item);
                break;
            } else {
                tokens += own;
                batch.push(item);
            }
        }
        self.tokens -= tokens;
        passed.append(&mut self.items);
        self.items = passed;
        batch
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.arriving -= 1;
        if state.arriving == 0 {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use tamt_data::Pair;
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::budget::Budget;
    use crate::job::{Job, Outputs};

    fn item(model: usize, tokens: usize) -> (Item, Receiver<Outputs>) {
        let (job, receiver) = Job::new(1, 1, false, Budget::new(1000).reserve(tokens).unwrap());
        let tokens = Pair { ids: vec![0; tokens], type_ids: Vec::new() };
        (Item { model, tokens, index: 0, job }, receiver)
    }

    fn lengths(batch: &[Item]) -> Vec<(usize, usize)> {
        batch.iter().map(|item| (item.model, item.tokens.ids.len())).collect()
    }

    #[test]
    fn a_batch_holds_texts_of_the_oldest_ones_model_up_to_the_tokens() {
        let queue = Queue::default();
        let (items, receivers): (Vec<_>, Vec<_>) =
            [(0, 5), (1, 7), (0, 30), (0, 70), (1, 90), (1, 200)].into_iter().map(|(m, t)| item(m, t)).unzip();
        queue.push(items.into_iter());
        queue.close();
        let next = || queue.next(100, Duration::ZERO).map(|batch| lengths(&batch));
        assert_eq!(next().unwrap(), [(0, 30), (0, 5)]);
        assert_eq!(next().unwrap(), [(1, 90), (1, 7)]);
        assert_eq!(next().unwrap(), [(0, 70)]);
        // A text longer than a batch is a batch of its own.
        assert_eq!(next().unwrap(), [(1, 200)]);
        assert!(next().is_none());
        drop(receivers);
    }

    #[test]
    fn texts_for_which_no_one_waits_are_left_out() {
        let queue = Queue::default();
        let ((gone, receiver), (kept, _waiting)) = (item(0, 5), item(0, 6));
        drop(receiver);
        queue.push([gone, kept].into_iter());
        queue.close();
        assert_eq!(lengths(&queue.next(100, Duration::ZERO).unwrap()), [(0, 6)]);
        assert!(queue.next(100, Duration::ZERO).is_none());
    }

    #[test]
    fn a_batch_waits_for_texts_that_are_arriving_and_for_no_others() {
        let queue = Arc::new(Queue::default());
        let ((alone, _alone), (first, _first), (second, _second)) = (item(0, 4), item(0, 5), item(0, 6));
        let arrival = queue.arrive();
        // Nothing comes, so that the whole time passes.
        queue.push([alone].into_iter());
        let (started, wait) = (Instant::now(), Duration::from_millis(50));
        assert_eq!(lengths(&queue.next(100, wait).unwrap()), [(0, 4)]);
        assert!(started.elapsed() >= wait);
        // With the second text nothing is arriving any more, which ends a wait of any length.
        queue.push([first].into_iter());
        let batch = std::thread::scope(|scope| {
            let batch = scope.spawn(|| queue.next(100, Duration::from_secs(600)));
            queue.push([second].into_iter());
            drop(arrival);
            batch.join().unwrap()
        });
        assert_eq!(lengths(&batch.unwrap()), [(0, 6), (0, 5)]);
    }
}
