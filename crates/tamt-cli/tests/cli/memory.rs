//! Files that claim more memory than they have bytes are refused within an address space of 2 GiB.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::json;

use crate::common::{DEADLINE, Tensors, bert, change_json, copy_of_bert, corpus, json_file, split};

const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";

/// Expects an error with `expected` from a process with an address space of 2 GiB.
#[track_caller]
fn refused(directory: &Path, line: &str, expected: &str) {
    let line = line.replace("BERT", &bert()).replace("CORPUS", &corpus());
    let script = "ulimit -v 2097152; exec \"$0\" \"$@\" --threads 2";
    Command::new("sh")
        .current_dir(directory)
        .args(["-c", script])
        .arg(assert_cmd::cargo::cargo_bin("tamt"))
        .args(split(&line))
        .timeout(DEADLINE)
        .assert()
        .code(1)
        .stdout(is_empty())
        .stderr(starts_with("error: ").and(contains(expected)).and(contains("panicked").not()));
}

/// Spoils a copy of the small BERT with `spoil`, and expects `encode` to refuse it.
#[track_caller]
fn spoiled(spoil: impl FnOnce(&Path), expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let model = directory.path().join("model");
    copy_of_bert(&model);
    spoil(&model);
    refused(directory.path(), "encode --model ./model --input CORPUS --output vectors", expected);
}

fn write(model: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(model.join(name), content).unwrap();
}

/// A safetensors file of a header of this length that begins with `header`.
fn safetensors(length: u64, header: &str) -> Vec<u8> {
    [&length.to_le_bytes()[..], header.as_bytes()].concat()
}

fn nested() -> String {
    format!("{{\"a\":{}", "[".repeat(2_000_000))
}

#[test]
fn sizes_of_a_configuration() {
    for (key, value, expected) in [
        ("hidden_size", 1_000_000_000_u64, "weights"),
        ("vocab_size", 1_000_000_000_000, "`vocab_size` is 1000000000000, which is absurd"),
        ("vocab_size", 100_000_000, "has shape [96, 16], expected [100000000, 16]"),
        ("intermediate_size", 100_000_000, "has shape [32, 16], expected [100000000, 16]"),
        ("type_vocab_size", 100_000_000, "expected [100000000, 16]"),
        ("max_position_embeddings", 100_000_000, "expected [100000000, 16]"),
        ("num_hidden_layers", 1000, "has no tensor `encoder.layer.2"),
    ] {
        let spoil = |model: &Path| {
            change_json(model.join("config.json"), |config| {
                config[key] = value.into();
                if key == "hidden_size" {
                    config["num_attention_heads"] = json!(1);
                }
            });
        };
        spoiled(spoil, expected);
    }
}

#[test]
fn sizes_of_a_new_model() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = json_file(bert() + "/config.json");
    config["vocab_size"] = json!(100_000_000);
    write(directory.path(), "config.json", config.to_string());
    refused(
        directory.path(),
        "pretrain --new config.json --tokenizer BERT --corpus CORPUS --max-steps 1 --output-dir run",
        "needs 25600",
    );
    assert!(!directory.path().join("run").exists());
}

#[test]
fn headers_of_weights() {
    let spoil = |content: Vec<u8>| move |model: &Path| write(model, "model.safetensors", content);
    spoiled(spoil(safetensors(1 << 40, "{}")), "model.safetensors is malformed");
    spoiled(spoil(safetensors(90_000_000, &" ".repeat(90_000_000))), "model.safetensors is malformed");
    spoiled(spoil(safetensors(nested().len() as u64, &nested())), "model.safetensors is malformed");
    let shape = |model: &Path| {
        let path = model.join("model.safetensors");
        let mut tensors = Tensors::read(&path);
        tensors.header[QUERY]["shape"] = json!([1_u64 << 31, 1_u64 << 31]);
        tensors.write(&path);
    };
    spoiled(shape, "model.safetensors is malformed");
    let pickle = |model: &Path| {
        fs::remove_file(model.join("model.safetensors")).unwrap();
        // A text of 2 GiB.
        write(model, "pytorch_model.bin", b"\x80\x02X\0\0\0\x80abc");
    };
    spoiled(pickle, "pytorch_model.bin is not supported");
}

#[test]
fn depth_of_json() {
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        spoiled(|model| write(model, name, nested()), name);
    }
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "train-v1.1.json", nested());
    write(directory.path(), "dev-v1.1.json", nested());
    refused(directory.path(), "tune --model BERT --task squad --data . --output-dir run", "train-v1.1.json");
}

#[test]
fn a_tokenizer_with_an_enormous_id() {
    let spoil = |model: &Path| {
        change_json(model.join("tokenizer.json"), |tokenizer| {
            tokenizer["model"]["vocab"]["enormous"] = json!(u32::MAX - 1);
        });
    };
    spoiled(spoil, "knows 4294967295 tokens and the model's embeddings have 96 rows");
}

#[test]
fn shapes_of_a_ticket() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = |shapes: &str, shape: [u64; 2]| {
        let header = json!({
            "__metadata__": {"base_sha256": "0", "shapes": shapes},
            "a.bitmask": {"dtype": "U8", "shape": shape, "data_offsets": [0, 1]},
        });
        let header = header.to_string();
        let file = [safetensors(header.len() as u64, &header), vec![0]].concat();
        fs::write(directory.path().join("ticket"), file).unwrap();
    };
    for (shapes, shape) in [
        ("{\"a\":[1,18446744073709551615]}", [1, 1]),
        ("{\"a\":[4611686018427387904,8]}", [1, 1]),
        ("{}", [1 << 40, 1 << 40]),
        (nested().as_str(), [1, 1]),
    ] {
        ticket(shapes, shape);
        refused(directory.path(), "inspect ticket", "ticket is damaged");
    }
}
