//! Packed models: the same weights and hidden states, and damaged files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tamt_kernels::Precision;
use tamt_kernels::masks::{BitMask, WeightRef};
use tamt_model::write::{TensorData, write_safetensors};
use tamt_model::{
    Activations, Batch, Checkpoint, Config, Dtype, Error, HeadStart, KernelChoice, Masks, Model, PACKED_FILE, Parts,
    Pass, PreparedWeights, Save, Storage, TaskKind, Workspace, pack, rewrite,
};
use tempfile::TempDir;

use crate::written;

/// Rows and columns that are no multiples of 8.
const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 51, "hidden_size": 36, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 76, "max_position_embeddings": 16, "type_vocab_size": 2}"#;

/// A random model with a pooler and an MLM head, saved.
fn saved() -> (TempDir, Model) {
    let parts = Parts { pooler: true, mlm_head: true, task: None };
    let model = Model::random(Config::from_json(CONFIG).unwrap(), parts, 3);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path()).unwrap();
    (dir, model)
}

/// Masks that keep `kept` weights in ten, of all prunable matrices but the first.
fn masks(model: &Model, kept: usize) -> Masks {
    let mut masks = Masks::default();
    for (n, id) in model.prunable().into_iter().enumerate().skip(1) {
        let [rows, cols] = model.params.matrix_shape(id);
        let mut mask = BitMask::zeros(rows, cols);
        for i in 0..rows * cols {
            mask.set(i / cols, i % cols, (i * 7919 + n * 31) % 1009 % 10 < kept);
        }
        masks.set(id, mask);
    }
    masks
}

fn packed(source: &Path, model: &Model, masks: &Masks, precision: Precision) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    written(pack(source, model, masks, dir.path(), precision, &BTreeMap::new()), dir.path()).unwrap();
    dir
}

fn weights(model: &Model) -> Vec<(String, Vec<u32>)> {
    let bits = |id| model.params.get(id).iter().map(|value| value.to_bits()).collect();
    model.params.ids().map(|id| (model.params.spec(id).name.clone(), bits(id))).collect()
}

/// The bits of all hidden states under `masks`.
fn hidden(model: &Model, masks: Option<&Masks>, choice: KernelChoice, precision: Precision) -> Vec<u32> {
    let mut batch = Batch::default();
    for length in [1, 16, 9] {
        batch.push(&(0..length).map(|i| i * 13 % 51).collect::<Vec<u32>>());
    }
    batch.locate(&model.config);
    let prepared = PreparedWeights::for_inference(model, masks, choice, precision);
    let (mut activations, mut workspace) = (Activations::new(Save::Hidden), Workspace::new(precision));
    model.forward(&batch, Pass::new(masks, Some(&prepared)), &mut activations, &mut workspace);
    (0..activations.hidden_count()).flat_map(|layer| activations.hidden(layer).to_vec()).map(f32::to_bits).collect()
}

#[test]
fn a_packed_model_has_the_hidden_states_of_base_and_masks_bit_for_bit_with_the_same_kernel() {
    let (dir, model) = saved();
    for kept in [0, 1, 3, 10] {
        let masks = masks(&model, kept);
        let compact = packed(dir.path(), &model, &masks, Precision::F32);
        let compact = Model::load_as(compact.path(), Storage::Compact).unwrap();
        for choice in [KernelChoice::DENSE, KernelChoice::SPARSE] {
            for precision in [Precision::F32, Precision::Bf16] {
                let expected = hidden(&model, Some(&masks), choice, precision);
                assert_eq!(hidden(&compact, None, choice, precision), expected, "{kept} {choice:?} {precision:?}");
            }
        }
        // Rounded to bf16, the model is that of the applied masks in the same type.
        let (halves, applied) = (packed(dir.path(), &model, &masks, Precision::Bf16), tempfile::tempdir().unwrap());
        written(rewrite(dir.path(), &model, &masks, applied.path(), Some(Dtype::Bf16)), applied.path()).unwrap();
        let halves = Model::load_as(halves.path(), Storage::Compact).unwrap();
        let applied = Model::load(applied.path()).unwrap();
        for choice in [KernelChoice::DENSE, KernelChoice::SPARSE] {
            let expected = hidden(&applied, Some(&masks), choice, Precision::F32);
            assert_eq!(hidden(&halves, None, choice, Precision::F32), expected, "{kept} {choice:?}");
        }
    }
}

