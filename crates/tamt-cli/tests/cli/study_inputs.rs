//! A run of a study is known by the content of its inputs.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Tensors, at, bert, bytes, copy_of_bert, corpus, magnitude, object, tamt};
use crate::task_files::{cola_rows, write};

/// Two searches, of which one trains; the losses and fine-tunings of their tickets and of the dense model.
const PLAN: &str = "[base]\nmodel = 'model'\ncorpus = ['train.txt']\nvalidation = ['valid.txt']\n\
    [tickets]\nmethods = ['magnitude', 'tamt-mlm']\nsparsities = [0.5]\nseeds = [1]\nmax-steps = 2\nbatch-size = 2\n\
    block-size = 12\nlearning-rate = 1e-3\n[losses]\n[tasks]\nnames = ['cola']\nseeds = [1]\nmax-steps = 2\n\
    batch-size = 8\nmax-length = 16\n[tasks.cola]\ndata = 'data'\n";

/// The runs of [`PLAN`], without digests.
const RUNS: [&str; 8] = [
    "losses/dense",
    "losses/magnitude-0.5",
    "losses/tamt-mlm-0.5-seed1",
    "tasks/cola-seed1-dense",
    "tasks/cola-seed1-magnitude-0.5",
    "tasks/cola-seed1-tamt-mlm-0.5-seed1",
    "tickets/magnitude-0.5",
    "tickets/tamt-mlm-0.5-seed1",
];

/// The runs that are not done, without the digests in their names.
fn new_runs(line: &str) -> Vec<String> {
    let status = object(&tamt(&format!("{line} --status --json")).success());
    let new = status["runs"].as_array().unwrap().iter().filter(|run| run["state"] != "done");
    let name = |run: &Value| run["run"].as_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    let mut names: Vec<String> = new.map(name).collect();
    names.sort_unstable();
    names
}

/// The same text, data or weights but for a part, in a file of another size.
fn changed(name: &str, content: &[u8]) -> Vec<u8> {
    if !name.ends_with(".safetensors") {
        return [content, b"\n"].concat();
    }
    let mut tensors = Tensors::parse(content);
    tensors.data[0] ^= 1;
    tensors.header.insert("__metadata__".to_owned(), json!({ "format": "pt", "made": "for another run" }));
    tensors.to_bytes()
}

#[test]
fn a_changed_file_makes_new_the_runs_that_depend_on_it_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    copy_of_bert(&path("model"));
    for text in ["train.txt", "valid.txt"] {
        fs::copy(corpus(), path(text)).unwrap();
    }
    write(&path("data"), "train.tsv", &cola_rows(0, 16));
    write(&path("data"), "dev.tsv", &cola_rows(1000, 8));
    write(directory.path(), "plan.toml", PLAN);
    let line = format!("study {} --output-dir {}", at(&directory, "plan.toml"), at(&directory, "out"));
    assert_eq!(new_runs(&line), RUNS);
    tamt(&format!("{line} --quiet")).success();
    assert!(new_runs(&line).is_empty());

    let of = |part: &str| RUNS.into_iter().filter(|run| run.contains(part)).collect::<Vec<_>>();
    for (name, dependent) in [
        ("train.txt", of("tamt-mlm")),
        ("valid.txt", of("losses/")),
        ("data/train.tsv", of("tasks/")),
        ("data/dev.tsv", of("tasks/")),
        ("model/model.safetensors", RUNS.to_vec()),
        ("model/tokenizer.json", RUNS.to_vec()),
    ] {
        let content = bytes(path(name));
        fs::write(path(name), changed(name, &content)).unwrap();
        assert_eq!(new_runs(&line), dependent, "{name}");
        fs::write(path(name), content).unwrap();
        assert!(new_runs(&line).is_empty(), "{name} is as it was");
    }

    // The same text by another name.
    fs::rename(path("train.txt"), path("same.txt")).unwrap();
    write(directory.path(), "plan.toml", &PLAN.replace("train.txt", "same.txt"));
    assert!(new_runs(&line).is_empty());
}

#[test]
fn a_search_starts_from_a_ticket_of_other_weights_where_the_plan_allows_that_alone() {
    let directory = tempfile::tempdir().unwrap();
    magnitude(&bert(), 0.5, &at(&directory, "start"));
    let weights = copy_of_bert(&directory.path().join("model")) + "/model.safetensors";
    let mut tensors = Tensors::read(&weights);
    tensors.bytes_mut("bert.encoder.layer.0.attention.self.query.weight")[..4].copy_from_slice(&0.5f32.to_le_bytes());
    tensors.write(weights);
    fs::copy(corpus(), directory.path().join("train.txt")).unwrap();
    let plan = "[base]\nmodel = 'model'\ncorpus = ['train.txt']\n[tickets]\nmethods = ['tamt-kd']\nsparsities = [0.5]\n\
        starts = ['magnitude', 'start']\nmax-steps = 2\nbatch-size = 2\nblock-size = 12\n";
    for (name, flag) in [("refused", ""), ("allowed", "allow-other-base = true\n")] {
        write(directory.path(), "plan.toml", &format!("{plan}{flag}"));
        let study = format!("study {} --output-dir {} --quiet", at(&directory, "plan.toml"), at(&directory, name));
        let done = tamt(&study);
        if flag.is_empty() {
            done.failure()
        } else {
            done.success()
        };
    }
}
