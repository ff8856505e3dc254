//! Reading and writing of the files of a tokenizer.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tamt_files::names::TOKENIZER_FILES;
use tokenizers::Tokenizer;

use crate::error::Result;
use crate::panics::caught;
use crate::text::{read_bytes, read_text};
use crate::tokenizer::added::{Tokens, tokens_of};
use crate::tokenizer::class::{Class, ClassOf, class_of};
use crate::tokenizer::guard;
use crate::tokenizer::json::{JsonFile, bad};
use crate::tokenizer::template::{self, Template};
use crate::tokenizer::vocabulary;
use crate::write::atomic_write;

const CONFIG: &str = "tokenizer_config.json";

/// A file of a tokenizer's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFile {
    /// The name in the directory.
    pub name: &'static str,
    /// The content.
    pub bytes: Vec<u8>,
}

/// What the files of a directory say.
pub(super) struct Loaded {
    pub(super) inner: Tokenizer,
    /// The file that defines the vocabulary.
    pub(super) path: PathBuf,
    pub(super) tokens: Tokens,
    pub(super) unknown: Option<String>,
    /// The template of a `tokenizer.json` that is used as it stands.
    pub(super) template: Option<Template>,
    pub(super) class: Class,
    /// Whether the model gets token types.
    pub(super) type_ids: bool,
    /// Whether a text that is too long loses its beginning, not its end.
    pub(super) truncate_left: bool,
    /// The `tokenizer_config.json` to be written in place of that of the directory, which does not name the class.
    pub(super) config: Option<String>,
}

/// Reads the tokenizer of a directory. A panic of the `tokenizers` crate on a damaged file becomes an error.
pub(super) fn load(dir: &Path) -> Result<Loaded> {
    let config = JsonFile::read(&dir.join(CONFIG))?;
    let of = class_of(dir, &config)?;
    let path = main_file(dir, of.class);
    caught(|| read(dir, &path, &config, of)).unwrap_or_else(|panic| Err(bad(&path, panic)))
}

fn read(dir: &Path, path: &Path, config: &JsonFile, of: ClassOf) -> Result<Loaded> {
    let class = of.class;
    let text = if path.ends_with("tokenizer.json") { Some(read_text(path)?) } else { None };
    let description: Option<Value> = match &text {
        Some(text) => Some(serde_json::from_str(text).map_err(|e| bad(path, e.to_string()))?),
        None => None,
    };
    let tokens = Tokens::read(dir, class, config, description.as_ref())?;
    let mut inner = match (&text, class) {
        (Some(text), Class::File) => as_it_stands(text, description.as_ref(), dir, path)?,
        _ => of_class(dir, path, config, &tokens, class, description.as_ref())?,
    };
    tokens.add_to(&mut inner, dir)?;
    inner.set_encode_special_tokens(config.flag("split_special_tokens", false)?);
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| bad(path, e.to_string()))?;
    let template = match (&description, class) {
        (Some(description), Class::File) => Some(template::of_description(description, path)?),
        _ => None,
    };
    let direction = description.as_ref().and_then(|d| d["truncation"]["direction"].as_str());
    let truncate_left = match config.text("truncation_side")? {
        Some(side) => side == "left",
        None => direction == Some("Left"),
    };
    let unknown = match (&description, class) {
        (Some(description), Class::File) => description["model"]["unk_token"].as_str().map(str::to_owned),
        _ => None,
    };
    Ok(Loaded {
        inner,
        path: path.to_owned(),
        unknown: tokens.role("unk_token").or(unknown),
        tokens,
        template,
        class,
        type_ids: has_type_ids(config, of)?,
        truncate_left,
        config: config_with_class(config, of),
    })
}

/// The file with the vocabulary of a class.
fn main_file(dir: &Path, class: Class) -> PathBuf {
    let json = dir.join("tokenizer.json");
    match class {
        _ if json.is_file() => json,
        Class::Roberta => dir.join("vocab.json"),
        _ => dir.join("vocab.txt"),
    }
}