#[test]
fn both_storages_hold_the_same_weights_and_unpacked_files_are_those_of_applied_masks() {
    let (dir, model) = saved();
    let masks = masks(&model, 3);
    for (precision, dtype) in [(Precision::F32, Dtype::F32), (Precision::Bf16, Dtype::Bf16)] {
        let compact = packed(dir.path(), &model, &masks, precision);
        let [a, b] = [Storage::Dense, Storage::Compact].map(|s| Model::load_as(compact.path(), s).unwrap());
        assert_eq!(weights(&a), weights(&b));
        assert_eq!(weights(&a).len(), weights(&model).len());
        for (id, mask) in masks.iter() {
            let WeightRef::Compact(matrix) = b.params.weight(id, None) else { panic!("a dense matrix in memory") };
            assert_eq!(matrix.mask(), mask);
            assert!(matches!(a.params.weight(id, None), WeightRef::Dense(_)));
        }
        let head = |s| Model::load_for_task_as(compact.path(), TaskKind::Span, HeadStart::Fresh(1), s).unwrap();
        assert_eq!(weights(&head(Storage::Dense)), weights(&head(Storage::Compact)));

        let (applied, unpacked) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        written(rewrite(dir.path(), &model, &masks, applied.path(), Some(dtype)), applied.path()).unwrap();
        written(rewrite(compact.path(), &a, &Masks::default(), unpacked.path(), None), unpacked.path()).unwrap();
        for file in ["model.safetensors", "config.json"] {
            let [expected, found] = [&applied, &unpacked].map(|dir| fs::read(dir.path().join(file)).unwrap());
            assert_eq!(found, expected, "{file}");
        }
        // Packed once more, from either form, it is the same but for its origin.
        let again = packed(unpacked.path(), &a, &Masks::default(), precision);
        let third = packed(compact.path(), &a, &Masks::default(), precision);
        let [again, third] = [again, third].map(|dir| fs::read(dir.path().join(PACKED_FILE)).unwrap());
        assert_eq!(again, third);
    }
}

#[test]
fn a_matrix_is_packed_without_its_zeros_only_where_that_takes_fewer_bytes() {
    let (dir, mut model) = saved();
    let (few, many) = (model.layers[0].query.weight, model.layers[0].key.weight);
    model.params.get_mut(few)[..3].fill(0.0);
    // A product of a negative weight and the mask of PyTorch is a negative zero.
    model.params.get_mut(many)[..900].fill(-0.0);
    model.save(dir.path()).unwrap();
    let compact = packed(dir.path(), &model, &Masks::default(), Precision::F32);
    let text = String::from_utf8_lossy(&fs::read(compact.path().join(PACKED_FILE)).unwrap()).into_owned();
    assert!(text.contains("layer.0.attention.self.key.weight.bitmask"));
    assert!(text.contains("\"bert.encoder.layer.0.attention.self.query.weight\":{"));
    let read = Model::load_as(compact.path(), Storage::Compact).unwrap();
    assert_eq!(read.params.get(few), model.params.get(few));
    assert!(read.params.get(many)[..900].iter().all(|value| value.to_bits() == 0));
    assert_eq!(read.params.get(many)[900..], model.params.get(many)[900..]);
}

#[test]
fn a_decoder_that_is_tied_is_stored_once_and_comes_back() {
    let (dir, model) = saved();
    let words = model.embeddings.word;
    let add_decoder = |first: f32| {
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for id in model.params.ids() {
            let spec = model.params.spec(id);
            tensors.push((spec.checkpoint_name.clone(), spec.shape.clone(), model.params.get(id).to_vec()));
        }
        let (mut decoder, shape) = (model.params.get(words).to_vec(), model.params.spec(words).shape.clone());
        decoder[0] += first;
        tensors.push(("cls.predictions.decoder.weight".to_owned(), shape, decoder));
        let data: Vec<_> = tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), TensorData::F32(v))).collect();
        write_safetensors(&dir.path().join("model.safetensors"), &BTreeMap::new(), &data).unwrap();
    };
    add_decoder(0.0);
    let mut masks = masks(&model, 3);
    masks.set(words, BitMask::zeros(51, 36));
    let compact = packed(dir.path(), &model, &masks, Precision::F32);
    let text = String::from_utf8_lossy(&fs::read(compact.path().join(PACKED_FILE)).unwrap()).into_owned();
    assert!(!text.contains("\"cls.predictions.decoder.weight\":{") && text.contains("tied_decoder"));
    let checkpoint = Checkpoint::open(compact.path()).unwrap();
    assert_eq!(checkpoint.shape("cls.predictions.decoder.weight"), Some(&[51, 36][..]));
    assert!(Model::load_as(compact.path(), Storage::Compact).unwrap().mlm_head.is_some());

    add_decoder(1.0);
    let compact = packed(dir.path(), &model, &masks, Precision::F32);
    let model = Model::load_as(compact.path(), Storage::Compact).unwrap();
    assert!(model.mlm_head.is_none() && model.untied_decoder.is_some(), "the decoder is another matrix");
}

