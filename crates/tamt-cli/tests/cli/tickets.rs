//! Tickets between models of the same encoder, tickets of the first format, and the evaluation that a ticket records.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Map, Value};

use crate::common::{Tensors, at, bert, copy_of_bert, corpus, magnitude, masks, object, tamt};
use crate::task_files::cola;

/// A ticket of the small BERT at 0.7 by magnitude that names matrices as the checkpoint and has the digest of the file
/// only: `tamt find --model tests/golden/bert --method magnitude --sparsity 0.7` of revision 6cb34a8.
const FIRST_FORMAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ticket-of-file-digest.safetensors");

/// The bare encoder of the small BERT: no prefix, no MLM head.
fn bare_encoder(directory: &tempfile::TempDir) -> String {
    let path = copy_of_bert(&directory.path().join("encoder"));
    let whole = Tensors::read(format!("{path}/model.safetensors"));
    let mut bare = Tensors { header: Map::new(), data: Vec::new() };
    for name in whole.names() {
        let Some(canonical) = name.strip_prefix("bert.") else { continue };
        let start = bare.data.len();
        bare.data.extend_from_slice(whole.bytes(&name));
        let mut info = whole.header[&name].clone();
        info["data_offsets"] = serde_json::json!([start, bare.data.len()]);
        bare.header.insert(canonical.to_owned(), info);
    }
    bare.write(format!("{path}/model.safetensors"));
    path
}

#[test]
fn a_ticket_fits_the_same_encoder_bare_with_a_head_and_as_a_classifier() {
    let directory = tempfile::tempdir().unwrap();
    let (encoder, text) = (bare_encoder(&directory), corpus());
    // So small a learning rate leaves the encoder as it is.
    let classifier = at(&directory, "classifier");
    let task = format!("--task cola --data {}", cola(&directory.path().join("CoLA")));
    let line = format!("{task} --max-steps 1 --learning-rate 1e-30 --keep final --quiet");
    tamt(&format!("tune --model {encoder} {line} --output-dir {classifier}")).success();

    let models = [("bare", encoder), ("mlm", bert()), ("class", classifier)];
    let tickets: Vec<String> =
        models.iter().map(|(name, model)| magnitude(model, 0.7, &at(&directory, format!("t-{name}")))).collect();
    // The pooler of a classifier is pruned as well; all else is equal.
    assert_eq!(masks(&tickets[0]), masks(&tickets[1]));
    let same = object(&tamt(&format!("inspect {} --against {} --json", tickets[0], tickets[1])).success());
    assert_eq!(same["jaccard"], 1.0);

    for (name, model) in &models {
        for (i, ticket) in tickets.iter().enumerate() {
            let out = |verb: &str| at(&directory, format!("{verb}-{name}-{i}"));
            tamt(&format!("apply --model {model} --ticket {ticket} --output-dir {}", out("apply"))).success();
            tamt(&format!("eval --model {model} --ticket {ticket} --corpus {text} --block-size 16")).success();
            tamt(&format!("encode --model {model} --ticket {ticket} --input {text} --output {}", out("v"))).success();
            tamt(&format!("inspect {ticket} --model {model}")).success();
            tamt(&format!("tune --model {model} --ticket {ticket} {line} --output-dir {}", out("tune"))).success();
            tamt(&format!(
                "find --model {model} --method tamt-kd --init {ticket} --sparsity 0.7 --corpus {text} --max-steps 1 \
                 --batch-size 2 --block-size 16 --output-dir {}",
                out("find")
            ))
            .success();
        }
    }
}

/// The digest is that of an independent program:
///
/// ```python
/// t = safetensors.torch.load_file("tests/golden/bert/model.safetensors")
/// pruned = lambda n: n.endswith("word_embeddings.weight") or (".layer." in n and n.endswith("weight") and "LayerNorm" not in n)
/// raw = lambda w: struct.pack("<QQ", *w.shape) + w.float().numpy().tobytes()
/// lines = [(n.removeprefix("bert."), hashlib.sha256(raw(w)).hexdigest()) for n, w in t.items() if pruned(n)]
/// hashlib.sha256("".join(f"{h}  {n}\n" for n, h in sorted(lines)).encode()).hexdigest()
/// ```
#[test]
fn a_ticket_has_the_digest_of_the_matrices_that_it_masks() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = magnitude(&bert(), 0.7, &at(&directory, "run"));
    let shown = object(&tamt(&format!("inspect {ticket} --json")).success());
    let digest = "ae4969214ef31d5451eb53c32aae84072b2d60222d253cfab462cb733b9460b4";
    assert_eq!(shown["metadata"]["pruned_sha256"], digest);
}

