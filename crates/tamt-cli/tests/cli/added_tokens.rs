//! Tokens that were added to a vocabulary: they are read, and written with every model.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::json;

use crate::common::{Tensors, at, bert, corpus, golden, json_file, magnitude, tamt};
use crate::task_files::cola;

const TRAINING: &str = "--max-steps 2 --batch-size 4 --block-size 16";

/// The tokenizer of the small BERT with a token of two words' pieces, and a configuration with a row for the token.
fn tokenizer(directory: &Path) {
    let vocabulary = fs::read_to_string(Path::new(&bert()).join("vocab.txt")).unwrap();
    let pieces = vocabulary.lines().count();
    let mut config = json_file(bert() + "/config.json");
    config["vocab_size"] = json!(pieces + 1);
    for (name, content) in [
        ("vocab.txt", vocabulary),
        ("config.json", config.to_string()),
        ("tokenizer_config.json", json!({"tokenizer_class": "BertTokenizer"}).to_string()),
        ("added_tokens.json", json!({"covid-19": pieces}).to_string()),
        ("text", "Covid-19\n".to_owned()),
    ] {
        fs::write(directory.join(name), content).unwrap();
    }
}

#[test]
fn added_tokens_are_written_with_every_model() {
    let directory = tempfile::tempdir().unwrap();
    tokenizer(directory.path());
    let [model, ticket, applied, tuned] = ["model", "ticket", "applied", "tuned"].map(|name| at(&directory, name));
    let source = at(&directory, "");
    let line = format!("pretrain --new {source}/config.json --tokenizer {source} --corpus {}", corpus());
    tamt(&format!("{line} --output-dir {model} {TRAINING} --quiet")).success();
    magnitude(&model, 0.5, &ticket);
    tamt(&format!("apply --model {model} --ticket {ticket} --output-dir {applied} --quiet")).success();
    let data = cola(&directory.path().join("tasks/CoLA"));
    let line = format!("tune --model {model} --ticket {ticket} --task cola --data {data} --max-steps 2");
    tamt(&format!("{line} --output-dir {tuned} --quiet")).success();
    for written in [model, applied, tuned] {
        let output = format!("{written}.safetensors");
        let input = at(&directory, "text");
        tamt(&format!("encode --model {written} --input {input} --pool none --output {output} --quiet")).success();
        // [CLS] covid-19 [SEP]; without the added token each of its letters is a piece.
        assert_eq!(Tensors::read(&output).shape("text.0")[0], 3, "{written}");
    }
}

#[test]
fn a_tokenizer_of_another_class_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    tokenizer(directory.path());
    let config = json!({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"});
    fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::copy(golden("bert/model.safetensors"), directory.path().join("model.safetensors")).unwrap();
    fs::copy(golden("bert/config.json"), directory.path().join("config.json")).unwrap();
    tamt(&format!("encode --model {} --input - --output {}", at(&directory, ""), at(&directory, "x.safetensors")))
        .code(1)
        .stderr(contains("tokenizer_config.json").and(contains("tokenizer_class is \"BertJapaneseTokenizer\"")));
}
