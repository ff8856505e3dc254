//! The layouts that other programs save a model in: wrappers, tied tensors, masks, decoders of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use tamt_model::{Config, Error, HeadStart, Model, Parts, TaskKind};
use tempfile::TempDir;

use crate::f32_bytes;

/// A tensor by its name: element type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn config(family: &str) -> Config {
    let text = format!(
        r#"{{"model_type": "{family}", "vocab_size": 7, "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 9, "type_vocab_size": 2,
            "dtype": "bfloat16", "torch_dtype": "float16"}}"#
    );
    Config::from_json(&text).unwrap()
}

/// A random model with an MLM head, and its directory.
fn saved(family: &str) -> (Model, TempDir) {
    let mut model = Model::random(config(family), Parts { pooler: true, mlm_head: true, task: None }, 3);
    // Biases of a random model are all 0.
    let bias = model.mlm_head.unwrap().decoder_bias;
    model.params.get_mut(bias).copy_from_slice(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path()).unwrap();
    (model, dir)
}

/// Rewrites the weights of a model directory.
fn edit(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn rename(tensors: &mut Tensors, from: &str, to: &str) {
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_owned(), tensor);
}

/// Expects the same tensors, under the same names for writing.
#[track_caller]
fn assert_same(read: &Model, expected: &Model) {
    assert_eq!(read.params.ids().len(), expected.params.ids().len());
    for id in expected.params.ids() {
        let (spec, name) = (read.params.spec(id), &expected.params.spec(id).checkpoint_name);
        assert_eq!((&spec.checkpoint_name, read.params.get(id)), (name, expected.params.get(id)), "{name}");
    }
}

#[test]
fn a_tied_tensor_is_found_under_its_other_name() {
    for (family, head) in [("bert", "cls.predictions"), ("roberta", "lm_head")] {
        let (model, dir) = saved(family);
        edit(dir.path(), |tensors| {
            let words = format!("{family}.embeddings.word_embeddings.weight");
            rename(tensors, &words, &format!("{head}.decoder.weight"));
            rename(tensors, &format!("{head}.bias"), &format!("{head}.decoder.bias"));
        });
        let read = Model::load(dir.path()).unwrap();
        assert_same(&read, &model);
        assert!(read.notes.is_empty() && read.untied_decoder.is_none());
        Model::load_for_task(dir.path(), TaskKind::Span, HeadStart::Random(1)).unwrap();

        // Without the tie, the decoder says nothing about the embeddings.
        let mut config = config(family);
        config.set_extra("tie_word_embeddings", false.into());
        fs::write(dir.path().join("config.json"), config.to_json()).unwrap();
        for error in [
            Model::load(dir.path()).unwrap_err(),
            Model::load_for_task(dir.path(), TaskKind::Span, HeadStart::Random(1)).unwrap_err(),
        ] {
            assert!(
                matches!(&error, Error::MissingTensor { similar, .. } if similar[0].ends_with("decoder.weight")),
                "{error}"
            );
        }
    }
}

/// transformers 5 reports `cls.predictions.decoder.weight` as missing and draws it from N(0, 0.2) for the small BERT of
/// `tests/golden` with this configuration.
#[test]
fn a_head_whose_decoder_is_neither_tied_nor_stored_is_left_out() {
    for family in ["bert", "roberta"] {
        let (_, dir) = saved(family);
        let mut config = config(family);
        config.set_extra("tie_word_embeddings", false.into());
        fs::write(dir.path().join("config.json"), config.to_json()).unwrap();
        let read = Model::load(dir.path()).unwrap();
        assert!(read.mlm_head.is_none() && read.notes.len() == 1, "{:?}", read.notes);
        assert!(read.notes[0].contains("`tie_word_embeddings` is false and no `"), "{}", read.notes[0]);
    }
}

#[test]
fn both_names_of_a_tied_tensor_are_one_tensor() {
    let (model, dir) = saved("bert");
    edit(dir.path(), |tensors| {
        let copies = [
            ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
            ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        ];
        for (from, to) in copies {
            tensors.insert(to.to_owned(), tensors[from].clone());
        }
    });
    assert_same(&Model::load(dir.path()).unwrap(), &model);
}