#[test]
fn tickets_of_the_first_format_are_read_and_belong_to_their_weights_file() {
    let directory = tempfile::tempdir().unwrap();
    let new = magnitude(&bert(), 0.7, &at(&directory, "new"));
    let same = object(&tamt(&format!("inspect {FIRST_FORMAT} --against {new} --model {} --json", bert())).success());
    assert_eq!((&same["jaccard"], &same["metadata"]["method"]), (&1.0.into(), &"magnitude".into()));

    let (old, now) = (at(&directory, "old-applied"), at(&directory, "new-applied"));
    tamt(&format!("apply --model {} --ticket {FIRST_FORMAT} --output-dir {old}", bert())).success();
    tamt(&format!("apply --model {} --ticket {new} --output-dir {now}", bert())).success();
    let file = |model: &str| fs::read(Path::new(model).join("model.safetensors")).unwrap();
    assert_eq!(file(&old), file(&now));

    // Nothing says that the matrices of another file are the same.
    let line = format!("eval --model {} --ticket {FIRST_FORMAT} --corpus {}", bare_encoder(&directory), corpus());
    tamt(&line).code(1).stderr(contains("the ticket belongs to another model"));
    tamt(&format!("{line} --allow-other-base")).success();
}

#[test]
fn eval_measures_a_ticket_as_find_did_unless_flags_say_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let found = object(
        &tamt(&format!(
            "find --model {} --method magnitude --sparsity 0.7 --eval-corpus {} --block-size 16 --mlm-probability 0.3 \
             --output-dir {run} --json",
            bert(),
            corpus()
        ))
        .success(),
    );
    let line = format!("eval --model {} --ticket {run} --corpus {} --json", bert(), corpus());
    let same = tamt(&line).success().stderr(contains("as `find` evaluated the ticket: blocks of 16 tokens"));
    let same = object(&same);
    for key in ["mlm_loss", "kd_cosine", "kd_mse"] {
        assert_eq!(same[key], found[key], "{key}");
    }
    for key in ["block_size", "tokens", "masked_tokens", "seed", "mlm_probability"] {
        assert_eq!(same[key], found["evaluation"][key], "{key}");
    }
    assert_eq!((&same["block_size"], &same["mlm_probability"]), (&16.into(), &0.3.into()));

    let other = tamt(&format!("{line} --block-size 32 --seed 7")).success();
    let other =
        other.stderr(contains("not as `find` evaluated the ticket, so losses differ: block size 32 instead of 16"));
    let other = object(&other.stderr(contains("seed 7 instead of 42")));
    assert_eq!((&other["block_size"], &other["seed"]), (&32.into(), &7.into()));
    assert_ne!(other["mlm_loss"], same["mlm_loss"]);

    let text = at(&directory, "other.txt");
    fs::write(&text, fs::read_to_string(corpus()).unwrap().lines().take(9).collect::<Vec<_>>().join("\n")).unwrap();
    tamt(&format!("eval --model {} --ticket {run} --corpus {text}", bert()))
        .success()
        .stdout(contains("the text is not the one that `find` evaluated the ticket on"));
}

#[test]
fn printed_losses_say_their_text_and_a_distance_is_called_one() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let text = "(1,894 tokens in blocks of 16)";
    tamt(&format!(
        "find --model {} --method tamt-kd --sparsity 0.7 --corpus {1} --eval-corpus {1} --block-size 16 --batch-size 4 \
         --max-steps 2 --output-dir {run}",
        bert(),
        corpus()
    ))
    .success()
    .stdout(contains("KD loss (1 - cos) 0.").and(contains(text)).and(contains("kd_cosine").not()))
    .stderr(contains("evaluated at step 2: MLM loss ").and(contains(text)).and(contains("kd_").not()));
    tamt(&format!("eval --model {} --ticket {run} --corpus {}", bert(), corpus()))
        .success()
        .stdout(contains("block size").and(contains("1,894")).and(contains("KD loss (1 - cos)")));
    tamt(&format!("inspect {run}")).success().stdout(contains("on 1,894 tokens in blocks of 16, masked with seed 42"));
}

#[test]
fn the_result_of_find_has_the_settings_that_a_table_needs() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let result = object(
        &tamt(&format!(
            "find --model {} --method tamt-mlm --sparsity 0.6 --scope global --seed 5 --corpus {} --block-size 16 \
             --batch-size 4 --max-steps 2 --learning-rate 1e-3 --output-dir {run} --json",
            bert(),
            corpus()
        ))
        .success(),
    );
    let expected: [(&str, Value); 8] = [
        ("method", "tamt-mlm".into()),
        ("objective", "mlm".into()),
        ("target_sparsity", 0.6.into()),
        ("scope", "global".into()),
        ("seed", 5.into()),
        ("batch_size", 4.into()),
        ("block_size", 16.into()),
        ("learning_rate", 0.001.into()),
    ];
    for (key, value) in expected {
        assert_eq!(result[key], value, "{key}");
    }
    assert_eq!((&result["model"], &result["settings"]["objective"]["mlm-probability"]), (&bert().into(), &0.15.into()));
    assert_eq!(result["model_sha256"].as_str().unwrap().len(), 64);
}
