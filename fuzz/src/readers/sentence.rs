//! The settings of sentence-transformers beside a model.

use std::sync::OnceLock;

use tamt::base::Base;
use tamt::encode::Pool;
use tamt::sentence::{EncodeChoices, encode_settings};
use tamt_model::sentence::SentenceModules;

use crate::readers::files;
use crate::readers::text::invented_tokenizer;
use crate::readers::training::tiny_model;

const FILES: [&str; 9] = [
    "modules.json",
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "0_Transformer/config.json",
    "0_Transformer/sentence_bert_config.json",
];

/// The settings fit the model; a pooling that is asked for is used.
pub(crate) fn sentence(input: &[u8]) -> bool {
    static BASE: OnceLock<Base> = OnceLock::new();
    let base = BASE.get_or_init(|| Base {
        name: String::new(),
        directory: std::path::PathBuf::new(),
        model: tiny_model().clone(),
        tokenizer: invented_tokenizer().clone(),
        sha256: String::new(),
        is_packed: false,
    });
    let dir = files::several(input, &FILES);
    let mut is_read = false;
    for directory in [dir.path().to_owned(), dir.path().join("0_Transformer")] {
        let base = Base { directory, ..base.clone() };
        let pool = EncodeChoices { pool: Some(Pool::Mean), normalize: Some(false), max_length: Some(4) };
        for choices in [EncodeChoices::default(), pool] {
            let Ok((settings, _)) = encode_settings(&base, choices) else { continue };
            assert!((1..=base.max_length()).contains(&settings.max_length), "{}", settings.max_length);
            assert!(choices.pool.is_none_or(|pool| settings.pool == pool && !settings.normalize));
            is_read |= choices.pool.is_none() && SentenceModules::of_model(&base.directory).is_ok_and(|m| m.is_some());
        }
    }
    is_read
}
