//! The files of a tokenizer.

use tamt_data::Tokenizer;

use crate::readers::files;

const FILES: [&str; 8] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
];

const TEXTS: [&str; 6] = [
    "",
    "The keeper kept her map.",
    "caf\u{e9} \u{6f22}\u{5b57}  [MASK] <mask> [SEP]</s>",
    "\u{1f600}\u{200d}\u{fe0f}\u{0}\t e\u{301}\u{fffd}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    " \u{a0}\u{3000}new-year, <unk> ##s",
];

/// Tokens are in the vocabulary and at characters of the text; a written tokenizer is the same tokenizer.
pub(crate) fn tokenizer(input: &[u8]) -> bool {
    let dir = files::several(input, &FILES);
    let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) else { return false };
    let specials = *tokenizer.specials();
    let ids = [Some(specials.cls), Some(specials.sep), Some(specials.mask), specials.pad, specials.unk];
    for id in ids.into_iter().flatten() {
        assert!(id < tokenizer.vocab_size() && tokenizer.token(id).is_some(), "special token {id}");
    }
    let copy = files::empty();
    tokenizer.save_to(copy.path()).expect("a tokenizer can be written");
    let again = Tokenizer::from_dir(copy.path()).expect("a written tokenizer is read");
    assert_eq!(again.vocab_size(), tokenizer.vocab_size());
    assert_eq!(again.specials(), tokenizer.specials());
    for text in TEXTS {
        encoded(&tokenizer, &again, text);
    }
    true
}

fn encoded(tokenizer: &Tokenizer, again: &Tokenizer, text: &str) {
    let Ok(ids) = tokenizer.ids(text) else {
        assert!(again.ids(text).is_err(), "{text:?}");
        return;
    };
    assert!(ids.iter().all(|&id| id < tokenizer.vocab_size()), "{text:?}: {ids:?}");
    assert_eq!(again.ids(text).expect("the tokenizers are equal"), ids, "{text:?}");
    let with_offsets = tokenizer.ids_with_offsets(text).expect("the text has tokens");
    assert_eq!(with_offsets.ids, ids, "{text:?}");
    for (start, end) in with_offsets.offsets {
        assert!(text.get(start..end).is_some(), "{text:?}: {start}..{end}");
    }
    let sequence = tokenizer.encode(text, 8).expect("the length is above 2");
    assert!(sequence.len() <= 8 && sequence.len() >= 2);
    let Ok(pair) = tokenizer.encode_pair(text, "her map", 9) else { return };
    assert!(pair.ids.len() <= 9 && pair.ids.len() == pair.type_ids.len());
}
