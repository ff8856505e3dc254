//! Wrong files and settings: an error that names them, its exit code, and never a panic.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::{Value, json};

use crate::common::{
    DEADLINE, Tensors, at, bert, bytes, change_json, copy_of_bert, corpus, golden, magnitude, magnitude_line, split,
    stderr, tamt,
};

const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";
/// The same matrix as tickets name it.
const MASKED: &str = "encoder.layer.0.attention.self.query.weight";
const FFN: &str = "bert.encoder.layer.1.intermediate.dense.weight";

/// Expects an error in one line with `expected`, its causes and a hint, and an empty stdout.
#[track_caller]
fn refused(assert: Assert, code: i32, expected: &str) {
    assert
        .code(code)
        .stdout(is_empty())
        .stderr(starts_with("error: ").and(contains(expected)).and(contains("panicked").not()));
}

fn training(output: &str) -> String {
    format!(
        "find --model {} --method tamt-mlm --sparsity 0.7 --corpus {} --output-dir {output} --max-steps 20 \
         --batch-size 4 --block-size 16 --quiet",
        bert(),
        corpus()
    )
}

/// Spoils a copy of the model with `spoil` and expects `find` to refuse the copy with a message that contains `expected`.
#[track_caller]
fn spoiled(spoil: impl FnOnce(&Path), expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_bert(&directory.path().join("model"));
    spoil(Path::new(&model));
    refused(tamt(&magnitude_line(&model, 0.7, &at(&directory, "run"))), 1, expected);
    assert!(!Path::new(&at(&directory, "run/ticket.safetensors")).exists());
}

#[track_caller]
fn spoiled_weights(spoil: impl FnOnce(&mut Tensors), expected: &str) {
    let change = |model: &Path| {
        let path = model.join("model.safetensors");
        let mut tensors = Tensors::read(&path);
        spoil(&mut tensors);
        tensors.write(&path);
    };
    spoiled(change, expected);
}

#[track_caller]
fn spoiled_config(key: &str, value: Value, expected: &str) {
    spoiled(|model| change_json(model.join("config.json"), |config| config[key] = value), expected);
}

#[test]
fn weights_files_that_are_cut_short_or_lie_about_themselves() {
    let whole = bytes(bert() + "/model.safetensors");
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        spoiled(
            |model| fs::write(model.join("model.safetensors"), &whole[..length]).unwrap(),
            "model.safetensors is malformed",
        );
    }
    for header in [u64::MAX, u64::MAX / 2, whole.len() as u64, 3, 0] {
        let mut lying = whole.clone();
        lying[..8].copy_from_slice(&header.to_le_bytes());
        spoiled(|model| fs::write(model.join("model.safetensors"), &lying).unwrap(), "model.safetensors is malformed");
    }
    spoiled(
        |model| fs::write(model.join("model.safetensors"), [&whole[..], b"tail"].concat()).unwrap(),
        "model.safetensors",
    );
    spoiled(|model| fs::write(model.join("model.safetensors"), vec![b'{'; 4096]).unwrap(), "model.safetensors");
    spoiled_weights(|tensors| tensors.header[QUERY]["data_offsets"] = json!([0, u64::MAX]), "model.safetensors");
    spoiled_weights(|tensors| tensors.header[QUERY]["data_offsets"] = json!([1024, 0]), "model.safetensors");
    spoiled_weights(|tensors| tensors.header[QUERY]["shape"] = json!([u64::MAX, 16]), "model.safetensors");
    spoiled_weights(|tensors| tensors.header[QUERY]["dtype"] = json!("F31"), "model.safetensors");
    spoiled_weights(|tensors| tensors.header[QUERY] = json!("none"), "model.safetensors");
}

#[test]
fn weights_that_do_not_fit_the_configuration() {
    spoiled_weights(
        |tensors| tensors.rename(QUERY, "bert.other"),
        "has no tensor `encoder.layer.0.attention.self.query.weight`",
    );
    spoiled_weights(|tensors| tensors.header[FFN]["shape"] = json!([16, 32]), "has shape [16, 32], expected [32, 16]");
    spoiled_weights(|tensors| tensors.header[FFN]["shape"] = json!([512]), "has shape [512], expected [32, 16]");
    spoiled_weights(|tensors| tensors.header[FFN]["dtype"] = json!("I32"), "is I32, expected F32, F16, BF16 or F64");
    spoiled_config("num_hidden_layers", json!(3), "has no tensor `encoder.layer.2");
    spoiled_config("hidden_size", json!(32), "expected [");
    spoiled_config("vocab_size", json!(95), "expected [95, 16]");
}