#[test]
fn a_checkpoint_with_a_tensor_of_a_parts_name_cannot_be_packed() {
    let (dir, model) = saved();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for id in model.params.ids() {
        let spec = model.params.spec(id);
        tensors.push((spec.checkpoint_name.clone(), spec.shape.clone(), model.params.get(id).to_vec()));
    }
    tensors.push(("bert.encoder.layer.0.output.dense.weight.values".to_owned(), vec![1], vec![1.0]));
    let data: Vec<_> = tensors.iter().map(|(n, s, v)| (n.as_str(), s.as_slice(), TensorData::F32(v))).collect();
    write_safetensors(&dir.path().join("model.safetensors"), &BTreeMap::new(), &data).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = pack(dir.path(), &model, &masks(&model, 3), out.path(), Precision::F32, &BTreeMap::new()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { problem, .. } if problem.contains("dense.weight.values")), "{error}");
}

/// The packed file of a small model.
fn small() -> &'static (Vec<u8>, Vec<u8>) {
    static SMALL: std::sync::OnceLock<(Vec<u8>, Vec<u8>)> = std::sync::OnceLock::new();
    SMALL.get_or_init(|| {
        let (dir, model) = saved();
        let compact = packed(dir.path(), &model, &masks(&model, 3), Precision::Bf16);
        let read = |name: &str| fs::read(compact.path().join(name)).unwrap();
        (read("config.json"), read(PACKED_FILE))
    })
}

/// Loads a packed model in both storages, which are read or refused alike.
fn read_both(weights: &[u8]) -> tamt_model::Result<Model> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), &small().0).unwrap();
    fs::write(dir.path().join(PACKED_FILE), weights).unwrap();
    let [dense, compact] = [Storage::Dense, Storage::Compact].map(|storage| Model::load_as(dir.path(), storage));
    assert_eq!(dense.is_ok(), compact.is_ok(), "{:?}", dense.err());
    if let Ok(dense) = &dense {
        assert_eq!(self::weights(dense), self::weights(compact.as_ref().unwrap()));
        let out = tempfile::tempdir().unwrap();
        written(rewrite(dir.path(), dense, &Masks::default(), out.path(), None), out.path()).unwrap();
    }
    compact
}

fn replaced(from: &str, to: &str) -> Vec<u8> {
    let bytes = &small().1;
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the text is there");
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn headers_that_lie_are_refused_with_the_reason() {
    let cases = [
        (r#""version":"1""#, r#""version":"7""#, "version \"7\""),
        (r#""version":"1""#, r#""vexsion":"1""#, "without a version"),
        (r#"query.weight\":[36,36]"#, r#"query.weight\":[36,33]"#, "has shape [36, 33], expected [36, 36]"),
        (r#"query.weight\":[36,36]"#, r#"query.weight\":[36,44]"#, "query.weight.bitmask` is U8 [36, 5]"),
        (r#"query.weight\":[36,36]"#, r#"query.weight\":[00,36]"#, "shapes cannot be read"),
        (r#"query.weight\":[36,36]"#, r#"query.weight\":[36, 0]"#, "is 36 x 0"),
        ("query.weight.bitmask", "query.weight.bitmasc", "lacks the tensor"),
        ("query.weight.values", "query.weight.value2", "lacks the tensor"),
        (r#""dtype":"BF16""#, r#""dtype":"I16" "#, ""),
    ];
    for (from, to, reason) in cases {
        let error = read_both(&replaced(from, to)).expect_err(to).to_string();
        assert!(error.contains(reason), "{error}");
    }
    // The shape of fewer columns has bits beyond them, and one survivor more or less is noticed.
    let bytes = &small().1;
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let info = &header["bert.encoder.layer.0.attention.self.query.weight.bitmask"]["data_offsets"];
    let at = 8 + length + info[0].as_u64().unwrap() as usize;
    for (flip, reason) in [(1u8, "keeps"), (0x80, "beyond its 36 columns")] {
        let mut other = bytes.clone();
        other[at + if flip == 1 { 0 } else { 4 }] ^= flip;
        let error = read_both(&other).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let info = &header["bert.encoder.layer.0.attention.self.query.weight.values"]["data_offsets"];
    let at = 8 + length + info[0].as_u64().unwrap() as usize;
    let mut infinite = bytes.clone();
    infinite[at + 2..at + 4].copy_from_slice(&0x7f80u16.to_le_bytes());
    let error = read_both(&infinite).unwrap_err();
    assert!(matches!(error, Error::NonFinite { index: 1, .. }), "{error}");
}

#[test]
fn a_cut_file_is_refused() {
    let bytes = &small().1;
    for len in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
        assert!(read_both(&bytes[..len]).is_err(), "cut to {len} of {}", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damage_is_an_error_or_other_weights_but_no_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..6), in_header in any::<bool>(),
    ) {
        let mut bytes = small().1.clone();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let end = if in_header { 8 + header } else { bytes.len() };
        for (at, flip) in flips {
            bytes[at.index(end)] ^= flip;
        }
        let _ = read_both(&bytes);
    }
}
