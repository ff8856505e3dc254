//! Names of files that several crates know.

/// The files of a tokenizer in a model directory, in the order of its digest. A tokenizer has some of them.
pub const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];
