//! `PyTorch` files from `tests/fixtures/make_bin.py`.

use std::collections::BTreeMap;
use std::fs;

use tamt_model::{Checkpoint, Error};

use crate::{dir_with, fixture, load};

/// The tensors in `zip.bin` and `legacy.bin`.
fn expected() -> BTreeMap<&'static str, (Vec<usize>, Vec<f32>)> {
    let ramp: Vec<f32> = (0..24).map(|i| i as f32 / 4.0 - 3.0).collect();
    let transposed = (0..6).flat_map(|col| (0..4).map(move |row| row * 6 + col)).map(|i| ramp[i]).collect();
    let slice = [8, 9, 10, 14, 15, 16].map(|i| ramp[i]).to_vec();
    BTreeMap::from([
        ("embeddings.LayerNorm.weight", (vec![3], vec![1.0, 2.0, 3.0])),
        ("embeddings.LayerNorm.bias", (vec![3], vec![-1.0, 0.5, 0.25])),
        ("f32", (vec![4, 6], ramp.clone())),
        ("f16", (vec![4, 6], ramp.clone())),
        ("bf16", (vec![4, 6], ramp.clone())),
        ("f64", (vec![4, 6], ramp)),
        ("transposed", (vec![6, 4], transposed)),
        ("slice", (vec![2, 3], slice)),
        ("shared.head", (vec![4], vec![0.0, 1.0, 2.0, 3.0])),
        ("shared.tail", (vec![6], vec![4.0, 5.0, 6.0, 7.0, 8.0, 9.0])),
        ("expanded", (vec![3], vec![7.0; 3])),
        ("scalar", (vec![], vec![2.5])),
        ("empty", (vec![0, 3], vec![])),
        ("parameter", (vec![2], vec![0.125, -8.0])),
        ("cls.predictions.bias", (vec![2], vec![0.0; 2])),
    ])
}

#[test]
fn pytorch_files_of_both_formats_hold_what_was_saved() {
    for file in ["zip.bin", "legacy.bin"] {
        let dir = dir_with("pytorch_model.bin", &fixture(file));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let expected = expected();
        for (name, (shape, values)) in &expected {
            assert_eq!(&load(&checkpoint, name, shape).unwrap(), values, "{file}: {name}");
        }
        // The only integer tensor.
        assert_eq!(checkpoint.shape("embeddings.position_ids"), Some([1, 5].as_slice()));
        assert!(matches!(load(&checkpoint, "embeddings.position_ids", &[1, 5]), Err(Error::WrongDtype { .. })));
        assert_eq!(checkpoint.names().len(), expected.len() + 1);
        assert_eq!(checkpoint.original_name("embeddings.LayerNorm.bias"), Some("bert.embeddings.LayerNorm.beta"));
    }
}

#[test]
fn the_state_dict_of_a_module_loads_in_spite_of_its_attributes() {
    let dir = dir_with("pytorch_model.bin", &fixture("module.bin"));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(
        checkpoint.names().collect::<Vec<_>>(),
        ["LayerNorm.bias", "LayerNorm.weight", "dense.bias", "dense.weight"]
    );
    assert_eq!(load(&checkpoint, "dense.weight", &[2, 2]).unwrap(), [0.5; 4]);
}

#[test]
fn sharded_pytorch_files_load() {
    let index = r#"{"weight_map": {"f32": "a.bin", "dense.bias": "b.bin"}}"#;
    let dir = dir_with("pytorch_model.bin.index.json", index.as_bytes());
    fs::write(dir.path().join("a.bin"), fixture("legacy.bin")).unwrap();
    fs::write(dir.path().join("b.bin"), fixture("module.bin")).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["dense.bias", "f32"]);
    assert_eq!(load(&checkpoint, "dense.bias", &[2]).unwrap(), [-0.5; 2]);
}

#[test]
fn a_pickle_that_calls_something_is_refused_by_name() {
    let dir = dir_with("pytorch_model.bin", &fixture("call.bin"));
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { problem, .. } if problem.contains("`posix.system`")), "{error}");
}

#[test]
fn a_training_checkpoint_is_told_from_a_state_dict() {
    let dir = dir_with("pytorch_model.bin", &fixture("nested.bin"));
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { problem, .. } if problem.contains("model, step")), "{error}");
}

#[test]
fn what_is_no_pytorch_file_is_refused() {
    for bytes in [b"".as_slice(), b"hello", b"PK\x03\x04", &[0; 4096], b"\x80\x02K\x01."] {
        let dir = dir_with("pytorch_model.bin", bytes);
        let error = Checkpoint::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::Unsupported { .. }), "{error}");
    }
}
