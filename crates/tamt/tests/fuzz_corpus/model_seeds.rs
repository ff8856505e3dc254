//! Seeds of weights, models, tickets and checkpoints of runs.

use std::fs;

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;
use tamt::magnitude::magnitude;
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt::run::{RunDir, Silent, Stop};
use tamt::ticket::{EvalRecord, Provenance, Ticket};
use tamt::train::Session;
use tamt_model::Model;

use crate::pickle::legacy;
use crate::readers::files;
use crate::readers::training::{FILES, Mode, STEP, tiny_model, trained};
use crate::seeds::{Seed, fixture, packed, packed_directory, read, refused};

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = pytorch();
    seeds.extend(safetensors());
    seeds.extend(models());
    seeds.extend(tickets());
    seeds.extend(checkpoints());
    seeds
}

/// A tensor of F32: name, shape and values.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// A safetensors file.
fn weights(tensors: &[Tensor]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    }
    serialize(views, None).unwrap()
}

/// A safetensors file of tensors with values 0, 1, ..
fn floats(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let tensor = |(name, shape): &(&str, &[usize])| ((*name).to_owned(), shape.to_vec(), ramp(shape));
    weights(&tensors.iter().map(tensor).collect::<Vec<_>>())
}

fn ramp(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|i| i as f32).collect()
}

fn pytorch() -> Vec<Seed> {
    let bin = |name: &str| fixture(&format!("tamt-model/tests/fixtures/{name}.bin"));
    let pruned: [(&str, &[usize], &[f32]); 3] = [
        ("a.weight_orig", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ("a.weight_mask", &[2, 2], &[1.0, 0.0, 0.0, 1.0]),
        ("a.bias", &[1], &[5.0]),
    ];
    vec![
        // Both have an integer tensor, which is no weight.
        refused("pytorch", "zip", bin("zip")),
        refused("pytorch", "legacy", bin("legacy")),
        read("pytorch", "module", bin("module")),
        refused("pytorch", "nested", bin("nested")),
        refused("pytorch", "call", bin("call")),
        read("pytorch", "pruned", legacy(&pruned)),
        read("pytorch", "wrapped", legacy(&[("module.bert.embeddings.LayerNorm.gamma", &[2], &[1.0, 2.0])])),
        read("pytorch", "header name", legacy(&[("__metadata__", &[1], &[1.0])])),
    ]
}

fn safetensors() -> Vec<Seed> {
    let bytes = [0; 48];
    let kinds = [("f32", Dtype::F32, 4), ("f16", Dtype::F16, 2), ("bf16", Dtype::BF16, 2), ("f64", Dtype::F64, 8)];
    let view = |(name, dtype, size): (&'static str, Dtype, usize)| {
        (name, TensorView::new(dtype, vec![2, 3], &bytes[..6 * size]).unwrap())
    };
    let words = TensorView::new(Dtype::I64, vec![6], &bytes).unwrap();
    vec![
        read("safetensors", "floats", serialize(kinds.map(view), None).unwrap()),
        refused("safetensors", "integers", serialize([("i64", words)], None).unwrap()),
        read("safetensors", "empty", serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap()),
        read("safetensors", "scalar", floats(&[("scalar", &[]), ("none", &[0, 3])])),
        read(
            "safetensors",
            "pruned",
            floats(&[("a.weight_orig", &[2, 2]), ("a.weight_mask", &[2, 2]), ("b_mask", &[1])]),
        ),
        read("safetensors", "wrapped", floats(&[("_orig_mod.bert.a", &[2]), ("_orig_mod.bert.LayerNorm.beta", &[2])])),
        read("safetensors", "tied", floats(&[("lm_head.decoder.weight", &[2, 3]), ("lm_head.decoder.bias", &[2])])),
        refused("safetensors", "pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ]
}

/// The tensors of the tiny model under other names.
fn renamed(rename: impl Fn(&str) -> String) -> Vec<Tensor> {
    let model = tiny_model();
    let tensor = |id| {
        let spec = model.params.spec(id);
        (rename(&spec.checkpoint_name), spec.shape.clone(), model.params.get(id).to_vec())
    };
    model.params.ids().map(tensor).collect()
}

fn models() -> Vec<Seed> {
    let saved = files::empty();
    tiny_model().save(saved.path()).unwrap();
    let config = fs::read(saved.path().join("config.json")).unwrap();
    let whole = |name: &str, tensors: &[Tensor]| {
        read("model", name, packed(&[("config.json", &config), ("model.safetensors", &weights(tensors))]))
    };
    let old =
        |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let mut pruned = renamed(str::to_owned);
    let at = pruned.iter().position(|(name, ..)| name.ends_with("query.weight")).unwrap();
    let (name, shape, values) = pruned[at].clone();
    pruned[at].0 = format!("{name}_orig");
    pruned.push((format!("{name}_mask"), shape, vec![1.0; values.len()]));
    let mut untied = renamed(str::to_owned);
    untied.push(("cls.predictions.decoder.weight".to_owned(), vec![12, 4], ramp(&[12, 4])));

    let tensors = renamed(str::to_owned);
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let map = |tensors: &[Tensor], file: &str| -> Vec<(String, String)> {
        tensors.iter().map(|(name, ..)| (name.clone(), file.to_owned())).collect()
    };
    let map: serde_json::Map<String, serde_json::Value> =
        [map(first, "a.safetensors"), map(second, "b.bin")].concat().into_iter().map(|(k, v)| (k, json!(v))).collect();
    let index = json!({"weight_map": map}).to_string();
    let borrowed: Vec<_> = second.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), v.as_slice())).collect();
    vec![
        read("model", "saved", packed_directory(saved.path(), &["config.json", "model.safetensors"])),
        whole("without prefix", &renamed(|name| name.replace("bert.", ""))),
        whole("compiled", &renamed(|name| format!("_orig_mod.{name}"))),
        whole("old names", &renamed(old)),
        whole("pruned", &pruned),
        whole("untied", &untied),
        read(
            "model",
            "shards",
            packed(&[
                ("config.json", &config),
                ("model.safetensors.index.json", index.as_bytes()),
                ("a.safetensors", &weights(first)),
                ("b.bin", &legacy(&borrowed)),
            ]),
        ),
        refused("model", "config", packed(&[("config.json", &config)])),
    ]
}

