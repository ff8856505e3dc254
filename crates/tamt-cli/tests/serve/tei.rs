//! `/embed`, `/predict`, `/info`, `/health` and `/metrics`.

use std::fs;

use serde_json::{Value, json};

use crate::common::{at, bert, change_json, copy_of_bert, copy_of_classifier, object, tamt};
use crate::fixture::{Running, encoded, floats};

const TEXTS: [&str; 3] = ["taltul lordil basgen", "lis", "durbastan rolstir folsta lis taltul starkel"];

#[track_caller]
fn embedded(server: &Running, body: &Value) -> Vec<Vec<f32>> {
    server.post("/embed", body).result().as_array().unwrap().iter().map(floats).collect()
}

#[test]
fn embed_gives_vectors_of_unit_length_unless_told_otherwise() {
    let server = Running::start(&format!("--model {}", bert()));
    let (unit, plain) = (encoded(&TEXTS, "--normalize"), encoded(&TEXTS, ""));
    assert_eq!(embedded(&server, &json!({ "inputs": TEXTS })), unit);
    assert_eq!(embedded(&server, &json!({ "inputs": TEXTS[1], "normalize": true })), unit[1..2]);
    assert_eq!(embedded(&server, &json!({ "inputs": TEXTS, "normalize": false, "truncate": false })), plain);
    let root = server.post("/", &json!({ "inputs": TEXTS, "normalize": false })).result();
    assert_eq!(root.as_array().unwrap().iter().map(floats).collect::<Vec<_>>(), plain);
}

#[test]
fn long_texts_are_cut_as_in_encode_or_refused_as_the_request_says() {
    let server = Running::start(&format!("--model {} --max-length 5", bert()));
    let cut = encoded(&TEXTS, "--normalize --max-length 5");
    assert_eq!(embedded(&server, &json!({ "inputs": TEXTS })), cut);
    assert_eq!(embedded(&server, &json!({ "inputs": TEXTS[2], "truncate": true })), cut[2..]);
    let refused = server.post("/embed", &json!({ "inputs": TEXTS, "truncate": false }));
    assert_eq!((refused.status, refused.json()["error_type"].clone()), (413, json!("validation")));
    assert!(refused.body.contains("tokens; the model takes 5"), "{}", refused.body);
    // OpenAI's form has no such field; a client that sends it wants no vector of a cut text either.
    assert_eq!(server.post("/v1/embeddings", &json!({ "input": TEXTS, "truncate": false })).status, 413);
    assert_eq!(embedded(&server, &json!({ "inputs": "lis", "truncate": false })).len(), 1);
}

#[test]
fn texts_are_cut_at_the_side_of_the_tokenizer_and_no_other_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_bert(&directory.path().join("left"));
    change_json(format!("{model}/tokenizer_config.json"), |config| config["truncation_side"] = json!("left"));
    let server = Running::start(&format!("--model {model} --max-length 5"));
    let ask = |side: &str| server.post("/embed", &json!({ "inputs": TEXTS[2], "truncation_direction": side }));
    assert_eq!(ask("right").status, 422);
    assert_eq!(ask("Left").result(), server.post("/embed", &json!({ "inputs": TEXTS[2] })).result());
    let end = encoded(&[TEXTS[2]], "--normalize --max-length 5");
    assert_ne!(floats(&ask("left").result()[0]), end[0], "the beginning is cut");
}

/// The probabilities that `tamt predict` gives for the records of a TSV file with the columns `a` and `b`.
fn predicted(model: &str, rows: &[(&str, &str)]) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (at(&directory, "pairs.tsv"), at(&directory, "labels.jsonl"));
    let is_pair = rows.iter().any(|(_, second)| !second.is_empty());
    let line = |(first, second): &(&str, &str)| {
        if is_pair { format!("{first}\t{second}\n") } else { format!("{first}\n") }
    };
    fs::write(&input, line(&("a", "b")) + &rows.iter().map(line).collect::<String>()).unwrap();
    let columns = if is_pair { "a,b" } else { "a" };
    let flags = format!("--input {input} --columns {columns} --output {output} --quiet --json");
    object(&tamt(&format!("predict --model {model} {flags}")).success());
    fs::read_to_string(&output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Label and score of each entry, by label.
fn scores(entries: &Value) -> Vec<(String, f64)> {
    let entries = entries.as_array().unwrap().iter();
    let mut all: Vec<_> =
        entries.map(|entry| (entry["label"].as_str().unwrap().to_owned(), entry["score"].as_f64().unwrap())).collect();
    assert!(all.is_sorted_by(|a, b| a.1 >= b.1), "the best comes first: {all:?}");
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn predictions_have_the_probabilities_of_predict() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("classifier"));
    let server = Running::start(&format!("--head labels={model}"));
    let single = predicted(&model, &TEXTS.map(|text| (text, "")));
    let expected = |line: &Value| -> Vec<(String, f64)> {
        let all = line["probabilities"].as_object().unwrap().iter();
        all.map(|(label, value)| (label.clone(), value.as_f64().unwrap())).collect()
    };
    let pair = predicted(&model, &[(TEXTS[0], TEXTS[1])]);

    let batch = server.post("/predict", &json!({ "inputs": TEXTS.map(|text| [text]) })).result();
    for (entries, line) in batch.as_array().unwrap().iter().zip(&single) {
        assert_eq!(scores(entries), expected(line));
        assert_eq!(entries[0]["label"], line["label"]);
    }
    let one = server.post("/predict", &json!({ "inputs": TEXTS[0], "model": "labels" })).result();
    assert_eq!(scores(&one), expected(&single[0]));
    let two = server.post("/predict", &json!({ "inputs": [TEXTS[0], TEXTS[1]] })).result();
    assert_eq!(scores(&two), expected(&pair[0]));
    let mixed = server.post("/predict", &json!({ "inputs": [[TEXTS[0], TEXTS[1]], [TEXTS[2]]] })).result();
    assert_eq!([scores(&mixed[0]), scores(&mixed[1])], [expected(&pair[0]), expected(&single[2])]);

    let raw = scores(&server.post("/predict", &json!({ "inputs": TEXTS[0], "raw_scores": true })).result());
    let sum: f64 = raw.iter().map(|(_, logit)| logit.exp()).sum();
    for ((label, logit), (same, probability)) in raw.iter().zip(expected(&single[0])) {
        assert_eq!(label, &same);
        assert!((logit.exp() / sum - probability).abs() < 1e-6);
    }
}