#[test]
fn weights_that_are_not_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let spoil = |tensors: &mut Tensors| tensors.bytes_mut(FFN)[40..44].copy_from_slice(&value.to_le_bytes());
        spoiled_weights(spoil, &format!("tensor `{FFN}` holds {value} at element 10"));
    }
}

#[test]
fn configurations_that_mean_nothing_here() {
    spoiled_config("model_type", json!("gpt2"), "`model_type`");
    spoiled_config("hidden_act", json!("mish"), "`hidden_act`");
    spoiled_config("position_embedding_type", json!("relative_key"), "`position_embedding_type`");
    spoiled_config("hidden_size", json!("wide"), "`hidden_size`");
    spoiled_config("hidden_size", Value::Null, "`hidden_size`");
    spoiled_config("hidden_size", json!(1u64 << 40), "`hidden_size`");
    spoiled_config("num_attention_heads", json!(3), "not divisible by 3");
    spoiled_config("num_hidden_layers", json!(0), "`num_hidden_layers` is 0");
    spoiled_config("hidden_dropout_prob", json!(1.5), "`hidden_dropout_prob`");
    spoiled_config("layer_norm_eps", json!(-1), "`layer_norm_eps`");
    for text in ["", "[]", "{\"hidden_size\":", "\u{0}\u{1}"] {
        spoiled(|model| fs::write(model.join("config.json"), text).unwrap(), "config.json");
    }
}

#[test]
fn model_directories_that_lack_a_part() {
    spoiled(
        |model| fs::remove_file(model.join("config.json")).unwrap(),
        "is no model directory: it has no config.json",
    );
    spoiled(|model| fs::remove_file(model.join("model.safetensors")).unwrap(), "no weights in");
    let untokenized = |model: &Path| {
        fs::remove_file(model.join("tokenizer.json")).unwrap();
        fs::remove_file(model.join("vocab.txt")).unwrap();
    };
    spoiled(untokenized, "no tokenizer in");
    spoiled(|model| fs::write(model.join("tokenizer.json"), "{}").unwrap(), "tokenizer.json");
    let directory = tempfile::tempdir().unwrap();
    let line = |model: &str| magnitude_line(model, 0.7, &at(&directory, "run"));
    refused(tamt(&line("./no/such/model")), 1, "no such directory: ./no/such/model");
    let (missing, file) = (at(&directory, "runs/kd"), bert() + "/config.json");
    let parent = format!("no such directory: {missing}; {} is the last part that exists", directory.path().display());
    refused(tamt(&line(&missing)), 1, &parent);
    refused(tamt(&line(&file)), 1, "config.json is a file; a model is the directory");
    refused(tamt(&line(&corpus())), 1, "corpus.txt");
}

#[test]
fn corpora_that_are_no_text_or_too_little_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = at(&directory, "text");
    let with = |content: &[u8], expected: &str| {
        fs::write(&file, content).unwrap();
        let line = training(&at(&directory, "run"));
        refused(tamt(&line.replace(&corpus(), &file)), 1, expected);
        refused(tamt(&format!("{line} --eval-corpus {file}")), 1, expected);
        refused(tamt(&format!("eval --model {} --corpus {file} --block-size 16", bert())), 1, expected);
    };
    with(b"", "the corpus is empty");
    with(b"\n \n\t\n", "the corpus is empty");
    with(b"good\nbad \xff\n", "text:2: not text: ");
    with(b"good\n\nbad \x00\n", "text:3: not text: ");
    fs::write(&file, "too few").unwrap();
    refused(tamt(&training(&at(&directory, "run")).replace(&corpus(), &file)), 1, "the corpus has ");
    let missing = at(&directory, "missing.txt");
    refused(tamt(&training(&at(&directory, "run")).replace(&corpus(), &missing)), 1, &format!("cannot read {missing}"));
    let directory_as_text = at(&directory, "");
    refused(tamt(&training(&at(&directory, "run")).replace(&corpus(), &directory_as_text)), 1, "cannot read");
}

