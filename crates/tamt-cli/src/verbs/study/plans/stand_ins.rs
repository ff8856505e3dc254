//! Stand-ins for models and data: the expansion of a plan reads names, sizes and digests alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tamt_study::commands::Commands;
use tamt_study::identity::Digests;
use tamt_study::run::Run;
use tamt_study::study::runs_of;

use crate::verbs::study::flags::OwnCommands;

/// A path below the root of the repository.
pub(super) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

pub(super) fn write(directory: &Path, name: &str, bytes: &[u8]) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A model of one weight, with the configuration of a whole one: words, positions, width, layers.
pub(super) fn stand_in_model(
    directory: &Path,
    name: &str,
    family: &str,
    [words, positions, width, layers]: [usize; 4],
) {
    let config = json!({"model_type": family, "vocab_size": words, "max_position_embeddings": positions,
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 12, "intermediate_size": 4 * width,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "hidden_act": "gelu",
        "attention_probs_dropout_prob": 0.1, "pad_token_id": 0, "initializer_range": 0.02});
    write(directory, &format!("{name}/config.json"), config.to_string().as_bytes());
    let header = br#"{"stand-in":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    write(directory, &format!("{name}/model.safetensors"), &weights);
}

/// The runs of a plan, each with its resolved settings.
pub(super) fn expanded(directory: &Path, plan: &str) -> Vec<(Run, Value)> {
    let commands = OwnCommands::new();
    let mut digests = Digests::open(&directory.join("digests.json"));
    let (_, runs) = runs_of(&directory.join(plan), &commands, &mut digests).unwrap_or_else(|error| panic!("{error}"));
    let mut known: BTreeMap<Vec<String>, Value> = BTreeMap::new();
    let resolved = |run: Run| {
        let settings = known.entry(run.command.clone());
        let settings = settings.or_insert_with(|| commands.resolve(&run.command).unwrap().settings).clone();
        (run, settings)
    };
    runs.into_iter().map(resolved).collect()
}
