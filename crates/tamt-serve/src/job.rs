//! A request on its way through the engine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tamt::encode::divide_by_norm;
use tamt_data::Pair;
use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::budget::Reserved;

/// The engine could not compute a request: an output was not finite, or a computation panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotComputed;

/// The outputs of all texts of a request, `[texts, width]`, in order.
pub(crate) type Outputs = Result<Vec<f32>, NotComputed>;

/// The outputs of a request, which the engine fills text by text.
#[derive(Debug)]
pub(crate) struct Job {
    normalize: bool,
    texts: usize,
    width: usize,
    filling: Mutex<Filling>,
    /// The request's part of the queue, until the last text has left it.
    _tokens: Reserved,
}

#[derive(Debug)]
struct Filling {
    /// Empty until the first text is computed: jobs that no one waits for any more take no memory.
    values: Vec<f32>,
    texts_left: usize,
    sender: Option<Sender<Outputs>>,
}

/// A text of a request.
#[derive(Debug)]
pub(crate) struct Item {
    /// The position of the model.
    pub(crate) model: usize,
    /// The tokens; encoders ignore the types.
    pub(crate) tokens: Pair,
    /// The position of the text in its request.
    pub(crate) index: usize,
    pub(crate) job: Arc<Job>,
}

impl Job {
    /// A job of `texts` texts with `width` outputs each, which are brought to unit length if `normalize`.
    pub(crate) fn new(texts: usize, width: usize, normalize: bool, tokens: Reserved) -> (Arc<Self>, Receiver<Outputs>) {
        let (sender, receiver) = oneshot::channel();
        let filling = Filling { values: Vec::new(), texts_left: texts, sender: Some(sender) };
        (Arc::new(Self { normalize, texts, width, filling: Mutex::new(filling), _tokens: tokens }), receiver)
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the outputs of a text; the last one answers the request.
    pub(crate) fn put(&self, index: usize, outputs: &[f32]) {
        let mut filling = self.filling();
        if filling.is_abandoned() {
            filling.values = Vec::new();
            return;
        }
        if filling.values.is_empty() {
            filling.values = vec![0.0; self.texts * self.width];
        }
        let own = &mut filling.values[index * self.width..][..self.width];
        own.copy_from_slice(outputs);
        if self.normalize {
            divide_by_norm(own);
        }
        if own.iter().any(|value| !value.is_finite()) {
            filling.answer(Err(NotComputed));
            return;
        }
        filling.texts_left -= 1;
        if filling.texts_left == 0 {
            let values = std::mem::take(&mut filling.values);
            filling.answer(Ok(values));
        }
    }

    /// Answers the request without outputs.
    pub(crate) fn fail(&self) {
        self.filling().answer(Err(NotComputed));
    }

    /// Whether no one waits for the outputs: the client is gone, or the request has failed.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.filling().is_abandoned()
    }
}

impl Filling {
    fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(Sender::is_closed)
    }

    fn answer(&mut self, outputs: Outputs) {
        if let Some(sender) = self.sender.take() {
            // The client may be gone.
            let _ = sender.send(outputs);
        }
    }
}
