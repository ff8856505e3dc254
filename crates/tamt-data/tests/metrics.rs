//! Metrics and span answers, compared with scikit-learn, scipy and the reference implementation.
//! `tests/fixtures/make_metrics.py` makes the expected values.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tamt_data::metrics::{Metric, exact_match, normalize_answer, score, token_f1};
use tamt_data::squad::{
    BestThresholds, Dataset, PredictOptions, Prediction, SpanScores, WindowLogits, WindowOptions, Windows, evaluate,
    nbest_json, predict, predictions_json,
};
use tamt_data::tasks::Label;
use tamt_data::{Error, Tokenizer};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Fixture {
    scores: Vec<Scores>,
    answers: Vec<Answer>,
    spans: Vec<Spans>,
}

#[derive(Deserialize)]
struct Scores {
    name: String,
    classes: bool,
    predictions: Vec<f32>,
    gold: Vec<f32>,
    metrics: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
struct Answer {
    prediction: String,
    gold: String,
    normal: String,
    exact: f64,
    f1: f64,
}

#[derive(Deserialize)]
struct Spans {
    vocab: Vec<String>,
    unanswerable: bool,
    null_threshold: f64,
    max_length: usize,
    stride: usize,
    max_query: usize,
    n_best: usize,
    max_answer: usize,
    data: Value,
    windows: Vec<WindowFixture>,
    predictions: BTreeMap<String, String>,
    nbest: Vec<(String, f64, f32, f32)>,
    nbest_counts: Vec<usize>,
    odds: BTreeMap<String, f64>,
    scores: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct WindowFixture {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    answer: (usize, usize),
    start: Vec<f32>,
    end: Vec<f32>,
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The dataset of a fixture, and its windows.
fn load(spans: &Spans) -> (TempDir, Dataset, Windows) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vocab.txt"), spans.vocab.join("\n")).unwrap();
    let file = dir.path().join("data.json");
    fs::write(&file, spans.data.to_string()).unwrap();
    let dataset = Dataset::read_file(&file).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let options = WindowOptions { max_length: spans.max_length, stride: spans.stride, max_query: spans.max_query };
    let windows = Windows::new(&dataset, &tokenizer, options).unwrap();
    (dir, dataset, windows)
}

fn predictions(spans: &Spans, dataset: &Dataset, windows: &Windows) -> Vec<Prediction> {
    let logits: Vec<WindowLogits> =
        spans.windows.iter().map(|w| WindowLogits { start: w.start.clone(), end: w.end.clone() }).collect();
    let options = PredictOptions {
        n_best: spans.n_best,
        max_answer_tokens: spans.max_answer,
        unanswerable: spans.unanswerable,
        null_threshold: spans.null_threshold,
    };
    predict(dataset, windows, &logits, options).unwrap()
}

/// The text with one space between words, for a comparison with the reference implementation, which splits contexts into
/// words. This crate's answers are exact substrings of the context.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

#[test]
fn metrics_are_those_of_scikit_learn_and_scipy() {
    let scores = fixture().scores;
    assert!(scores.len() >= 19);
    for case in scores {
        let label = |&v: &f32| if case.classes { Label::Class(v as u32) } else { Label::Value(v) };
        let predictions: Vec<Label> = case.predictions.iter().map(label).collect();
        let gold: Vec<Label> = case.gold.iter().map(label).collect();
        for (key, expected) in case.metrics {
            let metric = Metric::by_key(&key).unwrap();
            let found = score(&[metric], &predictions, &gold).unwrap().get(metric).unwrap();
            let what = format!("{}, {key}", case.name);
            let Some(expected) = expected else {
                assert!(found.is_nan(), "{what}: {found}");
                continue;
            };
            // An offset of 1e4 and another order of summation cost some precision.
            let tolerance = if case.classes { 1e-12 } else { 1e-9 };
            assert!((found - expected).abs() < tolerance, "{what}: {found}, not {expected}");
        }
    }
}

#[test]
fn answers_are_normalized_and_compared_as_by_the_reference() {
    for answer in fixture().answers {
        let what = format!("{:?} for {:?}", answer.prediction, answer.gold);
        assert_eq!(normalize_answer(&answer.prediction), answer.normal, "{what}");
        assert_close(exact_match(&answer.prediction, &answer.gold), answer.exact, &what);
        assert_close(token_f1(&answer.prediction, &answer.gold), answer.f1, &what);
    }
}

#[test]
fn windows_and_the_positions_of_answers_are_those_of_the_reference() {
    for spans in fixture().spans {
        let (_dir, _, windows) = load(&spans);
        assert_eq!(windows.len(), spans.windows.len());
        let mut placed = 0;
        for (i, expected) in spans.windows.iter().enumerate() {
            let (mut ids, mut type_ids) = (Vec::new(), Vec::new());
            windows.fill(i, &mut ids, &mut type_ids);
            assert_eq!((&ids, &type_ids), (&expected.ids, &expected.type_ids), "window {i}");
            assert_eq!(windows.ids_len(i), ids.len());
            assert_eq!(windows.window(i).answer, expected.answer, "window {i}");
            placed += usize::from(expected.answer != (0, 0));
        }
        assert!(placed >= 10 && placed < spans.windows.len(), "{placed} of {} hold an answer", windows.len());
    }
}

#[test]
fn answers_and_n_best_lists_are_those_of_the_reference() {
    for spans in fixture().spans {
        let (_dir, dataset, windows) = load(&spans);
        let found = predictions(&spans, &dataset, &windows);
        let mut nbest = spans.nbest.iter();
        let mut empty = 0;
        for (prediction, &count) in found.iter().zip(&spans.nbest_counts) {
            assert_eq!(spaced(&prediction.text), spans.predictions[&prediction.id], "{}", prediction.id);
            assert_eq!(prediction.candidates.len(), count, "{}", prediction.id);
            empty += usize::from(prediction.text.is_empty());
            for (candidate, (text, probability, start, end)) in prediction.candidates.iter().zip(&mut nbest) {
                let found = (&spaced(&candidate.text), candidate.start_logit, candidate.end_logit);
                assert_eq!(found, (text, *start, *end));
                assert_close(candidate.probability, *probability, &prediction.id);
            }
            match spans.odds.get(&prediction.id) {
                Some(&odds) => assert_close(prediction.null_score_diff.unwrap(), odds, &prediction.id),
                None => assert_eq!(prediction.null_score_diff, None),
            }
        }
        assert_eq!(empty > 0, spans.unanswerable, "{empty} without an answer");
    }
}

#[test]
fn scores_and_best_thresholds_are_those_of_the_reference() {
    for spans in fixture().spans {
        let (_dir, dataset, windows) = load(&spans);
        let found = predictions(&spans, &dataset, &windows);
        let SpanScores { all, has_answer, no_answer } = evaluate(&dataset, &found).unwrap();
        assert_close(all.exact_match, spans.scores["exact"], "exact match");
        assert_close(all.f1, spans.scores["f1"], "F1");
        assert_eq!(all.total as f64, spans.scores["total"]);
        assert_eq!(no_answer.is_some(), spans.unanswerable);
        let parts = [("HasAns", has_answer), ("NoAns", no_answer)];
        for (name, part) in parts.into_iter().filter_map(|(name, part)| Some((name, part?))) {
            assert_close(part.exact_match, spans.scores[&format!("{name}_exact")], name);
            assert_close(part.f1, spans.scores[&format!("{name}_f1")], name);
            assert_eq!(part.total as f64, spans.scores[&format!("{name}_total")]);
        }
        if spans.unanswerable {
            let best = BestThresholds::best(&dataset, &found).unwrap();
            assert_close(best.best_exact, spans.scores["best_exact"], "best exact match");
            assert_close(best.best_f1, spans.scores["best_f1"], "best F1");
            assert_close(best.best_exact_threshold, spans.scores["best_exact_thresh"], "its threshold");
            assert_close(best.best_f1_threshold, spans.scores["best_f1_thresh"], "its threshold");
        }
    }
}

#[test]
fn predictions_are_written_as_the_official_scripts_read_them() {
    let spans = &fixture().spans[0];
    let (_dir, dataset, windows) = load(spans);
    let found = predictions(spans, &dataset, &windows);
    let answers: BTreeMap<String, String> = serde_json::from_str(&predictions_json(&found)).unwrap();
    let spaced = answers.into_iter().map(|(id, answer)| (id, spaced(&answer))).collect::<BTreeMap<_, _>>();
    assert_eq!(spaced, spans.predictions);
    let nbest: BTreeMap<String, Vec<BTreeMap<String, Value>>> =
        serde_json::from_str(&nbest_json(&found).unwrap()).unwrap();
    assert_eq!(nbest.values().map(Vec::len).sum::<usize>(), spans.nbest.len());
    assert_eq!(nbest[&found[0].id][0]["text"], found[0].candidates[0].text.as_str());
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let spans = &fixture().spans[1];
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (_dir, dataset, windows) = load(spans);
            predictions(spans, &dataset, &windows)
        })
    };
    assert_eq!(with(1), with(5));
}

#[test]
fn logits_that_do_not_fit_the_windows_are_refused() {
    let spans = &fixture().spans[0];
    let (_dir, dataset, windows) = load(spans);
    let options = PredictOptions::default();
    let mut logits: Vec<WindowLogits> = (0..windows.len())
        .map(|i| WindowLogits { start: vec![f32::NAN; windows.ids_len(i)], end: vec![0.0; windows.ids_len(i)] })
        .collect();
    // NaN logits give any answer or none, but no panic.
    assert_eq!(predict(&dataset, &windows, &logits, options).unwrap().len(), dataset.questions.len());
    logits[3].end.pop();
    assert!(matches!(predict(&dataset, &windows, &logits, options), Err(Error::Count { .. })));
    logits.pop();
    assert!(matches!(predict(&dataset, &windows, &logits, options), Err(Error::Count { .. })));
    let none = PredictOptions { n_best: 0, ..options };
    assert!(matches!(predict(&dataset, &windows, &logits, none), Err(Error::OutOfRange { .. })));
}
