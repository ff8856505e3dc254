//! New models, and new heads for models without one.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::common::{Tensors, at, bert, copy_of_bert, corpus, json_file, object, tamt};

const TRAINING: &str = "--max-steps 30 --batch-size 4 --block-size 16 --learning-rate 5e-3";

#[test]
fn a_new_model_is_trained_and_can_be_used_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let model = at(&directory, "model");
    let line = format!("pretrain --new {}/config.json --tokenizer {0} --corpus {}", bert(), corpus());
    let result =
        object(&tamt(&format!("{line} --eval-corpus {} --output-dir {model} {TRAINING} --json", corpus())).success());
    // A uniform prediction over 96 word pieces has a loss of ln 96 = 4.56.
    let loss = result["mlm_loss"].as_f64().unwrap();
    assert!(loss < 4.4, "{loss}");
    assert_eq!(json_file(format!("{model}/config.json"))["architectures"][0], "BertForMaskedLM");

    let evaluated =
        object(&tamt(&format!("eval --model {model} --corpus {} --block-size 16 --json", corpus())).success());
    assert_eq!(evaluated["mlm_loss"], result["mlm_loss"]);

    // The model has a pooler, which no objective trains.
    let run = at(&directory, "run");
    let find = format!("find --model {model} --method tamt-kd --sparsity 0.5 --corpus {} {TRAINING}", corpus());
    tamt(&format!("{find} --output-dir {run}"))
        .success()
        .stdout(contains("pooler.dense.weight has the mask it started from: no objective reaches it"));
    tamt(&format!("{find} --output-dir {run} --resume"))
        .success()
        .stdout(contains("this run has finished; its result was:").and(contains("pooler.dense.weight has the mask")));
}

#[test]
fn training_a_head_leaves_the_encoder_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let headless = copy_of_bert(&directory.path().join("headless"));
    let mut weights = Tensors::read(format!("{headless}/model.safetensors"));
    for name in weights.names() {
        if name.starts_with("cls.") {
            weights.rename(&name, &format!("unused.{name}"));
        }
    }
    weights.write(format!("{headless}/model.safetensors"));

    // A model without a head has no MLM loss: `eval` omits it, and training on it is an error with advice.
    let evaluation = format!("eval --model {headless} --corpus {} --block-size 16 --json", corpus());
    let result = object(&tamt(&evaluation).success());
    assert!(!result.contains_key("mlm_loss") && result["kd_cosine"] == 0.0, "{result:?}");
    tamt(&format!("{evaluation} --objective mlm")).code(1).stderr(contains("tamt pretrain --train head"));
    tamt(&format!(
        "find --model {headless} --method tamt-mlm --sparsity 0.7 --corpus {} --output-dir {} {TRAINING}",
        corpus(),
        at(&directory, "ticket")
    ))
    .code(1)
    .stderr(contains("tamt pretrain --train head"));

    let output = at(&directory, "with-head");
    tamt(&format!("pretrain --model {headless} --train head --corpus {} --output-dir {output} {TRAINING}", corpus()))
        .success();
    assert!(Path::new(&output).join("vocab.txt").is_file());
    let trained = Tensors::read(format!("{output}/model.safetensors"));
    let encoder: Vec<_> = trained.names().into_iter().filter(|name| name.starts_with("bert.")).collect();
    assert_eq!(encoder.len(), 37);
    for name in encoder {
        assert_eq!(trained.bytes(&name), weights.bytes(&name), "{name}");
    }
    assert!(trained.floats("cls.predictions.bias").iter().any(|&value| value != 0.0));
    assert!(object(&tamt(&evaluation.replace(&headless, &output)).success()).contains_key("mlm_loss"));
}

#[test]
fn a_tokenizer_of_a_new_model_needs_no_model_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let tokenizer = at(&directory, "tokenizer");
    fs::create_dir(&tokenizer).unwrap();
    let line = |tokenizer: &str, model: &str| {
        let model = at(&directory, model);
        format!(
            "pretrain --new {}/config.json --tokenizer {tokenizer} --corpus {} --output-dir {model} --max-steps 2 \
             --batch-size 2 --block-size 16 --learning-rate 1e-3 --json",
            bert(),
            corpus()
        )
    };
    tamt(&line(&tokenizer, "none")).failure().code(1).stderr(contains("no config.json"));
    for file in ["tokenizer.json", "tokenizer_config.json", "vocab.txt"] {
        fs::copy(format!("{}/{file}", bert()), format!("{tokenizer}/{file}")).unwrap();
    }
    tamt(&line(&tokenizer, "alone")).success();
    tamt(&line(&bert(), "beside")).success();
    let weights = |model: &str| fs::read(at(&directory, format!("{model}/model.safetensors"))).unwrap();
    assert_eq!(weights("alone"), weights("beside"));
}

#[test]
fn a_vocabulary_that_the_new_model_has_no_rows_for_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        fs::read_to_string(bert() + "/config.json").unwrap().replace("\"vocab_size\": 96", "\"vocab_size\": 95");
    fs::write(at(&directory, "config.json"), config).unwrap();
    let line = format!("pretrain --new {} --tokenizer {}", at(&directory, "config.json"), bert());
    tamt(&format!("{line} --corpus {} --output-dir {} {TRAINING}", corpus(), at(&directory, "run")))
        .code(1)
        .stderr(contains("knows 96 tokens").and(contains("95 rows")));
}
