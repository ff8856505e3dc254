//! What all requests of a server share.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::budget::Budget;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::queue::Queue;
use crate::settings::Settings;

/// Models, limits, queue and counters.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) models: Models,
    pub(crate) settings: Settings,
    pub(crate) queue: Arc<Queue>,
    /// Tokens that wait or are computed.
    pub(crate) tokens: Arc<Budget>,
    /// Bytes of bodies and answers.
    pub(crate) bytes: Arc<Budget>,
    pub(crate) metrics: Metrics,
    /// Whether the server is about to end, so that each connection ends with its answer.
    pub(crate) ending: watch::Sender<bool>,
    /// The most resident memory that the server takes, in bytes, once it is known.
    pub(crate) memory_bound: OnceLock<u64>,
    pub(crate) started: SystemTime,
}

impl App {
    pub(crate) fn new(models: Models, settings: Settings) -> Self {
        Self {
            tokens: Budget::new(settings.max_queue_tokens),
            bytes: Budget::new(settings.max_queue_bytes),
            models,
            settings,
            queue: Arc::default(),
            metrics: Metrics::default(),
            ending: watch::Sender::new(false),
            memory_bound: OnceLock::new(),
            started: SystemTime::now(),
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }
}
