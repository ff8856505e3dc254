//! What a server counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds of the latency histogram, in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Share of the newest batch in the running mean of the engine's speed.
const NEWEST: f64 = 0.2;

/// A gauge: its name, its help and its value.
pub(crate) type Gauge = (&'static str, &'static str, u64);

/// Counters since the start of the server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
    /// Open connections.
    pub(crate) connections: AtomicU64,
    /// Failed attempts to accept a connection, as where the process may open no more files.
    pub(crate) accept_failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    /// Answers by path and status.
    answers: BTreeMap<(&'static str, u16), u64>,
    /// Seconds from the head of a request to its answer, by path.
    latencies: BTreeMap<&'static str, Latencies>,
    /// Texts and tokens by model.
    computed: BTreeMap<String, [u64; 2]>,
    batches: u64,
    seconds_computed: f64,
    seconds_of_a_token: Option<f64>,
}

#[derive(Debug, Default)]
struct Latencies {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn answered(&self, path: &'static str, status: u16, time: Duration) {
        let mut counts = self.counts();
        *counts.answers.entry((path, status)).or_default() += 1;
        let latencies = counts.latencies.entry(path).or_default();
        let seconds = time.as_secs_f64();
        latencies.count += 1;
        latencies.sum += seconds;
        if let Some(bucket) = BOUNDS.iter().position(|&bound| seconds <= bound) {
            latencies.buckets[bucket] += 1;
        }
    }

    pub(crate) fn computed(&self, model: &str, texts: usize, tokens: usize, time: Duration) {
        let mut counts = self.counts();
        let seconds = time.as_secs_f64();
        counts.batches += 1;
        counts.seconds_computed += seconds;
        let of_a_token = seconds / tokens.max(1) as f64;
        let mean = counts.seconds_of_a_token.map_or(of_a_token, |mean| mean + NEWEST * (of_a_token - mean));
        counts.seconds_of_a_token = Some(mean);
        if !counts.computed.contains_key(model) {
            counts.computed.insert(model.to_owned(), [0; 2]);
        }
        if let Some([all_texts, all_tokens]) = counts.computed.get_mut(model) {
            *all_texts += texts as u64;
            *all_tokens += tokens as u64;
        }
    }

    /// Answered requests, whatever the status: the sum of `tamt_requests_total`.
    pub(crate) fn requests(&self) -> u64 {
        self.counts().answers.values().sum()
    }

    /// The seconds that the engine takes for so many tokens, by its speed of late.
    pub(crate) fn seconds_for(&self, tokens: usize) -> f64 {
        self.counts().seconds_of_a_token.unwrap_or(0.0) * tokens as f64
    }

    /// All counters and these gauges.
    pub(crate) fn render(&self, gauges: &[Gauge]) -> String {
        let counts = self.counts();
        let mut text = String::new();
        for (name, help, value) in gauges {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        family(&mut text, "tamt_requests_total", "counter", "Answered requests, whatever the status.");
        for ((path, status), count) in &counts.answers {
            let _ = writeln!(text, "tamt_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        family(&mut text, "tamt_request_seconds", "histogram", "Seconds from the head of a request to its answer.");
        for (path, Latencies { buckets, count, sum }) in &counts.latencies {
            let mut below = 0;
            for (bound, own) in BOUNDS.iter().zip(buckets) {
                below += own;
                let _ = writeln!(text, "tamt_request_seconds_bucket{{path=\"{path}\",le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(text, "tamt_request_seconds_bucket{{path=\"{path}\",le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "tamt_request_seconds_sum{{path=\"{path}\"}} {sum}");
            let _ = writeln!(text, "tamt_request_seconds_count{{path=\"{path}\"}} {count}");
        }
        for (i, (name, help)) in
            [("tamt_texts_total", "Computed texts."), ("tamt_tokens_total", "Computed tokens.")].into_iter().enumerate()
        {
            family(&mut text, name, "counter", help);
            for (model, numbers) in &counts.computed {
                let _ = writeln!(text, "{name}{{model=\"{}\"}} {}", escaped(model), numbers[i]);
            }
        }
        family(&mut text, "tamt_accept_failures_total", "counter", "Failed attempts to accept a connection.");
        let _ = writeln!(text, "tamt_accept_failures_total {}", self.accept_failures.load(Ordering::Relaxed));
        family(&mut text, "tamt_batches_total", "counter", "Computed batches.");
        let _ = writeln!(text, "tamt_batches_total {}", counts.batches);
        family(&mut text, "tamt_compute_seconds_total", "counter", "Seconds in which the engine computed.");
        let _ = writeln!(text, "tamt_compute_seconds_total {}", counts.seconds_computed);
        text
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_and_a_name_is_escaped() {
        let metrics = Metrics::default();
        for milliseconds in [1, 3, 40_000] {
            metrics.answered("/embed", 200, Duration::from_millis(milliseconds));
        }
        metrics.answered("/embed", 429, Duration::from_millis(3));
        metrics.computed("a \"b\"", 2, 10, Duration::from_millis(100));
        metrics.computed("a \"b\"", 1, 10, Duration::from_millis(200));
        let text = metrics.render(&[("tamt_connections", "Open connections.", 7)]);
        for line in [
            "tamt_connections 7",
            "tamt_requests_total{path=\"/embed\",status=\"200\"} 3",
            "tamt_requests_total{path=\"/embed\",status=\"429\"} 1",
            "tamt_request_seconds_bucket{path=\"/embed\",le=\"0.002\"} 1",
            "tamt_request_seconds_bucket{path=\"/embed\",le=\"30\"} 3",
            "tamt_request_seconds_bucket{path=\"/embed\",le=\"+Inf\"} 4",
            "tamt_request_seconds_count{path=\"/embed\"} 4",
            "tamt_texts_total{model=\"a \\\"b\\\"\"} 3",
            "tamt_tokens_total{model=\"a \\\"b\\\"\"} 20",
            "tamt_batches_total 2",
            "tamt_accept_failures_total 0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
        // 10 ms a token, then a fifth of the way to 20 ms.
        assert!((metrics.seconds_for(100) - 1.2).abs() < 1e-9);
        assert_eq!(metrics.requests(), 4);
    }
}
