//! Text files.

use std::sync::OnceLock;

use tamt_data::invented::World;
use tamt_data::{Corpus, ReadOptions, Tokenizer};

use crate::readers::files;

/// The tokens of a text are those of its lines.
pub(crate) fn text(input: &[u8]) -> bool {
    let dir = files::one("text.txt", input);
    let tokenizer = invented_tokenizer();
    let Ok(corpus) = Corpus::read(&[dir.path().join("text.txt")], tokenizer, ReadOptions::default()) else {
        return false;
    };
    let text = std::str::from_utf8(input).expect("a text that is read is UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(corpus.lines, lines.len());
    assert!(corpus.tokens.iter().all(|&id| id < tokenizer.vocab_size()));
    let unknown = tokenizer.specials().unk.expect("the tokenizer has an unknown token");
    let mut expected = Vec::new();
    for line in lines {
        for (i, part) in line.split("<unk>").enumerate() {
            expected.extend((i > 0).then_some(unknown));
            expected.extend(tokenizer.ids(part).expect("the tokenizer has an unknown token"));
        }
    }
    assert_eq!(corpus.tokens, expected);
    true
}

/// The tokenizer of an invented language.
pub(crate) fn invented_tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let dir = files::empty();
        World::new(7).write_tokenizer(dir.path()).expect("a tokenizer can be written");
        Tokenizer::from_dir(dir.path()).expect("the tokenizer is valid")
    })
}
