//! The vocabulary of a tokenizer class, as a `tokenizer.json` without special tokens.
//!
//! Every format is translated into a `tokenizer.json` and then parsed as one, so that the `tokenizers` crate has a single
//! entry point.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::text::read_text;
use crate::tokenizer::json::{JsonFile, bad};

/// The `tokenizer.json` of a BERT tokenizer over `vocab`, with the settings of `tokenizer_config.json`.
pub(super) fn word_piece(vocab: &Map<String, Value>, unknown: &str, config: &JsonFile) -> Result<Value> {
    Ok(json!({
        "version": "1.0",
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.flag("tokenize_chinese_chars", true)?,
            // Equal to `lowercase` if absent.
            "strip_accents": config.optional_flag("strip_accents")?,
            "lowercase": config.flag("do_lower_case", true)?,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }))
}

/// The `tokenizer.json` of a RoBERTa tokenizer: byte-level BPE.
pub(super) fn byte_level(vocab: &Map<String, Value>, merges: &[Value], config: &JsonFile) -> Result<Value> {
    let step = json!({
        "type": "ByteLevel",
        "add_prefix_space": config.flag("add_prefix_space", false)?,
        "trim_offsets": config.flag("trim_offsets", true)?,
        "use_regex": true,
    });
    Ok(json!({
        "version": "1.0",
        "pre_tokenizer": step,
        // This step adds no token; it excludes the space before a word from the word's byte range.
        "post_processor": step,
        "decoder": step,
        "model": {
            "type": "BPE",
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

/// The pieces of a `vocab.txt`. The line number is the id; the last of two equal lines wins.
pub(super) fn vocab_txt(path: &Path) -> Result<Map<String, Value>> {
    let text = read_text(path)?;
    Ok(text.lines().enumerate().map(|(id, piece)| (piece.trim_end().to_owned(), json!(id))).collect())
}

/// The pieces of a `vocab.json`.
pub(super) fn vocab_json(path: &Path) -> Result<Map<String, Value>> {
    Ok(JsonFile::read(path)?.map)
}

/// The pairs of pieces in a `merges.txt`.
pub(super) fn merges_txt(path: &Path) -> Result<Vec<Value>> {
    let mut merges = Vec::new();
    for (number, line) in read_text(path)?.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let pair = pair(line).ok_or_else(|| {
            bad(path, format!("line {}: {line:?} is not two pieces with a space between", number + 1))
        })?;
        merges.push(pair);
    }
    Ok(merges)
}

/// The vocabulary of a `tokenizer.json` whose model has the type `kind`.
pub(super) fn vocab_of(description: &Value, kind: &str, class: &str, path: &Path) -> Result<Map<String, Value>> {
    let model = &description["model"];
    // Old files lack the type.
    let found = model["type"].as_str().unwrap_or(if model["merges"].is_array() { "BPE" } else { "WordPiece" });
    if found != kind {
        let reason = format!("its model is a {found}, and the directory means a {class}, whose model is a {kind}");
        return Err(bad(path, reason));
    }
    model["vocab"].as_object().cloned().ok_or_else(|| bad(path, "its model has no vocab".to_owned()))
}

/// The merges of a `tokenizer.json`: texts of two pieces, or pairs.
pub(super) fn merges_of(description: &Value, path: &Path) -> Result<Vec<Value>> {
    let read = |merge: &Value| match merge {
        Value::String(text) => pair(text),
        Value::Array(_) => Some(merge.clone()),
        _ => None,
    };
    let merges = description["model"]["merges"].as_array();
    let merges = merges.and_then(|merges| merges.iter().map(read).collect());
    merges.ok_or_else(|| bad(path, "its model has no merges, or one that is not two pieces".to_owned()))
}

fn pair(text: &str) -> Option<Value> {
    let (first, second) = text.split_once(' ')?;
    Some(json!([first, second]))
}
