//! Reading and copying of tokenizer files.
//!
//! A bare vocabulary is translated into the equivalent `tokenizer.json` and then parsed as one, so that the
//! `tokenizers` crate has a single entry point.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use crate::error::{Error, Result, io_error};
use crate::text::{read_bytes, read_text};

/// The names of all tokenizer files.
const NAMES: [&str; 6] =
    ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// The keys of `tokenizer_config.json` that affect a bare vocabulary, with the defaults of `transformers`.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    do_lower_case: bool,
    /// Equal to `do_lower_case` if absent.
    strip_accents: Option<bool>,
    tokenize_chinese_chars: bool,
    add_prefix_space: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { do_lower_case: true, strip_accents: None, tokenize_chinese_chars: true, add_prefix_space: false }
    }
}

/// The tokenizer of a directory, and the file that defines its vocabulary.
pub(super) fn load(dir: &Path) -> Result<(Tokenizer, PathBuf)> {
    let [json, txt, vocab, merges] =
        ["tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"].map(|name| dir.join(name));
    if json.is_file() {
        let text = read_text(&json)?;
        return Ok((parse(&text, &json)?, json));
    }
    let (description, path) = if txt.is_file() {
        (word_piece(&txt, &config(dir)?)?, txt)
    } else if vocab.is_file() && merges.is_file() {
        (byte_level(&vocab, &merges, &config(dir)?)?, vocab)
    } else {
        return Err(Error::NoTokenizer { path: dir.to_owned() });
    };
    Ok((parse(&description.to_string(), &path)?, path))
}

/// The tokenizer files in `dir`.
pub(super) fn present(dir: &Path) -> Vec<PathBuf> {
    NAMES.iter().map(|name| dir.join(name)).filter(|path| path.is_file()).collect()
}

/// Copies `files` into `dir`.
pub(super) fn copy(files: &[PathBuf], dir: &Path) -> Result<()> {
    for file in files {
        let Some(name) = file.file_name() else {
            continue;
        };
        // `fs::copy` would copy a read-only mode, and would truncate a file copied onto itself.
        let bytes = read_bytes(file)?;
        let target = dir.join(name);
        fs::write(&target, bytes).map_err(io_error("write", &target))?;
    }
    Ok(())
}

fn parse(description: &str, path: &Path) -> Result<Tokenizer> {
    description.parse().map_err(|e: tokenizers::Error| bad(path, e.to_string()))
}

fn bad(path: &Path, reason: String) -> Error {
    Error::BadTokenizer { path: path.to_owned(), reason }
}

fn config(dir: &Path) -> Result<Config> {
    let path = dir.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(Config::default());
    }
    serde_json::from_str(&read_text(&path)?).map_err(|e| bad(&path, e.to_string()))
}

/// The `tokenizer.json` of a BERT tokenizer whose vocabulary file has one word piece per line.
fn word_piece(path: &Path, config: &Config) -> Result<Value> {
    let text = read_text(path)?;
    // The line number is the id. The last of two equal lines wins, as in `transformers`.
    let vocab: Map<String, Value> =
        text.lines().enumerate().map(|(id, piece)| (piece.trim_end().to_owned(), json!(id))).collect();
    let added = added_tokens(&vocab, &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.tokenize_chinese_chars,
            "strip_accents": config.strip_accents,
            "lowercase": config.do_lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }))
}

/// The `tokenizer.json` of a RoBERTa tokenizer: byte-level BPE.
fn byte_level(vocab_path: &Path, merges_path: &Path, config: &Config) -> Result<Value> {
    let vocab: Map<String, Value> =
        serde_json::from_str(&read_text(vocab_path)?).map_err(|e| bad(vocab_path, e.to_string()))?;
    let mut merges = Vec::new();
    for (number, line) in read_text(merges_path)?.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let Some(pair) = line.split_once(' ') else {
            let reason = format!("line {}: {line:?} is not two pieces with a space between", number + 1);
            return Err(bad(merges_path, reason));
        };
        merges.push(json!([pair.0, pair.1]));
    }
    let added = added_tokens(&vocab, &["<s>", "<pad>", "</s>", "<unk>", "<mask>"]);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": byte_level_step(config),
        // This step adds no token; it excludes the space before a word from the word's byte range.
        "post_processor": byte_level_step(config),
        "decoder": byte_level_step(config),
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

fn byte_level_step(config: &Config) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": config.add_prefix_space,
        "trim_offsets": true,
        "use_regex": true,
    })
}

/// The special tokens of the vocabulary. Their spelling in a text is recognised before normalisation.
fn added_tokens(vocab: &Map<String, Value>, names: &[&str]) -> Vec<Value> {
    let mut added: Vec<(u64, Value)> = names
        .iter()
        .filter_map(|name| {
            let id = vocab.get(*name)?.as_u64()?;
            let token = json!({
                "id": id,
                "content": name,
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": true,
            });
            Some((id, token))
        })
        .collect();
    // `tokenizers` expects ascending ids.
    added.sort_by_key(|(id, _)| *id);
    added.into_iter().map(|(_, token)| token).collect()
}
