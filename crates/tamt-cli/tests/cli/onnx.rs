//! What `export --format onnx` writes for models with heads, by the names in the file: no program reads it here.

use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::json;

use crate::common::{Tensors, at, bytes, change_json, copy_of_classifier, tamt};

/// A copy of the golden BERT with a classifier and its tokenizer, of another class of `transformers`.
fn classifier(to: &Path, class: &str) -> String {
    let model = copy_of_classifier("bert", to);
    change_json(format!("{model}/config.json"), |config| config["architectures"] = json!([class]));
    model
}

/// Whether the file of an export names a value.
fn names(export: &str, name: &str) -> bool {
    bytes(format!("{export}/model.onnx")).windows(name.len()).any(|window| window == name.as_bytes())
}

#[test]
fn a_head_that_is_not_known_is_exported_only_as_an_encoder_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let model = classifier(&directory.path().join("model"), "BertForTokenClassification");
    let onnx = at(&directory, "onnx");
    let line = format!("export --model {model} --format onnx --output-dir {onnx}");
    let expected = contains("--pool: ").and(contains("its head is that of a BertForTokenClassification"));
    tamt(&line).code(2).stderr(expected.and(contains("mean exports the encoder's vectors")));
    assert!(!Path::new(&onnx).exists());
    tamt(&format!("{line} --pool mean")).success();
    assert!(names(&onnx, "sentence_embedding") && !names(&onnx, "logits"));
}

#[test]
fn of_two_heads_the_one_that_predicts_is_exported() {
    for (class, spans) in [("BertForSequenceClassification", false), ("BertForQuestionAnswering", true)] {
        let directory = tempfile::tempdir().unwrap();
        let model = classifier(&directory.path().join("model"), class);
        let path = Path::new(&model).join("model.safetensors");
        let mut tensors = Tensors::read(&path);
        for (name, shape) in [("weight", vec![2, 16]), ("bias", vec![2])] {
            let (start, n) = (tensors.data.len(), shape.iter().product::<usize>());
            tensors.data.extend(vec![0; 4 * n]);
            let info = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, tensors.data.len()]});
            tensors.header.insert(format!("qa_outputs.{name}"), info);
        }
        tensors.write(&path);
        let onnx = at(&directory, "onnx");
        tamt(&format!("export --model {model} --format onnx --output-dir {onnx}")).success();
        assert_eq!((names(&onnx, "start_logits"), names(&onnx, "sentence_embedding")), (spans, false), "{class}");
    }
}