/// The tokenizer of a class over the vocabulary in `path`.
fn of_class(
    dir: &Path,
    path: &Path,
    config: &JsonFile,
    tokens: &Tokens,
    class: Class,
    description: Option<&Value>,
) -> Result<Tokenizer> {
    let description = if class == Class::Roberta {
        let (vocab, merges) = match description {
            Some(d) => (vocabulary::vocab_of(d, "BPE", class.name(), path)?, vocabulary::merges_of(d, path)?),
            None => (vocabulary::vocab_json(path)?, vocabulary::merges_txt(&dir.join("merges.txt"))?),
        };
        vocabulary::byte_level(&vocab, &merges, config)?
    } else {
        let vocab = match description {
            Some(d) => vocabulary::vocab_of(d, "WordPiece", class.name(), path)?,
            None => vocabulary::vocab_txt(path)?,
        };
        let Some(unknown) = tokens.role("unk_token") else {
            return Err(bad(&config.path, "unk_token is null, and a WordPiece vocabulary needs one".to_owned()));
        };
        vocabulary::word_piece(&vocab, &unknown, config)?
    };
    parse(&description.to_string(), path)
}

/// The tokenizer that a `tokenizer.json` describes.
fn as_it_stands(text: &str, description: Option<&Value>, dir: &Path, path: &Path) -> Result<Tokenizer> {
    let Some(description) = description else {
        return parse(text, path);
    };
    guard::check(description, path)?;
    let inner = parse(text, path)?;
    if description["model"]["dropout"].as_f64().is_some_and(|p| p != 0.0) {
        return Err(bad(
            path,
            "its model drops merges at random (dropout): the tokens of a text would vary".to_owned(),
        ));
    }
    for (id, token) in tokens_of(description, dir)? {
        let content = &token.content;
        if let Some(given) = inner.token_to_id(content)
            && given != id
        {
            let reason = format!("the id of the added token {content:?} is {id}, and the vocabulary leaves {given}");
            return Err(bad(path, reason));
        }
    }
    Ok(inner)
}

fn parse(description: &str, path: &Path) -> Result<Tokenizer> {
    description.parse().map_err(|e: tokenizers::Error| bad(path, e.to_string()))
}

/// Whether the model gets token types: as `model_input_names` says, else by the class. A `tokenizer.json` without a model
/// beside it has those of its template.
fn has_type_ids(config: &JsonFile, of: ClassOf) -> Result<bool> {
    let names = config.typed("model_input_names", "a list", Value::as_array)?;
    Ok(match names {
        Some(names) => names.iter().any(|name| name == "token_type_ids"),
        None => of.class.has_type_ids() || (of.class == Class::File && of.inferred),
    })
}

/// `tokenizer_config.json` with the name of the class, if it lacks the name.
fn config_with_class(config: &JsonFile, of: ClassOf) -> Option<String> {
    if of.stated {
        return None;
    }
    let mut map = config.map.clone();
    map.insert("tokenizer_class".to_owned(), json!(of.class.name()));
    if of.class == Class::File && of.inferred {
        map.entry("model_input_names").or_insert_with(|| json!(["input_ids", "token_type_ids", "attention_mask"]));
    }
    Some(format!("{:#}\n", Value::Object(map)))
}

/// The tokenizer files in `dir`.
pub(super) fn present(dir: &Path) -> Result<Vec<TokenizerFile>> {
    names(dir).map(|name| Ok(TokenizerFile { name, bytes: read_bytes(&dir.join(name))? })).collect()
}

/// The paths of the tokenizer files in `dir`.
pub(super) fn paths(dir: &Path) -> Vec<PathBuf> {
    names(dir).map(|name| dir.join(name)).collect()
}

fn names(dir: &Path) -> impl Iterator<Item = &'static str> {
    TOKENIZER_FILES.into_iter().filter(|name| dir.join(name).is_file())
}

/// Writes `files` into `dir`, with `config` as `tokenizer_config.json` if given.
pub(super) fn write(files: &[TokenizerFile], config: Option<&str>, dir: &Path) -> Result<()> {
    for TokenizerFile { name, bytes } in files.iter().filter(|file| config.is_none() || file.name != CONFIG) {
        atomic_write(&dir.join(name), |out| out.write_all(bytes))?;
    }
    config.map_or(Ok(()), |config| atomic_write(&dir.join(CONFIG), |out| out.write_all(config.as_bytes())))
}
