//! The result of a fine-tuning, and the combined result of runs with several seeds.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::inspect::Rates;
use crate::train::{Best, Metrics};

/// The prefix of a metric of the best evaluation, in a result.
pub const BEST_PREFIX: &str = "best_";

/// The result of a finished fine-tuning.
#[derive(Clone, Debug)]
pub struct Tuned {
    pub(super) output_dir: PathBuf,
    pub(super) task: String,
    /// The metric that compares evaluations.
    pub(super) primary: &'static str,
    pub(super) seed: u64,
    pub(super) examples: usize,
    pub(super) steps: u64,
    pub(super) seconds: f64,
    /// The final evaluation.
    pub(super) metrics: Metrics,
    pub(super) best: Option<Best>,
    pub(super) best_metrics: Vec<(String, f64)>,
    /// `None` for the dense model.
    pub(super) rates: Option<Rates>,
}

impl Tuned {
    /// The object in `eval_results.json`: the final evaluation under the names of the metrics, the best one with
    /// [`BEST_PREFIX`] before each name.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("output_dir".into(), json!(self.output_dir.to_string_lossy()));
        map.insert("task".into(), json!(self.task));
        map.insert("seed".into(), json!(self.seed));
        map.insert("train_examples".into(), json!(self.examples));
        map.insert("steps".into(), json!(self.steps));
        map.insert("seconds".into(), json!(self.seconds));
        map.insert("primary_metric".into(), json!(self.primary));
        for (name, value) in &self.metrics {
            map.insert(name.to_string(), json!(value));
        }
        map.insert(format!("{BEST_PREFIX}step"), json!(self.best.map(|best| best.step)));
        for (name, value) in &self.best_metrics {
            map.insert(format!("{BEST_PREFIX}{name}"), json!(value));
        }
        let (sparsity, encoder) = self.rates.as_ref().map_or((0.0, 0.0), |r| (r.sparsity, r.encoder_sparsity));
        map.insert("sparsity".into(), json!(sparsity));
        map.insert("encoder_sparsity".into(), json!(encoder));
        map
    }
}

/// Whether a value of a run's result is a measurement of the model, not a fact about the run.
pub fn is_measured(key: &str) -> bool {
    !["seed", "steps", "best_step", "train_examples", "seconds"].contains(&key)
}

/// The results of runs that differ in their seeds only, with the mean and the sample standard deviation (n - 1) of
/// every number that occurs in all of them.
pub fn summary(output_dir: &Path, runs: &[Map<String, Value>]) -> Map<String, Value> {
    let (mut mean, mut std) = (Map::new(), Map::new());
    for key in runs.first().into_iter().flat_map(Map::keys).filter(|key| is_measured(key)) {
        let values: Option<Vec<f64>> = runs.iter().map(|run| run.get(key)?.as_f64()).collect();
        let Some(values) = values else { continue };
        let (m, s) = mean_and_std(&values);
        mean.insert(key.clone(), json!(m));
        std.insert(key.clone(), json!(s));
    }
    let of = |key: &str| runs.first().and_then(|run| run.get(key)).cloned().unwrap_or_default();
    let sum = |key: &str| runs.iter().filter_map(|run| run.get(key)?.as_f64()).sum::<f64>();
    let steps = runs.iter().filter_map(|run| run.get("steps")?.as_u64()).sum::<u64>();
    let mut map = Map::new();
    map.insert("output_dir".into(), json!(output_dir.to_string_lossy()));
    map.insert("task".into(), of("task"));
    map.insert("primary_metric".into(), of("primary_metric"));
    map.insert("steps".into(), json!(steps));
    map.insert("seconds".into(), json!(sum("seconds")));
    map.insert("sparsity".into(), of("sparsity"));
    map.insert("seeds".into(), runs.iter().map(|run| run.get("seed").cloned().unwrap_or_default()).collect());
    map.insert("mean".into(), Value::Object(mean));
    map.insert("std".into(), Value::Object(std));
    map.insert("runs".into(), json!(runs));
    map
}

/// Mean and sample standard deviation, 0 for a single value.
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_all_runs_have_get_a_mean_and_a_deviation() {
        let run = |value: Value| json!({"task": "rte", "seed": 1, "steps": 4, "accuracy": value, "seconds": 2.0});
        let runs: Vec<_> =
            [json!(0.5), json!(0.7), json!(0.6)].map(run).iter().map(|r| r.as_object().unwrap().clone()).collect();
        let summary = Value::Object(summary(Path::new("out"), &runs));
        assert!((summary["mean"]["accuracy"].as_f64().unwrap() - 0.6).abs() < 1e-12);
        assert!((summary["std"]["accuracy"].as_f64().unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(
            (&summary["steps"], &summary["seconds"], &summary["task"]),
            (&json!(12), &json!(6.0), &json!("rte"))
        );
        assert_eq!(summary["mean"].get("seed"), None);
        assert_eq!(mean_and_std(&[2.0]), (2.0, 0.0));
    }
}