fn ticket_bytes(ticket: &Ticket) -> Vec<u8> {
    let dir = files::empty();
    let path = dir.path().join("ticket.safetensors");
    ticket.write(&path).unwrap();
    fs::read(path).unwrap()
}

fn tickets() -> Vec<Seed> {
    let model: &Model = tiny_model();
    let ids = pruned_matrices(model, None).unwrap();
    let masks = magnitude(model, &ids, Sparsity::new(0.7).unwrap(), Scope::Local);
    let conditions = serde_json::from_value(json!({"block_size": 8, "seed": 1, "mlm_probability": 0.15})).unwrap();
    let provenance = Provenance {
        base_model: "models/tiny".to_owned(),
        base_sha256: "ab".repeat(32),
        pruned_sha256: Some("cd".repeat(32)),
        pooler_sha256: Some("ef".repeat(32)),
        method: "tamt-kd".to_owned(),
        objective: Some("kd".to_owned()),
        sparsity: 0.7,
        scope: Scope::Global,
        seed: 42,
        steps: 7,
        corpus_sha256: Some("01".repeat(32)),
        imported: None,
        evaluation: Some(EvalRecord { conditions, tokens: 99, corpus_sha256: "23".repeat(32) }),
        tool_version: "0.1.0".to_owned(),
    };
    let whole = Ticket::new(model, &masks, provenance);
    let mut bare =
        Ticket { provenance: Provenance { base_sha256: "ab".repeat(32), ..Provenance::default() }, ..whole.clone() };
    bare.matrices.truncate(2);
    bare.matrices.iter_mut().for_each(|(name, _)| *name = format!("bert.{name}"));
    vec![
        read("ticket", "whole", ticket_bytes(&whole)),
        read("ticket", "of the first format", fixture("tamt-cli/tests/fixtures/ticket-of-file-digest.safetensors")),
        refused("ticket", "weights", floats(&[("bert.a", &[2, 2])])),
        refused("ticket", "text", "no ticket"),
        // The names have a prefix, which is taken away: what is written again has other names.
        read("ticket", "prefixed", ticket_bytes(&bare)),
    ]
}

fn checkpoints() -> Vec<Seed> {
    let modes = [("weights", Mode::Weights), ("masked weights", Mode::MaskedWeights), ("scores", Mode::Scores)];
    let seed = |(name, mode): (&str, Mode)| {
        let root = files::empty();
        let directory = RunDir::create(&root.path().join("run"), &toml::Table::new(), false).unwrap();
        let dir = directory.path().join(format!("checkpoint-{STEP}"));
        trained(mode, STEP, &mut Session { directory, observer: &mut Silent, stop: Stop::new() }).unwrap();
        read("training", name, packed_directory(&dir, &FILES))
    };
    modes.into_iter().map(seed).collect()
}
