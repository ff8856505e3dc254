//! The limits of a server.

use std::time::Duration;

/// What a server takes and how long it waits. Each limit bounds memory or time, whatever clients send.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key that clients present as `Authorization: Bearer KEY`; none lets everyone in.
    pub api_key: Option<String>,
    /// Tokens of a batch; a longer text is a batch of its own.
    pub max_batch_tokens: usize,
    /// How long a batch waits for requests whose texts are being tokenized.
    pub max_wait: Duration,
    /// Tokens of all requests that wait or are computed.
    pub max_queue_tokens: usize,
    /// Bytes that the bodies and the answers of all requests take.
    pub max_queue_bytes: usize,
    /// Bytes of the body of a request.
    pub max_body_bytes: usize,
    /// Bytes of a text.
    pub max_text_bytes: usize,
    /// Texts of a request, at most [`MOST_INPUTS`].
    pub max_inputs: usize,
    /// Open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// The time in which a client sends the head of a request, and again its body. An idle connection is closed as late.
    pub read_timeout: Duration,
    /// The time in which a client takes a part of an answer.
    pub write_timeout: Duration,
    /// Threads that tokenize texts and write answers, beside those of the engine.
    pub threads: usize,
}

/// The highest [`Settings::max_inputs`].
pub const MOST_INPUTS: usize = 16_384;

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_key: None,
            max_batch_tokens: 4096,
            max_wait: Duration::from_millis(2),
            max_queue_tokens: 1 << 17,
            max_queue_bytes: 128 << 20,
            max_body_bytes: 2 << 20,
            max_text_bytes: 64 << 10,
            max_inputs: 2048,
            max_connections: 512,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            threads: 2,
        }
    }
}
