//! Embeddings and predictions over HTTP.
//!
//! A [`Server`] holds [`Models`]: encoders under several tickets that share one base model, and classifiers. Requests come
//! in `OpenAI`'s form or in that of text-embeddings-inference, and choose a model by its name. A request goes through these
//! modules:
//!
//! 1. `server` accepts connections, and `http` has a file for each form. `http::compute` is the way of all requests that
//!    compute: body, texts, tokens, a place in the queue.
//! 2. `budget` limits what requests take: tokens that wait, and bytes of bodies and answers. Beyond the limits a request
//!    is refused with 429. `memory` states the sum of all limits.
//! 3. `queue` turns the waiting texts of all requests into batches, and `compute` runs the batches on the thread that
//!    called [`Server::run`] and on the engine's own. Connections, tokenization and answers have other threads.
//! 4. `job` collects the outputs of a request's texts, and wakes the request when the last one is there.
//!
//! The outputs for a text do not depend on the other texts of the batch: vectors are those of [`tamt::encode`], bit for
//! bit, and predictions those of [`tamt::predict`].

mod app;
mod budget;
mod compute;
mod error;
mod http;
mod job;
mod memory;
mod metrics;
mod models;
mod queue;
mod server;
mod settings;

pub use error::{Error, Result};
pub use models::{Kind, Models, Served};
pub use server::{Ending, Server};
pub use settings::{MOST_INPUTS, Settings};
