//! Tokenizers, compared with `transformers`. `tests/fixtures/make.py` makes the expected values.

#![allow(clippy::print_stdout, reason = "skips are printed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tamt_data::{Error, Tokenizer};

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    pairs: Vec<(String, String)>,
    tokenizers: BTreeMap<String, Outputs>,
}

#[derive(Deserialize)]
struct Outputs {
    ids: Vec<Vec<u32>>,
    offsets: Vec<Vec<(usize, usize)>>,
    pairs: Vec<PairOutput>,
}

#[derive(Deserialize)]
struct PairOutput {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn expected() -> Expected {
    let text = fs::read_to_string(fixtures().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::from_dir(&fixtures().join(name)).unwrap()
}

#[test]
fn ids_are_those_of_transformers_for_every_format_and_every_nasty_text() {
    let expected = expected();
    assert_eq!(expected.tokenizers.len(), 4);
    for (name, outputs) in &expected.tokenizers {
        let tokenizer = load(name);
        for (text, ids) in expected.texts.iter().zip(&outputs.ids) {
            assert_eq!(&tokenizer.ids(text).unwrap(), ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn offsets_are_those_of_transformers_in_bytes() {
    let expected = expected();
    for (name, outputs) in &expected.tokenizers {
        let tokenizer = load(name);
        for (i, text) in expected.texts.iter().enumerate() {
            let tokenized = tokenizer.ids_with_offsets(text).unwrap();
            assert_eq!(tokenized.ids, outputs.ids[i], "{name}: {text:?}");
            assert_eq!(tokenized.offsets, outputs.offsets[i], "{name}: {text:?}");
        }
    }
}

/// The byte ranges of the character offsets that `tokenizers` gives in Python for the tokenizer of the fixture `roberta`
/// with `add_prefix_space`:
///
/// ```python
/// tokenizer.encode("😀 x", add_special_tokens=False).offsets
/// # [(0, 0), (0, 1), (0, 1), (0, 1), (0, 1), (2, 2), (2, 3)]
/// ```
#[test]
fn a_prefix_space_has_no_part_of_the_character_behind() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt"] {
        fs::copy(fixtures().join("roberta").join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"add_prefix_space": true}"#).unwrap();
    let tokenized = Tokenizer::from_dir(dir.path()).unwrap().ids_with_offsets("\u{1f600} x").unwrap();
    assert_eq!(tokenized.offsets, [(0, 0), (0, 4), (0, 4), (0, 4), (0, 4), (5, 5), (5, 6)]);
}

#[test]
fn pairs_are_those_of_transformers_after_longest_first_truncation() {
    let expected = expected();
    for (name, outputs) in &expected.tokenizers {
        let tokenizer = load(name);
        for ((first, second), want) in expected.pairs.iter().zip(&outputs.pairs) {
            let pair = tokenizer.encode_pair(first, second, 12).unwrap();
            assert_eq!(pair.ids, want.ids, "{name}: {first:?}, {second:?}");
            assert_eq!(pair.type_ids, want.type_ids, "{name}: {first:?}, {second:?}");
        }
    }
}

#[test]
fn encode_adds_the_special_tokens_and_never_exceeds_the_maximum() {
    let tokenizer = load("bert_json");
    let specials = tokenizer.specials();
    let text = "the lighthouse keeper counted forty waves before the lantern went out";
    let inside = tokenizer.ids(text).unwrap();
    assert!(inside.len() > 8, "the file's own truncation to 8 is off");
    for max_len in 3..40 {
        let ids = tokenizer.encode(text, max_len).unwrap();
        let kept = inside.len().min(max_len - 2);
        assert_eq!(ids[0], specials.cls);
        assert_eq!(ids[1..=kept], inside[..kept]);
        assert_eq!(ids[kept + 1..], [specials.sep]);
    }
    assert!(matches!(tokenizer.encode(text, 2), Err(Error::Length { length: 2, .. })));
    assert!(matches!(tokenizer.encode_pair(text, text, 3), Err(Error::Length { .. })));
}

#[test]
fn specials_are_found_by_their_spelling() {
    let bert = load("bert");
    for (id, token) in [
        (Some(bert.specials().cls), "[CLS]"),
        (Some(bert.specials().sep), "[SEP]"),
        (Some(bert.specials().mask), "[MASK]"),
        (bert.specials().pad, "[PAD]"),
        (bert.specials().unk, "[UNK]"),
    ] {
        assert_eq!(bert.token(id.unwrap()).as_deref(), Some(token));
    }
    let roberta = load("roberta");
    let specials = *roberta.specials();
    assert_eq!((specials.cls, specials.sep, specials.mask), (0, 2, 4));
    assert_eq!((specials.pad, specials.unk), (Some(1), Some(3)));
}

#[test]
fn the_vocabulary_size_is_one_more_than_the_highest_id() {
    let lines = fs::read_to_string(fixtures().join("bert/vocab.txt")).unwrap().lines().count();
    assert_eq!(load("bert").vocab_size() as usize, lines);
    assert_eq!(load("bert_json").vocab_size() as usize, lines);

    let dir = tempfile::tempdir().unwrap();
    let vocab = r#"{"<s>": 0, "</s>": 2, "<mask>": 17, "a": 5}"#;
    fs::write(dir.path().join("vocab.json"), vocab).unwrap();
    fs::write(dir.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().vocab_size(), 18);
}

#[test]
fn saved_files_load_as_the_same_tokenizer() {
    for name in ["bert_cased", "bert_json", "roberta"] {
        let tokenizer = load(name);
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save_to(dir.path()).unwrap();
        // A copy of the files onto themselves must not truncate them.
        let copy = Tokenizer::from_dir(dir.path()).unwrap();
        copy.save_to(dir.path()).unwrap();
        let copy = Tokenizer::from_dir(dir.path()).unwrap();
        assert!(copy.files().len() >= tokenizer.files().len());
        for text in &expected().texts {
            assert_eq!(copy.ids(text).unwrap(), tokenizer.ids(text).unwrap());
        }
    }
}

#[test]
fn the_error_for_a_directory_without_a_tokenizer_lists_the_expected_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vocab.json"), "{}").unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NoTokenizer { .. }));
    let message = error.to_string();
    for name in ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"] {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn broken_tokenizer_files_are_errors_that_name_the_file() {
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("tokenizer.json", "{\"model\": ")], "tokenizer.json"),
        (&[("tokenizer.json", "[]")], "tokenizer.json"),
        (&[("vocab.txt", "")], "[CLS]"),
        (&[("vocab.txt", "a\nb\n[CLS]\n[SEP]\n")], "mask"),
        (&[("vocab.txt", "[CLS]"), ("tokenizer_config.json", "{")], "tokenizer_config.json"),
        (&[("vocab.txt", "[CLS]"), ("tokenizer_config.json", r#"{"do_lower_case": 3}"#)], "tokenizer_config.json"),
        (&[("vocab.json", r#"{"a": -1}"#), ("merges.txt", "")], "vocab.json"),
        (&[("vocab.json", r#"{"a": 0}"#), ("merges.txt", "#version: 0.2\na b\nab\n")], "line 3"),
    ];
    for (files, says) in cases {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(says), "{files:?}: {error}");
    }
}

#[test]
fn a_vocabulary_that_is_not_text_is_an_error_with_the_position() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vocab.txt"), b"[CLS]\n\xff\n").unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NotText { line: 2, offset: 6, .. }), "{error}");
}

#[test]
fn the_shared_checkpoints_tokenizers_load() {
    let shared = std::env::var_os("TAMT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    if !shared.is_dir() {
        println!("skipped: no shared data at {}", shared.display());
        return;
    }
    for (name, vocab_size) in [("golden/bert", 160), ("golden/roberta", 380), ("data/minilm-l6-h384", 30522)] {
        let tokenizer = Tokenizer::from_dir(&shared.join(name)).unwrap();
        assert_eq!(tokenizer.vocab_size(), vocab_size, "{name}");
        assert!(!tokenizer.ids("the old cat").unwrap().is_empty());
    }
}
