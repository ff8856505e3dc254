//! Exported files in the programs that they are for (`PyTorch`, transformers, ONNX Runtime, `OpenVINO`), and losses
//! beside those of `PyTorch`. Each test needs a Python with these packages, the program in `TAMT_PYTHON` or else
//! `python3`, and prints that it is skipped otherwise.

use std::fs;
use std::process::Command;

use crate::common::{at, golden, magnitude, tamt};
use crate::task_files::{cola, squad};

/// A Python with these packages.
fn python(packages: &[&str]) -> Option<String> {
    let program = std::env::var("TAMT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let find = format!("import importlib.util as u; assert all(map(u.find_spec, {packages:?}))");
    if Command::new(&program).args(["-c", &find]).output().is_ok_and(|found| found.status.success()) {
        return Some(program);
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: {program} is no Python with {}; TAMT_PYTHON names another", packages.join(", "));
    }
    None
}

/// Runs a script of `tests/golden`, which exits with 0 where all agrees.
fn check(python: &str, script: &str, arguments: &str) {
    let run = Command::new(python)
        .arg(golden(script))
        .args(arguments.split_whitespace())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(run.status.success(), "{script} {arguments}\n{}{}", said(&run.stdout), said(&run.stderr));
}

const TORCH: [&str; 3] = ["torch", "transformers", "safetensors"];
const ONNX: [&str; 5] = ["torch", "transformers", "safetensors", "onnx", "onnxruntime"];

fn texts(directory: &tempfile::TempDir) -> String {
    let (path, corpus) = (at(directory, "texts.txt"), fs::read_to_string(golden("corpus.txt")).unwrap());
    let lines: Vec<&str> = corpus.lines().take(5).chain(["a"]).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

fn encode(model: &str, texts: &str, pool: &str, output: &str) {
    let line = format!("encode --model {model} --input {texts} --pool {pool} --output {output} --precision f32");
    tamt(&line).success();
}

#[test]
fn pytorch_reads_masks_and_pruned_checkpoints() {
    let Some(python) = python(&TORCH) else { return };
    let directory = tempfile::tempdir().unwrap();
    let texts = texts(&directory);
    for kind in ["bert", "roberta"] {
        let path = |name: &str| at(&directory, format!("{kind}-{name}"));
        let (run, masks, pruned, states) = (path("run"), path("masks"), path("pruned"), path("states.safetensors"));
        let model = golden(kind);
        magnitude(&model, 0.6, &run);
        let line = format!("export --model {model} --ticket {run}");
        tamt(&format!("{line} --format torch-mask --output-dir {masks}")).success();
        tamt(&format!("{line} --format torch-prune --output-dir {pruned}")).success();
        encode(&format!("{model} --ticket {run}"), &texts, "none", &states);
        check(&python, "check_torch.py", &format!("{masks} {pruned} {run} {texts} {states}"));
    }
}

#[test]
fn losses_are_those_of_pytorch_on_the_same_corrupted_text() {
    let Some(python) = python(&TORCH) else { return };
    let directory = tempfile::tempdir().unwrap();
    let text = golden("corpus.txt");
    for kind in ["bert", "roberta"] {
        let path = |name: &str| at(&directory, format!("{kind}-{name}"));
        let (model, run, losses) = (golden(kind), path("run"), path("losses.json"));
        // Another block size, another share and a seed of more than 32 bits.
        let conditions = "--block-size 17 --mlm-probability 0.3 --seed 5000000000";
        let eval = format!("eval --model {model} --corpus {text} --precision f32 {conditions} --json --quiet");
        fs::write(&losses, tamt(&eval).success().get_output().stdout.clone()).unwrap();
        check(&python, "check_losses.py", &format!("{model} {losses} {text} --tolerance 1e-6"));
        let find = format!("find --model {model} --method magnitude --sparsity 0.7 --output-dir {run} --precision f32");
        tamt(&format!("{find} --eval-corpus {text}")).success();
        let results = format!("{run}/eval_results.json");
        check(&python, "check_losses.py", &format!("{model} {results} {text} --ticket {run} --tolerance 1e-6"));
    }
}

#[test]
fn onnx_files_compute_the_hidden_states_of_encode() {
    let Some(python) = python(&ONNX) else { return };
    let directory = tempfile::tempdir().unwrap();
    let texts = texts(&directory);
    for kind in ["bert", "roberta"] {
        let run = magnitude(&golden(kind), 0.7, &at(&directory, format!("{kind}-run")));
        for (pool, ticket) in [("mean", ""), ("cls", "--ticket"), ("mean", "--ticket")] {
            let path = |name: &str| at(&directory, format!("{kind}-{pool}{ticket}-{name}"));
            let (onnx, states, vectors) = (path("onnx"), path("states.safetensors"), path("vectors.safetensors"));
            let under = if ticket.is_empty() { String::new() } else { format!("{ticket} {run}") };
            let model = format!("{} {under}", golden(kind));
            tamt(&format!("export --model {model} --format onnx --pool {pool} --output-dir {onnx}")).success();
            encode(&model, &texts, "none", &states);
            encode(&model, &texts, pool, &vectors);
            check(&python, "check_onnx.py", &format!("{onnx} {texts} --states {states} --vectors {vectors} {under}"));
        }
        // Weights of 8 bits have the ticket's zeros, and hidden states near those of single precision.
        let (onnx, states) =
            (at(&directory, format!("{kind}-int8")), at(&directory, format!("{kind}-int8.safetensors")));
        let model = format!("{} --ticket {run}", golden(kind));
        tamt(&format!("export --model {model} --format onnx --weights int8 --output-dir {onnx}")).success();
        encode(&model, &texts, "none", &states);
        check(&python, "check_onnx.py", &format!("{onnx} {texts} --states {states} --ticket {run} --tolerance 0.1"));
    }
}

#[test]
fn onnx_files_of_tuned_models_compute_the_scores_of_transformers() {
    let Some(python) = python(&ONNX) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (texts, data) = (texts(&directory), cola(&directory.path().join("CoLA")));
    let squad = squad(&directory.path().join("squad"), false);
    for kind in ["bert", "roberta"] {
        let spans = "squad --doc-stride 6 --max-length 24";
        for (name, task, data) in [("cola", "cola", &data), ("squad", spans, &squad)] {
            let path = |file: &str| at(&directory, format!("{kind}-{name}-{file}"));
            let (tuned, onnx) = (path("tuned"), path("onnx"));
            let line = format!("tune --model {} --task {task} --data {data} --max-steps 2 --keep final", golden(kind));
            tamt(&format!("{line} --learning-rate 1e-2 --output-dir {tuned} --quiet")).success();
            tamt(&format!("export --model {tuned} --format onnx --output-dir {onnx}")).success();
            check(&python, "check_onnx.py", &format!("{onnx} {texts} --task {tuned}"));
        }
    }
}