#[test]
fn one_prefix_on_all_names_is_ignored_with_a_note() {
    for prefix in ["module.", "_orig_mod.", "model.", "module._orig_mod.", "bert_model."] {
        let (model, dir) = saved("bert");
        edit(dir.path(), |tensors| {
            *tensors = std::mem::take(tensors).into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect();
        });
        let read = Model::load(dir.path()).unwrap();
        assert_same(&read, &model);
        assert!(matches!(&read.notes[..], [note] if note.contains(&format!("the prefix `{prefix}`"))), "{prefix}");
        // A prefix on some names only is no wrapper's.
        edit(dir.path(), |tensors| {
            tensors.insert("classifier.weight".to_owned(), (Dtype::F32, vec![1], f32_bytes(&[1.0])));
        });
        let error = Model::load(dir.path()).unwrap_err().to_string();
        let stored = format!("`{prefix}bert.embeddings.word_embeddings.weight`");
        assert!(
            error.contains(&format!("has no tensor `embeddings.word_embeddings.weight`; it has {stored}")),
            "{error}"
        );
    }
}

#[test]
fn weights_and_masks_of_torch_pruning_are_multiplied() {
    let (mut model, dir) = saved("bert");
    let name = "bert.encoder.layer.0.attention.self.query.weight";
    let mask: Vec<f32> = (0..16).map(|i| (i % 3 == 0).into()).collect();
    edit(dir.path(), |tensors| {
        rename(tensors, name, &format!("{name}_orig"));
        tensors.insert(format!("{name}_mask"), (Dtype::F32, vec![4, 4], f32_bytes(&mask)));
    });
    let query = model.layers[0].query.weight;
    model.params.get_mut(query).iter_mut().zip(&mask).for_each(|(weight, factor)| *weight *= factor);
    let read = Model::load(dir.path()).unwrap();
    assert_same(&read, &model);
    assert!(matches!(&read.notes[..], [note] if note.contains("torch.nn.utils.prune")), "{:?}", read.notes);

    // Both factors are finite, and a product is not.
    edit(dir.path(), |tensors| {
        for suffix in ["orig", "mask"] {
            tensors.insert(format!("{name}_{suffix}"), (Dtype::F32, vec![4, 4], f32_bytes(&[1e30; 16])));
        }
    });
    let error = Model::load(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::NonFinite { name: n, .. } if *n == format!("{name}_orig")), "{error}");

    // Weights whose mask is not there are not guessed to be whole.
    edit(dir.path(), |tensors| drop(tensors.remove(&format!("{name}_mask"))));
    let error = Model::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("it has `{name}_orig`")), "{error}");
}

#[test]
fn a_model_with_a_decoder_of_its_own_is_read_without_its_head() {
    let changes: [(&str, Vec<usize>); 3] = [
        ("cls.predictions.decoder.weight", vec![7, 4]),
        ("cls.predictions.decoder.weight", vec![8, 4]),
        ("cls.predictions.decoder.bias", vec![7]),
    ];
    for (name, shape) in changes {
        let (model, dir) = saved("bert");
        edit(dir.path(), |tensors| {
            let bytes = f32_bytes(&vec![0.5; shape.iter().product()]);
            tensors.insert(name.to_owned(), (Dtype::F32, shape, bytes));
        });
        let read = Model::load(dir.path()).unwrap();
        assert!(read.mlm_head.is_none());
        assert_eq!(read.params.ids().len(), model.params.ids().len() - 5);
        assert!(matches!(&read.notes[..], [note] if note.contains(name)), "{:?}", read.notes);
        assert!(matches!(read.decoding_head(), Err(Error::UntiedDecoder { name: n, .. }) if n == name));
    }
    let (model, _) = saved("bert");
    assert!(model.decoding_head().is_ok());
}

#[test]
fn sizes_that_the_file_does_not_hold_are_refused_before_memory_is_allocated() {
    let (_, dir) = saved("bert");
    // 57.6 GB of word embeddings.
    let text = r#"{"model_type": "bert", "vocab_size": 900000, "hidden_size": 16000, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 9, "type_vocab_size": 2}"#;
    fs::write(dir.path().join("config.json"), text).unwrap();
    let before = peak_memory();
    for error in [
        Model::load(dir.path()).unwrap_err(),
        Model::load_for_task(dir.path(), TaskKind::Span, HeadStart::Fresh(1)).unwrap_err(),
    ] {
        assert!(matches!(&error, Error::WrongShape { expected, .. } if expected == &[900_000, 16_000]), "{error}");
    }
    assert!(peak_memory() - before < 1 << 20, "kB");
}

/// The most address space that this process has had, in kB; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn written_weights_are_f32_and_the_configuration_says_so() {
    let (_, dir) = saved("bert");
    let config = Config::read(dir.path().join("config.json")).unwrap();
    for key in ["dtype", "torch_dtype"] {
        assert_eq!(config.extra(key), Some(&"float32".into()), "{key}");
    }
}
