//! Truncated, inconsistent and random weights files.

use std::fs;

use proptest::prelude::*;
use safetensors::tensor::Dtype;
use tamt_model::{Checkpoint, Error};

use crate::{dir_with, fixture, load, safetensors};

#[test]
fn a_truncated_file_of_any_kind_is_refused() {
    let whole = safetensors(&[("a", Dtype::F32, &[4], &[0; 16])]);
    for (name, bytes) in [
        ("model.safetensors", whole),
        ("pytorch_model.bin", fixture("zip.bin")),
        ("pytorch_model.bin", fixture("legacy.bin")),
    ] {
        for len in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
            let dir = dir_with(name, &bytes[..len]);
            let error = Checkpoint::open(dir.path()).expect_err(&format!("{name} cut to {len} of {}", bytes.len()));
            assert!(matches!(error, Error::Malformed { .. } | Error::Unsupported { .. }), "{error}");
        }
    }
}

#[test]
fn lying_safetensors_headers_are_refused() {
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let entry = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let cases = [
        file(&format!(r#"{{"a":{}}}"#, entry("[4]", 0, 16)), 12),
        file(&format!(r#"{{"a":{}}}"#, entry("[4]", 0, 12)), 12),
        file(&format!(r#"{{"a":{}}}"#, entry("[4]", 16, 0)), 16),
        file(&format!(r#"{{"a":{},"b":{}}}"#, entry("[4]", 0, 16), entry("[4]", 8, 24)), 24),
        file(&format!(r#"{{"a":{},"b":{}}}"#, entry("[4]", 0, 16), entry("[4]", 0, 16)), 16),
        file(&format!(r#"{{"a":{}}}"#, entry("[4611686018427387904,4]", 0, 0)), 0),
        file(&format!(r#"{{"a":{}}}"#, entry("[4]", 0, u64::MAX)), 16),
        file("[]", 0),
        file(&"[".repeat(100_000), 0),
        u64::MAX.to_le_bytes().to_vec(),
        (1u64 << 40).to_le_bytes().to_vec(),
        vec![0; 3],
    ];
    for (i, bytes) in cases.iter().enumerate() {
        let dir = dir_with("model.safetensors", bytes);
        let error = Checkpoint::open(dir.path()).expect_err(&format!("case {i}"));
        assert!(matches!(error, Error::Malformed { .. }), "case {i}: {error}");
    }
}

/// Loads each tensor in its shape. Errors are allowed, panics are not.
fn load_all(checkpoint: &Checkpoint) {
    for name in checkpoint.names() {
        let shape = checkpoint.shape(name).unwrap();
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if len.is_some_and(|len| len < 1 << 16) {
            let _ = load(checkpoint, name, shape);
        }
    }
}

/// Flips bits of `bytes`, then truncates them.
fn damaged(bytes: &[u8], flips: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, mask) in flips {
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

/// Opens and loads an arbitrary file.
fn survives(name: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
        load_all(&checkpoint);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_to_a_file_is_an_error_or_other_weights_but_no_panic(
        which in 0..3usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let small = safetensors(&[("a", Dtype::F32, &[2, 3], &[0; 24]), ("b", Dtype::F16, &[5], &[0; 10])]);
        let (name, bytes) = match which {
            0 => ("model.safetensors", small),
            1 => ("pytorch_model.bin", fixture("zip.bin")),
            _ => ("pytorch_model.bin", fixture("legacy.bin")),
        };
        survives(name, &damaged(&bytes, &flips, cut));
    }

    #[test]
    fn arbitrary_bytes_are_no_weights(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives("model.safetensors", &bytes);
        survives("pytorch_model.bin", &bytes);
    }
}
