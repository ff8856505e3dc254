//! Packed models: `config.json` and `model.packed.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use tamt_kernels::Precision;
use tamt_model::write::write_config;
use tamt_model::{
    Activations, Batch, Checkpoint, HeadStart, KernelChoice, Masks, Model, Pass, PreparedWeights, Save, Storage,
    TaskKind, Workspace, pack, rewrite,
};

use crate::readers::files;
use crate::readers::model::assert_same;

const FILES: [&str; 2] = ["config.json", "model.packed.safetensors"];

/// A packed model has the same weights with and without its dropped weights in memory, and the same hidden states. Packed
/// again, it is the same model; unpacked, it has the same weights.
pub(crate) fn packed(input: &[u8]) -> bool {
    let dir = files::several(input, &FILES);
    for task in [TaskKind::Sequence { outputs: 2 }, TaskKind::Span] {
        let loaded = |storage| Model::load_for_task_as(dir.path(), task, HeadStart::Random(1), storage);
        if let (Ok(dense), Ok(compact)) = (loaded(Storage::Dense), loaded(Storage::Compact)) {
            assert_same(&dense, &compact);
        }
    }
    let (dense, compact) = (Model::load_as(dir.path(), Storage::Dense), Model::load_as(dir.path(), Storage::Compact));
    assert_eq!(dense.is_ok(), compact.is_ok(), "one storage is read and the other is not");
    let (Ok(dense), Ok(compact)) = (dense, compact) else { return false };
    assert_same(&dense, &compact);
    assert_eq!(hidden(&dense, KernelChoice::DENSE), hidden(&compact, KernelChoice::DENSE));
    assert_eq!(hidden(&dense, KernelChoice::DENSE), hidden(&compact, KernelChoice::SPARSE));
    copied(dir.path(), &dense);
    Checkpoint::open(dir.path()).expect("the model was read").is_packed()
}

/// The bits of the last hidden states of a few tokens.
fn hidden(model: &Model, choice: KernelChoice) -> Vec<u32> {
    let (longest, rows) = (model.config.max_length(), model.config.vocab_size as u32);
    let ids: Vec<u32> = (0..longest.min(3) as u32).map(|i| i % rows).collect();
    let mut batch = Batch::default();
    batch.push(&ids);
    batch.locate(&model.config);
    let prepared = PreparedWeights::for_inference(model, None, choice, Precision::F32);
    let (mut activations, mut workspace) = (Activations::new(Save::Hidden), Workspace::default());
    model.forward(&batch, Pass::new(None, Some(&prepared)), &mut activations, &mut workspace);
    let states = activations.last_hidden();
    // Weights of any size may overflow, and a sum of infinities depends on its order.
    if states.iter().all(|state| state.is_finite()) {
        states.iter().map(|state| (state + 0.0).to_bits()).collect()
    } else {
        Vec::new()
    }
}

/// Packs the model again, and unpacks it.
fn copied(source: &Path, model: &Model) {
    let copy = files::empty();
    if let Ok((_, config)) = pack(source, model, &Masks::default(), copy.path(), Precision::F32, &BTreeMap::new()) {
        write_config(copy.path(), &config).expect("a configuration is written");
        let again = Model::load_as(copy.path(), Storage::Compact).expect("a packed model is read");
        assert_same(model, &again);
    }
    let copy = files::empty();
    if let Ok((_, config)) = rewrite(source, model, &Masks::default(), copy.path(), None) {
        write_config(copy.path(), &config).expect("a configuration is written");
        let again = Model::load(copy.path()).expect("an unpacked model is read");
        assert_same(model, &again);
    }
}
