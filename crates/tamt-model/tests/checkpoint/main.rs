//! Weights files: real and golden models, `PyTorch`'s files, damaged files.

mod damage;
mod layouts;
mod packed;
mod pytorch;
mod rewritten;

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use tamt_model::write::{write_config, write_model};
use tamt_model::{Checkpoint, Config, Error, Family};
use tempfile::TempDir;

/// Completes the copy of a model in `directory` by its configuration.
fn written<T>(copied: tamt_model::Result<(T, Config)>, directory: &Path) -> tamt_model::Result<T> {
    let (value, config) = copied?;
    write_config(directory, &config)?;
    Ok(value)
}

/// The path of a shared model, or `None` if it does not exist.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TAMT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(path);
    if path.exists() {
        return Some(path);
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: no {}", path.display());
    }
    None
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// A directory with one file.
fn dir_with(name: &str, bytes: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    dir
}

fn load(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> tamt_model::Result<Vec<f32>> {
    let mut out = vec![f32::NAN; shape.iter().product()];
    checkpoint.load_f32(name, shape, &mut out)?;
    Ok(out)
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A safetensors file of these tensors.
fn safetensors(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views =
        tensors.iter().map(|&(name, dtype, shape, data)| (name, TensorView::new(dtype, shape.to_vec(), data).unwrap()));
    serialize(views, None).unwrap()
}

fn tiny_config() -> Config {
    let text = r#"{"model_type": "bert", "vocab_size": 3, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 4, "max_position_embeddings": 5, "type_vocab_size": 2, "custom": [1, 2]}"#;
    Config::from_json(text).unwrap()
}

#[test]
fn golden_models_open_with_canonical_names() {
    for (kind, family, head) in
        [("bert", Family::Bert, "cls.predictions.bias"), ("roberta", Family::Roberta, "lm_head.bias")]
    {
        let Some(dir) = shared(&format!("golden/{kind}")) else {
            return;
        };
        let config = Config::read(dir.join("config.json")).unwrap();
        assert_eq!(config.family, family);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let words =
            load(&checkpoint, "embeddings.word_embeddings.weight", &[config.vocab_size, config.hidden_size]).unwrap();
        assert!(words.iter().any(|&w| w != 0.0));
        assert_eq!(
            checkpoint.original_name("embeddings.word_embeddings.weight"),
            Some(format!("{kind}.embeddings.word_embeddings.weight").as_str())
        );
        assert!(checkpoint.contains("encoder.layer.1.attention.self.query.weight"));
        load(&checkpoint, head, &[config.vocab_size]).unwrap();
    }
}

#[test]
fn a_real_half_precision_model_without_prefix_opens() {
    let Some(dir) = shared("data/minilm-l6-h384") else {
        return;
    };
    let config = Config::read(dir.join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let name = "embeddings.word_embeddings.weight";
    assert_eq!(checkpoint.original_name(name), Some(name));
    let words = load(&checkpoint, name, &[config.vocab_size, config.hidden_size]).unwrap();
    // All values are exact in half precision.
    assert!(words.iter().all(|&w| f16::from_f32(w).to_f32() == w));
    let digest = tamt_model::digest::sha256_file(&dir.join("model.safetensors")).unwrap();
    assert_eq!(checkpoint.sha256(), digest);
}

#[test]
fn every_float_type_loads_as_f32() {
    let values = [0.5f32, -1.25, 3.0, 1024.0, -0.0, 7.0];
    let f16s: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let bf16s: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let f64s: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
    let file = safetensors(&[
        ("f32", Dtype::F32, &[2, 3], &f32_bytes(&values)),
        ("f16", Dtype::F16, &[2, 3], &f16s),
        ("bf16", Dtype::BF16, &[2, 3], &bf16s),
        ("f64", Dtype::F64, &[2, 3], &f64s),
        ("i64", Dtype::I64, &[1], &[0; 8]),
    ]);
    let dir = dir_with("model.safetensors", &file);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for name in ["f32", "f16", "bf16", "f64"] {
        assert_eq!(load(&checkpoint, name, &[2, 3]).unwrap(), values, "{name}");
    }
    let error = load(&checkpoint, "i64", &[1]).unwrap_err();
    assert!(matches!(&error, Error::WrongDtype { name, dtype, .. } if name == "i64" && dtype == "I64"), "{error}");
}

#[test]
fn errors_name_the_file_the_tensor_and_what_is_wrong() {
    let file = safetensors(&[
        ("bert.good.weight", Dtype::F32, &[2, 2], &f32_bytes(&[1.0, 2.0, 3.0, 4.0])),
        ("bert.bad.weight", Dtype::F32, &[3], &f32_bytes(&[1.0, f32::NAN, f32::INFINITY])),
    ]);
    let dir = dir_with("model.safetensors", &file);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let message = |name, shape: &[usize]| load(&checkpoint, name, shape).unwrap_err().to_string();
    let path = dir.path().join("model.safetensors");
    let path = path.display();
    assert_eq!(
        message("none.weight", &[1]),
        format!("{path} has no tensor `none.weight`; it has `bert.bad.weight`, `bert.good.weight`")
    );
    assert_eq!(
        message("good.weight", &[4]),
        format!("{path}: tensor `bert.good.weight` has shape [2, 2], expected [4]")
    );
    assert_eq!(message("bad.weight", &[3]), format!("{path}: tensor `bert.bad.weight` holds NaN at element 1"));
}

#[test]
fn two_spellings_of_one_tensor_are_refused() {
    for names in [["bert.pooler.dense.bias", "pooler.dense.bias"], ["LayerNorm.gamma", "LayerNorm.weight"]] {
        let file = safetensors(&names.map(|name| (name, Dtype::F32, [1].as_slice(), [0; 4].as_slice())));
        let dir = dir_with("model.safetensors", &file);
        let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(names.iter().all(|name| error.contains(&format!("`{name}`"))), "{error}");
    }
}

#[test]
fn a_directory_without_weights_says_what_was_looked_for() {
    let dir = dir_with("tf_model.h5", b"");
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NoWeights { .. }));
    assert!(error.to_string().ends_with("model.packed.safetensors; it holds tf_model.h5"), "{error}");
    assert!(
        error.to_string().contains("model.safetensors, model.safetensors.index.json, pytorch_model.bin"),
        "{error}"
    );
    assert!(matches!(Checkpoint::open(&dir.path().join("gone")), Err(Error::NoSuchDirectory { .. })));
}

#[test]
fn safetensors_are_preferred_to_pytorch() {
    let dir = dir_with("model.safetensors", &safetensors(&[("a", Dtype::F32, &[1], &f32_bytes(&[1.0]))]));
    fs::write(dir.path().join("pytorch_model.bin"), "rubbish").unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.path(), dir.path().join("model.safetensors"));
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let dir = dir_with(name, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
        let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("git lfs pull"), "{error}");
    }
}