#[test]
fn settings_that_do_not_fit_the_model_or_the_text() {
    let directory = tempfile::tempdir().unwrap();
    let line = training(&at(&directory, "run"));
    let with = |from: &str, to: &str| tamt(&line.replace(from, to));
    refused(
        with("--block-size 16", "--block-size 41"),
        2,
        "--block-size: 41 tokens do not fit the model, which has 40",
    );
    refused(
        with("--block-size 16", "--block-size 2"),
        2,
        "--block-size: 2 tokens leave no room for text beside 2 special tokens",
    );
    refused(with("--batch-size 4", "--batch-size 500"), 1, "fewer than the batch size of 500");
    refused(with("--batch-size 4", &format!("--batch-size {}", u64::MAX)), 2, "for '--batch-size <N>'");
    let file = at(&directory, "flags.toml");
    fs::write(&file, "block_size = 41").unwrap();
    let told = with("--block-size 16", &format!("--config {file}"));
    refused(told, 2, &format!("which has 40 positions\nhint: --block-size is in {file}\n"));
    refused(with("--sparsity 0.7", "--sparsity 0.7 --layers 9"), 2, "--layers: the model has no layer 9");
    let imp = line.replace("tamt-mlm", "imp").replace("--max-steps 20", "--max-steps 5");
    refused(tamt(&imp), 2, "--max-steps: 6 rounds of pruning need at least 6 steps");
    refused(
        tamt(&format!("eval --model {} --corpus {} --block-size 41", bert(), corpus())),
        2,
        "--block-size: 41 tokens",
    );
}

#[test]
fn output_directories_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(at(&directory, "file"), "precious").unwrap();
    for output in ["file", "file/run", "file/a/b"] {
        refused(tamt(&magnitude_line(&bert(), 0.7, &at(&directory, output))), 1, "cannot create directory");
        let line = format!("pretrain --model {} --corpus {} --max-steps 3 --output-dir", bert(), corpus());
        refused(tamt(&format!("{line} {}", at(&directory, output))), 1, "cannot create directory");
    }
    assert_eq!(bytes(at(&directory, "file")), b"precious");
}

/// Runs the binary with a limit of `blocks` of 512 bytes on the size of files, which acts like a full disk.
fn with_little_disk(blocks: u32, line: &str) -> Assert {
    // Without the trap, the signal ends the program ahead of the error.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let binary = assert_cmd::cargo::cargo_bin("tamt");
    Command::new("sh").args(["-c", &script]).arg(binary).args(split(line)).timeout(DEADLINE).assert()
}

#[test]
fn a_full_disk_is_reported_with_the_file_and_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    refused(with_little_disk(4, &magnitude_line(&bert(), 0.7, &run)), 1, "cannot write");
    assert!(!Path::new(&run).join("ticket.safetensors").exists());
    assert!(!Path::new(&run).exists(), "a run without output leaves no directory");
    // Without the limit, the run goes on.
    tamt(&format!("{} --resume", magnitude_line(&bert(), 0.7, &run))).success();

    let vectors = at(&directory, "vectors.safetensors");
    let line = format!("encode --model {} --input {} --output {vectors}", bert(), corpus());
    refused(with_little_disk(4, &line), 1, &format!("cannot write {vectors}"));
    let checkpointed = format!("{} --save-every 5", training(&at(&directory, "training")));
    refused(with_little_disk(16, &checkpointed), 1, "cannot write");
}

#[test]
fn a_result_that_cannot_be_printed_is_a_failure_and_a_closed_pipe_is_none() {
    let directory = tempfile::tempdir().unwrap();
    magnitude(&bert(), 0.7, &at(&directory, "run"));
    let binary = assert_cmd::cargo::cargo_bin("tamt");
    let inspect = |redirection: &str| {
        let script = format!("\"$0\" inspect \"$1\" {redirection}");
        let run = at(&directory, "run");
        Command::new("sh").args(["-c", &script]).arg(&binary).arg(run).timeout(DEADLINE).assert()
    };
    if Path::new("/dev/full").exists() {
        refused(inspect("> /dev/full"), 1, "cannot write to stdout");
    }
    inspect("| true").success().stderr(is_empty());
}

