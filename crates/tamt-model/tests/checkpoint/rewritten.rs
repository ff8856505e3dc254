//! Checkpoints copied with the zeros of masks.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, TensorView, serialize};
use tamt_kernels::masks::BitMask;
use tamt_model::{Config, Dtype, Masks, Model, Parts, rewrite};
use tempfile::TempDir;

use crate::{f32_bytes, written};

const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";
const QUERY: &str = "bert.encoder.layer.0.attention.self.query.weight";

type Round = fn(f32) -> f32;

/// A BERT whose words are stored twice, with a head and a buffer that no `Model` has, in bf16 but for the two.
fn source() -> (Model, TempDir) {
    let text = r#"{"model_type": "bert", "architectures": ["BertForPreTraining"], "vocab_size": 7, "hidden_size": 4,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 9,
        "type_vocab_size": 2, "dtype": "float32", "custom": 5}"#;
    let parts = Parts { pooler: true, mlm_head: true, task: None };
    let model = Model::random(Config::from_json(text).unwrap(), parts, 3);
    let dir = tempfile::tempdir().unwrap();
    let rounded = |values: &[f32]| values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, FileDtype, Vec<usize>, Vec<u8>)> = model
        .params
        .ids()
        .map(|id| {
            let spec = model.params.spec(id);
            (spec.checkpoint_name.clone(), FileDtype::BF16, spec.shape.clone(), rounded(&model.params.get(id)))
        })
        .collect();
    let words = tensors.iter().find(|tensor| tensor.0 == WORDS).unwrap().clone();
    tensors.push((DECODER.to_owned(), words.1, words.2, words.3));
    let relation = f32_bytes(&[1e9; 8]);
    tensors.push(("cls.seq_relationship.weight".to_owned(), FileDtype::F32, vec![2, 4], relation));
    tensors.push(("bert.embeddings.position_ids".to_owned(), FileDtype::I64, vec![1], vec![7; 8]));
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(dir.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    fs::write(dir.path().join("config.json"), text).unwrap();
    (Model::load(dir.path()).unwrap(), dir)
}

/// Every third weight of the words and of a matrix of the layer.
fn masks(model: &Model) -> Masks {
    let mut masks = Masks::default();
    for id in [model.embeddings.word, model.layers[0].query.weight] {
        let [rows, cols] = model.params.matrix_shape(id);
        let mut mask = BitMask::zeros(rows, cols);
        (0..rows * cols).step_by(3).for_each(|i| mask.set(i / cols, i % cols, true));
        masks.set(id, mask);
    }
    masks
}

fn read(dir: &Path) -> Vec<(String, FileDtype, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, t)| (name, t.dtype(), t.shape().to_vec(), t.data().to_vec())).collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

#[test]
fn all_tensors_are_copied_and_dropped_weights_are_zero_in_both_tied_ones() {
    let (model, dir) = source();
    let target = dir.path().join("new");
    let rewritten = written(rewrite(dir.path(), &model, &masks(&model), &target, None), &target).unwrap();
    let (before, after) = (read(dir.path()), read(&target));
    assert_eq!(
        rewritten.dtypes.into_iter().collect::<Vec<_>>(),
        [("BF16".to_owned(), before.len() - 2), ("F32".to_owned(), 1), ("I64".to_owned(), 1)]
    );
    assert_eq!(before.len(), after.len());
    for (mut before, after) in before.into_iter().zip(after) {
        if [WORDS, DECODER, QUERY].contains(&before.0.as_str()) {
            let dropped = before.3.as_chunks_mut::<2>().0.iter_mut().enumerate().filter(|(i, _)| i % 3 != 0);
            dropped.for_each(|(_, bytes)| *bytes = [0, 0]);
        }
        assert_eq!(before, after);
    }
    let config = Config::read(target.join("config.json")).unwrap();
    assert_eq!(config.extra("architectures").unwrap()[0], "BertForPreTraining");
    assert_eq!(config.extra("custom"), Some(&5.into()));
    assert_eq!(config.extra("dtype"), Some(&"bfloat16".into()));
}

#[test]
fn weights_are_rounded_to_the_type_asked_for() {
    let (model, dir) = source();
    let words: Vec<f32> = model.params.get(model.embeddings.word).to_vec();
    let masked = |round: Round| -> Vec<f32> {
        words.iter().enumerate().map(|(i, &v)| if i % 3 == 0 { round(v) } else { 0.0 }).collect()
    };
    let cases: [(Dtype, FileDtype, &str, Round); 2] = [
        (Dtype::F32, FileDtype::F32, "float32", |v| v),
        (Dtype::Bf16, FileDtype::BF16, "bfloat16", |v| bf16::from_f32(v).to_f32()),
    ];
    for (dtype, in_file, name, round) in cases {
        let target = dir.path().join(name);
        written(rewrite(dir.path(), &model, &masks(&model), &target, Some(dtype)), &target).unwrap();
        for (name, dtype, ..) in read(&target) {
            assert_eq!(dtype, if name.ends_with("position_ids") { FileDtype::I64 } else { in_file }, "{name}");
        }
        let written = Model::load(&target).unwrap();
        assert_eq!(*written.params.get(written.embeddings.word), masked(round));
        assert_eq!(written.config.extra("dtype"), Some(&name.into()));
    }
    // 1e9 is beyond half precision.
    let error = rewrite(dir.path(), &model, &masks(&model), &dir.path().join("f16"), Some(Dtype::F16)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("`cls.seq_relationship.weight` holds 1000000000, which is too large for F16"), "{error}");
    assert!(f16::from_f32(1e9).is_infinite());
}

#[test]
fn a_decoder_of_its_own_stays_as_it_is() {
    let (_, dir) = source();
    let before = read(dir.path());
    let views = before.iter().map(|(name, dtype, shape, data)| {
        let data: &[u8] = if name == DECODER { &[0x80, 0x3f].repeat(28).leak()[..] } else { data };
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let bytes = serialize(views, None).unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let model = Model::load(dir.path()).unwrap();
    let target = dir.path().join("new");
    written(rewrite(dir.path(), &model, &masks(&model), &target, None), &target).unwrap();
    let decoder = read(&target).into_iter().find(|tensor| tensor.0 == DECODER).unwrap();
    assert_eq!(decoder.3, [0x80, 0x3f].repeat(28), "ones");
    assert_eq!(read(&target).len(), before.len(), "the head is written as well");
}
