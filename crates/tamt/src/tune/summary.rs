//! Several seeds as one result.

use std::path::Path;

use serde_json::{Map, Value, json};

/// Whether a value of a run's result is a measurement, and not how the run was carried out.
#[must_use]
pub fn is_measured(key: &str) -> bool {
    !["seed", "steps", "best_step", "train_examples", "seconds"].contains(&key)
}

/// The results of runs that differ in their seeds only, with the mean and the sample standard deviation (n - 1) of
/// every number that all of them have.
#[must_use]
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
    map.insert("output_dir".into(), json!(output_dir));
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

/// Mean and sample standard deviation; the latter 0 for a single value.
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
