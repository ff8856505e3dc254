//! The most memory that a server takes.

use std::fs;

use crate::settings::Settings;

/// Bytes of a token that waits: id, type, and the share of its text's entry in the queue.
const TOKEN: usize = 64;

/// Bytes of a connection: the buffers of its input and output, and its tasks.
const CONNECTION: usize = 2 * CONNECTION_BUFFER + (16 << 10);

/// Bytes of the buffer of a connection's input, and the longest head of a request.
pub(crate) const CONNECTION_BUFFER: usize = 32 << 10;

/// Bytes that the tokenizer takes for each byte of a text, at most: a token of one byte with its spelling and its place.
const TOKENIZED_BYTE: usize = 512;

/// Bytes that a body takes for each of its bytes: the body, its growing buffer and the texts read from it.
pub(crate) const BODY: usize = 4;

/// Bytes that each number of an answer takes: itself, and its digits in a growing buffer.
pub(crate) const ANSWERED: usize = 4 + 2 * 16;

/// Bytes that the allocator may keep beside those in use.
const SLACK: usize = 32 << 20;

/// The resident memory of this process in bytes; `None` where the operating system does not tell.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

/// The most bytes that requests take, whatever they are: in the queue, as bodies and answers, in connections, and while
/// their texts are tokenized.
pub(crate) fn of_requests(settings: &Settings) -> u64 {
    let parts = [
        settings.max_queue_bytes,
        settings.max_queue_tokens.saturating_mul(TOKEN),
        settings.max_connections.saturating_mul(CONNECTION),
        settings.threads.saturating_mul(settings.max_text_bytes).saturating_mul(TOKENIZED_BYTE),
        SLACK,
    ];
    parts.iter().fold(0, |sum: u64, &part| sum.saturating_add(part as u64))
}
