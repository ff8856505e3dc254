//! Seeds of packed models and of numpy's archives.

use std::collections::BTreeMap;

use tamt::magnitude::magnitude;
use tamt::prune::{Scope, Sparsity, pruned_matrices};
use tamt_kernels::Precision;
use tamt_model::write::write_config;
use tamt_model::write::{TensorData, write_safetensors};
use tamt_model::{Masks, Model, pack};

use crate::readers::files;
use crate::readers::training::tiny_model;
use crate::seeds::{Seed, fixture, packed_directory, read, refused};

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = packed();
    seeds.extend(npz());
    seeds
}

/// The tiny model under a mask, packed; `change` edits the directory of the dense model.
fn packed_bytes(masks: &Masks, precision: Precision, change: impl Fn(&std::path::Path)) -> Vec<u8> {
    let (dense, compact) = (files::empty(), files::empty());
    let model: &Model = tiny_model();
    model.save(dense.path()).unwrap();
    change(dense.path());
    let metadata = BTreeMap::from([("base_model".to_owned(), "models/tiny".to_owned())]);
    let (_, config) = pack(dense.path(), model, masks, compact.path(), precision, &metadata).unwrap();
    write_config(compact.path(), &config).unwrap();
    packed_directory(compact.path(), &["config.json", "model.packed.safetensors"])
}

/// An input with one text replaced by another of the same length.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the text is there");
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

/// Adds a decoder that equals the word embeddings.
fn with_decoder(dense: &std::path::Path) {
    let model = tiny_model();
    let words = model.embeddings.word;
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for id in model.params.ids() {
        let spec = model.params.spec(id);
        tensors.push((spec.checkpoint_name.clone(), spec.shape.clone(), model.params.get(id).to_vec()));
    }
    let shape = model.params.spec(words).shape.clone();
    tensors.push(("cls.predictions.decoder.weight".to_owned(), shape, model.params.get(words).to_vec()));
    let data: Vec<_> = tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), TensorData::F32(v))).collect();
    write_safetensors(&dense.join("model.safetensors"), &BTreeMap::new(), &data).unwrap();
}

fn packed() -> Vec<Seed> {
    let model: &Model = tiny_model();
    let ids = pruned_matrices(model, None).unwrap();
    let masks = magnitude(model, &ids, Sparsity::new(0.7).unwrap(), Scope::Local);
    let same = |_: &std::path::Path| ();
    let whole = packed_bytes(&masks, Precision::F32, same);
    let halves = packed_bytes(&masks, Precision::Bf16, same);
    let survivors = ".attention.self.query.values";
    vec![
        read("packed", "bf16", halves.clone()),
        read("packed", "f32", whole.clone()),
        read("packed", "without masks", packed_bytes(&Masks::default(), Precision::Bf16, same)),
        read("packed", "tied", packed_bytes(&masks, Precision::Bf16, with_decoder)),
        refused("packed", "version", replaced(&whole, r#""version":"1""#, r#""version":"2""#)),
        refused("packed", "no bits", replaced(&whole, "query.weight.bitmask", "query.weight.bitmasc")),
        refused("packed", "no values", replaced(&halves, ".weight.values", ".weight.value2")),
        refused("packed", "columns", replaced(&halves, r#"query.weight\":[4,4]"#, r#"query.weight\":[4,3]"#)),
        refused("packed", "text", survivors),
    ]
}

/// A member of an archive of numpy: the header's text and the elements.
fn array(header: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{header}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), elements].concat()
}

/// CRC-32 as in zip.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A zip archive of stored members.
fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let (at, len) = (file.len() as u32, (bytes.len() as u32).to_le_bytes());
        // Version 2.0, no flags, stored, no time, the checksum, both sizes, the length of the name, nothing more.
        let common = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0], &crc32(bytes).to_le_bytes()[..], &len, &len].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        file.extend([b"PK\x03\x04", &common[..], &name_len, &[0, 0], name.as_bytes(), bytes].concat());
        let rest = [&name_len[..], &[0; 12], &at.to_le_bytes(), name.as_bytes()].concat();
        directory.extend([b"PK\x01\x02\x14\0", &common[..], &rest].concat());
    }
    let (count, at) = ((members.len() as u16).to_le_bytes(), (file.len() as u32).to_le_bytes());
    let size = (directory.len() as u32).to_le_bytes();
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &size, &at, &[0, 0]].concat()
}

fn npz() -> Vec<Seed> {
    let header = |kind: &str, fortran: &str, shape: &str| {
        format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
    };
    let floats: Vec<u8> = [1f32, 0.0, -0.5, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let bool_array = array(&header("|b1", "False", "(2, 3)"), &[1, 0, 1, 0, 0, 1]);
    let fortran = array(&header("|u1", "True", "(2, 3)"), &[1, 0, 1, 0, 0, 1]);
    let mut second = array(&header("<f4", "False", "(2, 2)"), &floats);
    // The second version of the format has a length of four bytes.
    second[6] = 2;
    second.splice(10..10, [0, 0]);
    let vector = array(&header("<i8", "False", "(1,)"), &1i64.to_le_bytes());
    vec![
        read("npz", "compressed", fixture("tamt-cli/tests/fixtures/masks/masks.npz")),
        read("npz", "masks", zip(&[("a.weight.npy", bool_array.clone()), ("b.npy", fortran)])),
        read("npz", "second version", zip(&[("a.npy", second)])),
        read("npz", "empty", zip(&[("a.npy", array(&header("<f2", "False", "(0, 3)"), &[]))])),
        refused("npz", "vector", zip(&[("a.npy", vector)])),
        refused("npz", "twos", zip(&[("a.npy", array(&header("|u1", "False", "(1, 2)"), &[1, 2]))])),
        refused("npz", "short", zip(&[("a.npy", array(&header("|b1", "False", "(9, 9)"), &[1, 0]))])),
        refused("npz", "objects", zip(&[("a.npy", array(&header("|O", "False", "(1, 1)"), &[]))])),
        refused("npz", "other member", zip(&[("readme.txt", bool_array)])),
        refused("npz", "text", "no archive"),
    ]
}