#[test]
fn mistakes_are_refused_with_the_error_object_of_the_form() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("classifier"));
    let server = Running::start(&format!("--model {} --head labels={model}", bert()));
    for (path, body, status, said) in [
        ("/embed", "{", 400, "EOF"),
        ("/embed", "{}", 422, "missing field `inputs`"),
        ("/embed", r#"{"inputs": {}}"#, 422, "a text or a list of texts"),
        ("/embed", r#"{"inputs": [["a"]]}"#, 422, "lists of texts"),
        ("/embed", r#"{"inputs": "a", "normalize": 1}"#, 422, "invalid type"),
        ("/embed", r#"{"inputs": "a", "prompt_name": "query"}"#, 422, "prompts have no names"),
        (
            "/embed",
            r#"{"inputs": "a", "truncation_direction": "left"}"#,
            422,
            "cuts texts at the other side, \"right\"",
        ),
        ("/embed", r#"{"inputs": "a", "dimensions": 3}"#, 422, "has vectors of 16 numbers, not 3"),
        ("/predict", r#"{"inputs": "a", "prompt_name": "query"}"#, 422, "prompts have no names"),
        (
            "/predict",
            r#"{"inputs": "a", "truncation_direction": "Left"}"#,
            422,
            "cuts texts at the other side, \"right\"",
        ),
        ("/embed", r#"{"inputs": "a", "model": "labels"}"#, 422, "ask /predict"),
        ("/embed", r#"{"inputs": "a", "model": "x"}"#, 404, "there is no model x"),
        ("/embed?model=x", r#"{"inputs": "a"}"#, 404, "there is no model x"),
        ("/predict", r#"{"inputs": "a", "model": "bert"}"#, 422, "ask /embed"),
        ("/predict", r#"{"inputs": ["a"]}"#, 422, "a pair [a, b]"),
        ("/predict", r#"{"inputs": ["a", "b", "c"]}"#, 422, "a pair [a, b]"),
        ("/predict", r#"{"inputs": [["a", "b", "c"]]}"#, 422, "a text or a pair"),
        ("/predict", r#"{"inputs": [[]]}"#, 422, "a pair [a, b]"),
        ("/predict", r#"{"inputs": []}"#, 422, "a pair [a, b]"),
        ("/nothing", "", 404, "there is no /nothing here"),
        ("/info", "", 405, "no method POST"),
    ] {
        let answer = server.connect().ask("POST", path, "", body).unwrap();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        let error = answer.json();
        assert_eq!(error["error_type"], "validation");
        assert!(error["error"].as_str().unwrap().contains(said), "{path} {body}: {error}");
    }
}

#[test]
fn a_server_describes_itself_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_classifier("bert", &directory.path().join("classifier"));
    let flags = format!("--head labels={model} --max-batch-tokens 100 --max-inputs 7");
    let server = Running::start(&format!("--model {} {flags}", bert()));
    let info = server.get("/info").result();
    for (key, value) in [
        ("model_id", json!("bert")),
        ("model_type", json!({ "embedding": { "pooling": "mean" } })),
        ("max_input_length", json!(40)),
        ("max_batch_tokens", json!(100)),
        ("max_client_batch_size", json!(7)),
    ] {
        assert_eq!(info[key], value, "{key}");
    }
    let labels = &info["models"][1];
    assert_eq!((&labels["name"], &labels["outputs"]), (&json!("labels"), &json!(3)));
    assert_eq!(labels["model_type"]["classifier"]["id2label"].as_object().unwrap().len(), 3);
    assert_eq!(server.get("/health").status, 200);

    server.post("/embed", &json!({ "inputs": TEXTS })).result();
    server.post("/predict", &json!({ "inputs": TEXTS[0] })).result();
    server.post("/embed", &json!({}));
    let metrics = server.get("/metrics").body;
    for line in [
        "tamt_requests_total{path=\"/embed\",status=\"200\"} 1",
        "tamt_requests_total{path=\"/embed\",status=\"422\"} 1",
        "tamt_request_seconds_count{path=\"/predict\"} 1",
        "tamt_texts_total{model=\"bert\"} 3",
        "tamt_texts_total{model=\"labels\"} 1",
        "tamt_queue_tokens_limit 131072",
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} is not in\n{metrics}");
    }
    server.wait_for("tamt_queue_tokens", 0);
    server.wait_for("tamt_queue_bytes", 0);
    server.wait_for("tamt_connections", 1);
    if cfg!(target_os = "linux") {
        let bound = server.metric("tamt_memory_bound_bytes");
        assert!(server.metric("process_resident_memory_bytes") < bound);
        assert_eq!(info["memory_bound_bytes"], bound);
    }
}
