//! Which tokenizer of `transformers` the files of a directory mean.
//!
//! `transformers` 5 builds the tokenizer of a known class from vocabulary and `tokenizer_config.json`, also where a
//! `tokenizer.json` stands beside them: case, accents, Chinese characters, prefix space and pair template are those of
//! the class and of `tokenizer_config.json`. Only a directory of the class `PreTrainedTokenizerFast` means the
//! `tokenizer.json` as it stands.

use std::path::Path;

use crate::error::{Error, Result};
use crate::tokenizer::json::{JsonFile, bad};

/// A supported tokenizer class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `BertTokenizer`: WordPiece.
    Bert,
    /// `DistilBertTokenizer`: BERT's tokens without token types.
    DistilBert,
    /// `RobertaTokenizer`: byte-level BPE.
    Roberta,
    /// `PreTrainedTokenizerFast`: `tokenizer.json` as it stands.
    File,
}

/// The class of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassOf {
    pub(super) class: Class,
    /// Whether `tokenizer_config.json` names the class.
    pub(super) stated: bool,
    /// Whether only the files of the vocabulary tell the class.
    pub(super) inferred: bool,
}

impl Class {
    /// The name that `tokenizer_class` has in `tokenizer_config.json`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertTokenizer",
            Self::DistilBert => "DistilBertTokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::File => "PreTrainedTokenizerFast",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name.strip_suffix("Fast").unwrap_or(name) {
            // Electra's tokenizer is an alias of BERT's.
            "BertTokenizer" | "ElectraTokenizer" => Self::Bert,
            "DistilBertTokenizer" => Self::DistilBert,
            "RobertaTokenizer" => Self::Roberta,
            "TokenizersBackend" => Self::File,
            "PreTrainedTokenizer" if name.ends_with("Fast") => Self::File,
            _ => return None,
        })
    }

    fn from_model_type(model_type: &str) -> Option<Self> {
        Some(match model_type {
            "bert" | "distilbert" | "electra" => Self::Bert,
            "roberta" => Self::Roberta,
            _ => return None,
        })
    }

    /// Whether `transformers` passes token types to the model by default.
    pub(super) fn has_type_ids(self) -> bool {
        self == Self::Bert
    }

    /// Number of `sep` between the texts of a pair.
    pub(super) fn separators(self) -> usize {
        if self == Self::Roberta { 2 } else { 1 }
    }

    /// The names of special tokens that hold where no file names others: role and token.
    pub(super) fn default_tokens(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bert | Self::DistilBert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", "<unk>"),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::File => &[],
        }
    }

    /// The vocabulary files that the class reads where there is no `tokenizer.json`.
    fn vocabulary_files(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::DistilBert => &["vocab.txt"],
            Self::Roberta => &["vocab.json", "merges.txt"],
            Self::File => &["tokenizer.json"],
        }
    }

    /// Whether the directory holds a vocabulary of this class.
    fn fits(self, dir: &Path) -> bool {
        dir.join("tokenizer.json").is_file() || self.vocabulary_files().iter().all(|name| dir.join(name).is_file())
    }
}

/// The class of the tokenizer in `dir`: that of `tokenizer_config.json`, else that of `config.json`, else that of the
/// model type, else (without a model) that of the vocabulary's files.
///
/// # Errors
///
/// [`Error::BadTokenizer`] if the class is not supported or does not fit the files, [`Error::NoTokenizer`].
pub(super) fn class_of(dir: &Path, config: &JsonFile) -> Result<ClassOf> {
    let model = JsonFile::read(&dir.join("config.json"))?;
    let named = match named_class(config)? {
        Some(class) => Some((class, config)),
        None => named_class(&model)?.map(|class| (class, &model)),
    };
    refuse_other_words(config)?;
    let by_files = [Class::File, Class::Bert, Class::Roberta]
        .into_iter()
        .find(|class| class.vocabulary_files().iter().all(|name| dir.join(name).is_file()));
    let Some(by_files) = by_files else {
        return Err(Error::NoTokenizer { path: dir.to_owned() });
    };
    let by_model = || Some((Class::from_model_type(model.text("model_type").ok()??)?, &model));
    let Some((class, source)) = named.or_else(by_model) else {
        return Ok(ClassOf { class: by_files, stated: false, inferred: true });
    };
    if !class.fits(dir) {
        let (name, files) = (class.name(), class.vocabulary_files().join(" and "));
        let found = by_files.vocabulary_files().join(" and ");
        let reason = format!(
            "the file means a {name}, which reads tokenizer.json or {files}, and there is only {found}; \
             `tokenizer_class` in tokenizer_config.json says which class is meant"
        );
        return Err(bad(&source.path, reason));
    }
    Ok(ClassOf { class, stated: config.has("tokenizer_class"), inferred: false })
}

/// The class that the key `tokenizer_class` of a file names.
fn named_class(file: &JsonFile) -> Result<Option<Class>> {
    let Some(name) = file.text("tokenizer_class")? else {
        return Ok(None);
    };
    match Class::from_name(name) {
        Some(class) => Ok(Some(class)),
        None => {
            let as_it_stands = if file.path.with_file_name("tokenizer.json").is_file() {
                format!(
                    "; `\"tokenizer_class\": \"{}\"` in tokenizer_config.json reads the tokenizer.json as it stands",
                    Class::File.name()
                )
            } else {
                String::new()
            };
            let reason = format!(
                "tokenizer_class is {name:?}, and only the tokenizers of BERT and RoBERTa (BertTokenizer, \
                 DistilBertTokenizer, ElectraTokenizer, RobertaTokenizer) and a PreTrainedTokenizerFast are \
                 supported{as_it_stands}"
            );
            Err(bad(&file.path, reason))
        }
    }
}

/// Refuses settings that make another tokenizer of a supported class.
fn refuse_other_words(config: &JsonFile) -> Result<()> {
    for (key, usual) in [("word_tokenizer_type", "basic"), ("subword_tokenizer_type", "wordpiece")] {
        if let Some(value) = config.text(key)?
            && value != usual
        {
            return Err(bad(&config.path, format!("{key} is {value:?}, and only {usual:?} is supported")));
        }
    }
    if config.has("auto_map") {
        return Err(bad(&config.path, "auto_map names a tokenizer with code of its own, which is not run".to_owned()));
    }
    if let Some(names) = config.get("fast_tokenizer_files").and_then(|v| v.as_array())
        && names.iter().any(|name| name != "tokenizer.json")
    {
        let reason = "fast_tokenizer_files names other files than tokenizer.json, and only tokenizer.json is read";
        return Err(bad(&config.path, reason.to_owned()));
    }
    Ok(())
}