/// Expects `eval`, `encode`, `apply` and `inspect --model` to refuse a ticket of the model that `spoil` has spoiled.
#[track_caller]
fn spoiled_ticket(spoil: impl FnOnce(&str), code: i32, expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    magnitude(&bert(), 0.7, &run);
    spoil(&format!("{run}/ticket.safetensors"));
    let (model, text, output) = (bert(), corpus(), at(&directory, "out"));
    for line in [
        format!("eval --model {model} --ticket {run} --corpus {text} --block-size 16"),
        format!("encode --model {model} --ticket {run} --input {text} --output {output}"),
        format!("apply --model {model} --ticket {run} --output-dir {output}"),
        format!("inspect {run} --model {model}"),
        format!("{} --init {run}", training(&at(&directory, "next"))),
    ] {
        refused(tamt(&line), code, expected);
    }
    assert!(!Path::new(&output).exists());
}

#[test]
fn tickets_that_are_cut_short_or_lie_about_themselves() {
    for length in [0, 7, 100, 2000] {
        let cut = |path: &str| fs::write(path, &bytes(path)[..length]).unwrap();
        spoiled_ticket(cut, 1, "ticket.safetensors is damaged");
    }
    let lying = |path: &str| {
        let mut ticket = bytes(path);
        ticket[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        fs::write(path, ticket).unwrap();
    };
    spoiled_ticket(lying, 1, "ticket.safetensors is damaged");
    let no_ticket = |path: &str| fs::write(path, bytes(bert() + "/model.safetensors")).unwrap();
    spoiled_ticket(no_ticket, 1, "is no ticket but a safetensors file with tensors such as bert.");
    spoiled_ticket(|path| fs::remove_file(path).unwrap(), 1, "a directory without ticket.safetensors");
    for (bytes, what) in [
        (&b"PK\x03\x04\0\0"[..], "a PyTorch file or another zip archive"),
        (b"\x80\x02\x8a\x0alF", "a Python pickle, the old format of PyTorch"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"{\"method\": 1}", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    ] {
        spoiled_ticket(
            |path| fs::write(path, bytes).unwrap(),
            1,
            &format!("ticket.safetensors is no ticket but {what}"),
        );
    }
    let twice = |path: &str| {
        let mut ticket = Tensors::read(path);
        ticket.rename("encoder.layer.0.attention.self.key.weight.bitmask", &format!("{QUERY}.bitmask"));
        ticket.write(path);
    };
    spoiled_ticket(twice, 1, "it holds the mask of encoder.layer.0.attention.self.query.weight twice");
    let nameless = |path: &str| {
        let mut ticket = Tensors::read(path);
        ticket.header["__metadata__"].as_object_mut().unwrap().remove("base_sha256");
        ticket.write(path);
    };
    spoiled_ticket(nameless, 1, "it does not name its base model");
    let wide = |path: &str| {
        let mut ticket = Tensors::read(path);
        ticket.header["__metadata__"]["shapes"] = json!("{\"embeddings.word_embeddings.weight\":[96,17]}");
        ticket.write(path);
    };
    spoiled_ticket(wide, 1, "ticket.safetensors is damaged");
}

#[test]
fn tickets_with_other_names_or_shapes() {
    let renamed = |path: &str| {
        let mut ticket = Tensors::read(path);
        ticket.rename(&format!("{MASKED}.bitmask"), "bert.encoder.layer.7.attention.self.query.weight.bitmask");
        ticket.write(path);
    };
    spoiled_ticket(renamed, 1, "the ticket does not fit at encoder.layer.7.attention.self.query.weight");
    let reshaped = |path: &str| {
        let mut ticket = Tensors::read(path);
        let name = format!("{MASKED}.bitmask");
        ticket.header[&name]["shape"] = json!([32, 1]);
        let shapes = ticket.header["__metadata__"]["shapes"].as_str().unwrap();
        ticket.header["__metadata__"]["shapes"] =
            json!(shapes.replace(&format!("\"{MASKED}\":[16,16]"), &format!("\"{MASKED}\":[32,8]")));
        ticket.write(path);
    };
    spoiled_ticket(reshaped, 1, "it is 32 x 8 in the ticket and 16 x 16 in the model");
}

#[test]
fn a_ticket_of_other_weights_is_refused_unless_only_the_weights_are_others() {
    let directory = tempfile::tempdir().unwrap();
    let (run, other) = (at(&directory, "run"), copy_of_bert(&directory.path().join("other")));
    magnitude(&bert(), 0.7, &run);
    let mut weights = Tensors::read(format!("{other}/model.safetensors"));
    weights.bytes_mut(QUERY)[..4].copy_from_slice(&0.5f32.to_le_bytes());
    weights.write(format!("{other}/model.safetensors"));
    let recorded = fs::read_to_string(format!("{run}/config.toml")).unwrap();
    let digest =
        recorded.lines().find_map(|line| line.strip_prefix("base-sha256 = ")).unwrap().trim_matches('"').to_owned();

    let (text, out) = (corpus(), at(&directory, "out"));
    let training = training(&at(&directory, "next")).replace(&bert(), &other);
    for (line, overridden) in [
        (format!("eval --model {other} --ticket {run} --corpus {text} --block-size 16"), true),
        (format!("encode --model {other} --ticket {run} --input {text} --output {out}.safetensors"), true),
        (format!("apply --model {other} --ticket {run} --output-dir {out}"), true),
        (format!("{training} --init {run}"), true),
        (format!("inspect {run} --model {other}"), false),
    ] {
        let refusal = tamt(&line);
        // Only a flag that the verb has is advised.
        assert_eq!(stderr(&refusal).contains("--allow-other-base"), overridden, "{line}");
        refused(refusal, 1, &digest);
        if overridden {
            tamt(&format!("{line} --allow-other-base").replace("/next", "/next-allowed")).success();
        }
    }
    // Names and shapes must fit in spite of the flag.
    let roberta = golden("roberta");
    refused(
        tamt(&format!("eval --model {roberta} --ticket {run} --corpus {text} --block-size 16 --allow-other-base")),
        1,
        "the ticket does not fit at embeddings.word_embeddings.weight: it is 96 x 16 in the ticket and",
    );
}

#[test]
fn tickets_of_different_matrices_are_not_compared() {
    let directory = tempfile::tempdir().unwrap();
    let (all, one) = (at(&directory, "all"), at(&directory, "one"));
    magnitude(&bert(), 0.7, &all);
    tamt(&format!("{} --layers 1", magnitude_line(&bert(), 0.7, &one))).success();
    for (ticket, other) in [(&all, &one), (&one, &all)] {
        refused(tamt(&format!("inspect {ticket} --against {other} --json")), 1, "does not fit at encoder.layer.0");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_at_its_step_and_names_the_last_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let line = format!("{} --learning-rate 1e38", training(&run));
    refused(tamt(&format!("{line} --save-every 1")), 1, "is not finite at step 2; the last good checkpoint is ");
    assert!(Path::new(&run).join("checkpoint-1/state.safetensors").is_file());
    assert!(!Path::new(&run).join("ticket.safetensors").exists());
    let unsaved = line.replace("/run", "/unsaved");
    refused(tamt(&unsaved), 1, "no checkpoint was saved before it\nhint: a lower --learning-rate may help");
}

#[test]
fn weights_so_large_that_they_overflow_are_no_panic_and_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let model = copy_of_bert(&directory.path().join("model"));
    let mut weights = Tensors::read(format!("{model}/model.safetensors"));
    for name in weights.names() {
        for weight in weights.bytes_mut(&name).as_chunks_mut::<4>().0 {
            *weight = (f32::from_le_bytes(*weight).signum() * 1e38).to_le_bytes();
        }
    }
    weights.write(format!("{model}/model.safetensors"));
    refused(tamt(&format!("eval --model {model} --corpus {} --block-size 16", corpus())), 1, "MLM loss is not finite");
    let line = training(&at(&directory, "run")).replace(&bert(), &model);
    refused(tamt(&line), 1, "is not finite at step 1; no checkpoint was saved before it");
}

#[test]
fn texts_to_encode_that_are_no_texts() {
    let directory = tempfile::tempdir().unwrap();
    let file = at(&directory, "texts");
    let line = format!("encode --model {} --input {file} --output {}", bert(), at(&directory, "out"));
    refused(tamt(&line), 1, &format!("cannot read {file}"));
    for (content, expected) in [
        (&b""[..], "holds no line to encode"),
        (b"good\n\xe9\n", "texts:2: not text: byte 0xe9 at byte 5"),
        (b"\x00", "texts:1: not text: a NUL byte"),
    ] {
        fs::write(&file, content).unwrap();
        refused(tamt(&line), 1, expected);
    }
    assert!(!Path::new(&at(&directory, "out")).exists());
}
