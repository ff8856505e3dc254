//! A directory in Hugging Face layout: the configuration, weights in one file or in shards.

use std::path::Path;

use tamt_kernels::masks::BitMask;
use tamt_model::{
    Activations, Batch, Checkpoint, Config, HeadStart, Masks, Model, Pass, Save, TaskKind, Workspace, rewrite,
};

use crate::readers::files;

const FILES: [&str; 7] = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "a.safetensors",
    "b.bin",
];

/// A model is written and read again; it runs; a copy of its checkpoint has its weights.
pub(crate) fn model(input: &[u8]) -> bool {
    let dir = files::several(input, &FILES);
    if let Ok(config) = Config::read(dir.path().join("config.json")) {
        // The written text has a value for every field, so that it stays the same from then on.
        let again = Config::from_json(&config.to_json()).expect("a written configuration is read");
        assert_eq!(again.to_json(), config.to_json());
    }
    for head in [HeadStart::Random(1), HeadStart::Fresh(1), HeadStart::Checkpoint] {
        for task in [TaskKind::Sequence { outputs: 2 }, TaskKind::Span] {
            let _ = Model::load_for_task(dir.path(), task, head);
        }
    }
    let Ok(model) = Model::load(dir.path()) else { return false };
    let copy = files::empty();
    model.save(copy.path()).expect("a model can be written");
    let again = Model::load(copy.path()).expect("a written model is read");
    assert_same(&model, &again);
    run(&model);
    rewritten(dir.path(), &model);
    true
}

/// Checks that two models have the same weights by name.
pub(crate) fn assert_same(model: &Model, other: &Model) {
    assert_eq!(model.params.ids().len(), other.params.ids().len());
    for id in model.params.ids() {
        let (spec, values) = (model.params.spec(id), model.params.get(id));
        let same = other.params.find(&spec.name).map(|id| other.params.get(id));
        assert_eq!(same.as_deref(), Some(&*values), "{}", spec.name);
    }
}

/// Runs the encoder on a few tokens.
fn run(model: &Model) {
    let (longest, rows) = (model.config.max_length(), model.config.vocab_size as u32);
    let ids: Vec<u32> = (0..longest.min(3) as u32).map(|i| i % rows).collect();
    let mut batch = Batch::default();
    batch.push(&ids);
    batch.push(&ids[..1]);
    batch.locate(&model.config);
    let (mut activations, mut workspace) = (Activations::new(Save::Hidden), Workspace::default());
    model.forward(&batch, Pass::default(), &mut activations, &mut workspace);
    assert_eq!(activations.last_hidden().len(), (ids.len() + 1) * model.config.hidden_size);
}

/// Copies the checkpoint with zeros in the first query matrix.
fn rewritten(source: &Path, model: &Model) {
    let mut masks = Masks::default();
    if let Some(layer) = model.layers.first() {
        let [rows, cols] = model.params.matrix_shape(layer.query.weight);
        masks.set(layer.query.weight, BitMask::zeros(rows, cols));
    }
    let copy = files::empty();
    if rewrite(source, model, &masks, copy.path(), None).is_err() {
        return;
    }
    let checkpoint = Checkpoint::open(copy.path()).expect("a written checkpoint is read");
    for id in model.params.ids() {
        let spec = model.params.spec(id);
        let mut found = vec![f32::NAN; spec.elements()];
        checkpoint.load_f32(&spec.name, &spec.shape, &mut found).expect("the copy has the model's tensors");
        let original = model.params.get(id);
        match masks.get(id) {
            Some(_) => assert!(found.iter().all(|&value| value == 0.0), "{}", spec.name),
            None => assert_eq!(found, *original, "{}", spec.name),
        }
    }
}