#[test]
fn what_a_file_is_that_is_no_weights_file_is_told() {
    for (bytes, kind) in
        [(&b"<!DOCTYPE html>\n<html>"[..], "a text file"), (b"", "it is empty"), (b"\x1f\x8b\x08\0", "gzip")]
    {
        let error = Checkpoint::open(dir_with("model.safetensors", bytes).path()).unwrap_err().to_string();
        assert!(error.contains(kind), "{error}");
    }
}

/// Two shards and their index.
fn sharded() -> (TempDir, Vec<u8>) {
    let first = safetensors(&[
        ("bert.a.weight", Dtype::F32, &[2], &f32_bytes(&[1.0, 2.0])),
        ("unlisted", Dtype::F32, &[1], &f32_bytes(&[9.0])),
    ]);
    let second = safetensors(&[("bert.b.gamma", Dtype::F32, &[1], &f32_bytes(&[3.0]))]);
    let index = r#"{"metadata": {"total_size": 12}, "weight_map": {
        "bert.b.gamma": "model-00002-of-00002.safetensors", "bert.a.weight": "model-00001-of-00002.safetensors"}}"#;
    let dir = dir_with("model.safetensors.index.json", index.as_bytes());
    fs::write(dir.path().join("model-00001-of-00002.safetensors"), &first).unwrap();
    fs::write(dir.path().join("model-00002-of-00002.safetensors"), &second).unwrap();
    let joined = [first, second].concat();
    (dir, joined)
}

#[test]
fn shards_make_one_checkpoint() {
    let (dir, joined) = sharded();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.weight", "b.weight"]);
    assert_eq!(load(&checkpoint, "a.weight", &[2]).unwrap(), [1.0, 2.0]);
    assert_eq!(load(&checkpoint, "b.weight", &[1]).unwrap(), [3.0]);
    assert_eq!(checkpoint.original_name("b.weight"), Some("bert.b.gamma"));
    assert_eq!(checkpoint.sha256(), tamt_files::digest::sha256_hex([joined.as_slice()]));
}

#[test]
fn an_index_that_lies_is_refused() {
    let index = |text: &str| {
        let (dir, _) = sharded();
        fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
        Checkpoint::open(dir.path()).unwrap_err()
    };
    let error = index(r#"{"weight_map": {"c": "model-00001-of-00002.safetensors"}}"#);
    assert!(matches!(&error, Error::Malformed { problem, .. } if problem.contains("`c`")), "{error}");
    let error = index(r#"{"weight_map": {"c": "../other.safetensors"}}"#);
    assert!(matches!(&error, Error::Malformed { problem, .. } if problem.contains("../other")), "{error}");
    let error = index(r#"{"weight_map": {"c": "gone.safetensors"}}"#);
    assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("gone.safetensors")), "{error}");
    assert!(matches!(index("{"), Error::Malformed { .. }));
    assert!(matches!(index(r#"{"weight_map": ["x"]}"#), Error::Malformed { .. }));
}

#[test]
fn a_written_model_reads_back_bit_for_bit() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("new/model");
    let values: Vec<f32> = (0..9000).map(|i| f32::from_bits(0x3f80_0000 + i)).collect();
    let tensors: [(&str, &[usize], &[f32]); 2] =
        [("bert.w.weight", &[90, 100], &values), ("cls.predictions.bias", &[3], &[-0.0, 1e-40, f32::MAX])];
    write_model(&dir, &tiny_config(), &tensors).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(load(&checkpoint, "w.weight", &[90, 100]).unwrap(), values);
    let bias = load(&checkpoint, "cls.predictions.bias", &[3]).unwrap();
    assert_eq!(bias.map_bits(), [-0.0f32, 1e-40, f32::MAX].map(f32::to_bits));
    let config = Config::read(dir.join("config.json")).unwrap();
    assert_eq!(config.extra("custom"), tiny_config().extra("custom"));
}

trait MapBits {
    fn map_bits(&self) -> Vec<u32>;
}

impl MapBits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|v| v.to_bits()).collect()
    }
}
