//! Tokenizers of BERT and RoBERTa checkpoints, in each of their file formats.

mod added;
mod class;
mod files;
mod guard;
mod json;
mod template;
mod vocabulary;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tamt_files::digest::sha256_hex;

use crate::error::{Error, Result};
use crate::panics::caught;
use crate::tokenizer::files::Loaded;
pub use crate::tokenizer::files::TokenizerFile;
use crate::tokenizer::template::Template;

/// The ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specials {
    /// Starts every sequence: `[CLS]` or `<s>`.
    pub cls: u32,
    /// Ends every sequence: `[SEP]` or `</s>`.
    pub sep: u32,
    /// Replaces a token that the model predicts: `[MASK]` or `<mask>`.
    pub mask: u32,
    /// Pads short sequences: `[PAD]` or `<pad>`.
    pub pad: Option<u32>,
    /// Replaces text that the vocabulary cannot spell: `[UNK]` or `<unk>`.
    pub unk: Option<u32>,
    /// Number of `sep` tokens between the two texts of a pair: 1 for BERT, 2 for RoBERTa.
    pub pair_separators: usize,
    /// The token type of the second text of a pair and its `sep`: 1 for BERT, 0 for RoBERTa. All other tokens have 0.
    pub second_type: u32,
}

impl Specials {
    /// Whether `id` is `cls`, `sep` or `pad`. MLM never corrupts these tokens.
    pub fn is_structural(&self, id: u32) -> bool {
        id == self.cls || id == self.sep || Some(id) == self.pad
    }
}

/// The tokens of a text, with their positions in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// The token ids, without `cls` and `sep`.
    pub ids: Vec<u32>,
    /// The byte range `(start, end)` of each token in the text.
    pub offsets: Vec<(usize, usize)>,
}

/// The token sequence of one text or of a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The token ids: `cls` a `sep` b `sep`, with two `sep` in the middle for RoBERTa.
    pub ids: Vec<u32>,
    /// The token type of each id: 0 up to the second text, then [`Specials::second_type`].
    pub type_ids: Vec<u32>,
}

/// A tokenizer: maps text to token ids.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    specials: Specials,
    vocab_size: u32,
    files: Arc<[TokenizerFile]>,
    /// Whether a text that is too long loses its beginning, not its end.
    truncate_left: bool,
    /// The `tokenizer_config.json` to be written in place of that in `files`, if that does not name the class.
    config: Option<String>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("specials", &self.specials)
            .field("files", &self.files.iter().map(|file| file.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads the tokenizer of a model directory, as `transformers` 5 does.
    ///
    /// `tokenizer_class` in `tokenizer_config.json`, or else in `config.json`, or else the model type decides what the files
    /// mean: BERT's or RoBERTa's tokenizer with the settings of `tokenizer_config.json` over the vocabulary of
    /// `tokenizer.json`, of `vocab.txt` or of `vocab.json` with `merges.txt`; or, for `PreTrainedTokenizerFast` and for a
    /// `tokenizer.json` without a model beside it, the `tokenizer.json` as it stands. Added tokens come from
    /// `tokenizer_config.json`, or else from `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json`.
    ///
    /// The function disables truncation and padding settings of a `tokenizer.json`: callers pass lengths themselves.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if `dir` holds no vocabulary, [`Error::BadTokenizer`] if a file is malformed, the class is
    /// not supported or files contradict each other, [`Error::MissingSpecial`] if the vocabulary lacks `cls`, `sep` or
    /// `mask`, [`Error::Io`], [`Error::NotText`].
    pub fn from_dir(dir: &Path) -> Result<Self> {
        // A directory that goes away between the two calls is an error of the second one.
        let files = files::present(dir)?;
        let loaded = files::load(dir)?;
        let specials = find_specials(&loaded)?;
        let Loaded { inner, path, truncate_left, config, .. } = loaded;
        // A vocabulary may skip ids, so the number of entries is not the size of an embedding table. An empty line at the
        // end of a `vocab.txt` is no piece.
        let ids = inner.get_vocab(true).into_iter().filter(|(piece, _)| !piece.is_empty()).map(|(_, id)| id);
        let highest = ids.max().unwrap_or(0);
        let Some(vocab_size) = highest.checked_add(1) else {
            return Err(json::bad(&path, format!("it has the token id {highest}, and no table has so many rows")));
        };
        let Specials { cls, sep, mask, pad, unk, .. } = specials;
        if let Some(id) = [cls, sep, mask].into_iter().chain(pad).chain(unk).find(|&id| id >= vocab_size) {
            return Err(json::bad(
                &path,
                format!("a special token has the id {id}, which no token of the vocabulary has"),
            ));
        }
        Ok(Self { inner, specials, vocab_size, files: files.into(), truncate_left, config })
    }

    /// The special tokens.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// One more than the highest id: the least number of rows of an embedding table.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The vocabulary's spelling of a token id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, given in the vocabulary's spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token ids of a text, without `cls` and `sep`. The spelling of a special token inside the text becomes that
    /// token, as in `transformers`.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenize`] if the vocabulary cannot spell a word and has no unknown token.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = encoding(text, || self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The token ids of a text, without `cls` and `sep`, each with its byte range in `text`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::ids`].
    pub fn ids_with_offsets(&self, text: &str) -> Result<Tokenized> {
        // The crate trims the spaces of a token by subtracting one from the offset for each. In bytes this would cut into
        // the character from which a prefix space comes.
        let encoding = encoding(text, || self.inner.encode_char_offsets(text, false))?;
        let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let byte = |char: usize| starts.get(char).copied().unwrap_or(text.len());
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| (byte(start), byte(end))).collect();
        Ok(Tokenized { ids: encoding.get_ids().to_vec(), offsets })
    }

    /// `cls` text `sep`, with the text truncated so that the sequence has at most `max_len` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if `max_len` is below 3, and as [`Tokenizer::ids`].
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Vec<u32>> {
        let room = room(max_len, 2)?;
        let mut ids = self.ids(text)?;
        self.truncate(&mut ids, room);
        ids.insert(0, self.specials.cls);
        ids.push(self.specials.sep);
        Ok(ids)
    }

    /// A pair of texts in one sequence of at most `max_len` tokens; the longer text is truncated first.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if `max_len` leaves no room beside the special tokens, and as [`Tokenizer::ids`].
    pub fn encode_pair(&self, first: &str, second: &str, max_len: usize) -> Result<Pair> {
        let Specials { cls, sep, pair_separators, second_type, .. } = self.specials;
        let room = room(max_len, 2 + pair_separators)?;
        let (mut first, mut second) = (self.ids(first)?, self.ids(second)?);
        let (keep_first, keep_second) = longest_first(first.len(), second.len(), room);
        self.truncate(&mut first, keep_first);
        self.truncate(&mut second, keep_second);

        let mut ids = Vec::with_capacity(keep_first + keep_second + 2 + pair_separators);
        ids.push(cls);
        ids.extend(first);
        ids.extend(std::iter::repeat_n(sep, pair_separators));
        let second_start = ids.len();
        ids.extend(second);
        ids.push(sep);
        let type_ids = (0..ids.len()).map(|i| if i < second_start { 0 } else { second_type }).collect();
        Ok(Pair { ids, type_ids })
    }

    /// The files of a tokenizer that are in a directory, without reading them.
    pub fn files_in(dir: &Path) -> Vec<PathBuf> {
        files::paths(dir)
    }

    /// The tokenizer's files, as they were when the tokenizer was loaded.
    pub fn files(&self) -> &[TokenizerFile] {
        &self.files
    }

    /// Writes the tokenizer's files into `dir`, which must exist, from memory. Each file appears whole. The written
    /// `tokenizer_config.json` names the tokenizer's class also where the original does not, so that the files mean the
    /// same tokenizer beside any model.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the file that could not be written.
    pub fn save_to(&self, dir: &Path) -> Result<()> {
        files::write(&self.files, self.config.as_deref(), dir)
    }

    /// SHA-256 of all that decides the ids of a text, in lower-case hexadecimal.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenize`] if the tokenizer cannot be described.
    pub(crate) fn digest(&self) -> Result<String> {
        let description = self.inner.to_string(false);
        let description =
            description.map_err(|e| Error::Tokenize { text: String::new(), path: None, reason: e.to_string() })?;
        // The description lacks whether a special token's spelling in a text is that token.
        let settings = [u8::from(self.inner.get_encode_special_tokens())];
        let unknown = format!("{:?}", self.specials.unk);
        Ok(sha256_hex([description.as_bytes(), &settings, unknown.as_bytes()]))
    }

    /// Whether texts that are too long lose tokens at their beginning.
    pub fn truncates_left(&self) -> bool {
        self.truncate_left
    }

    /// Removes all but `keep` tokens, at the side that the tokenizer truncates.
    fn truncate(&self, ids: &mut Vec<u32>, keep: usize) {
        if self.truncate_left {
            ids.drain(..ids.len().saturating_sub(keep));
        } else {
            ids.truncate(keep);
        }
    }
}

/// The truncated lengths of two texts that share `room` tokens, by the rule of the `tokenizers` crate: the longer text
/// is truncated to the length of the shorter, then both to half of `room`. An odd token goes to the longer text, or to
/// the second of two equally long texts.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let (short, long) = (first.min(second), first.max(second));
    let (short, long) = if 2 * short >= room { (room / 2, room - room / 2) } else { (short, long.min(room - short)) };
    if first > second { (long, short) } else { (short, long) }
}

/// The number of text tokens in a sequence of at most `max_len` tokens, of which `specials` are special tokens.
///
/// # Errors
///
/// [`Error::Length`] if no text token fits.
pub(crate) fn room(max_len: usize, specials: usize) -> Result<usize> {
    match max_len.checked_sub(specials) {
        Some(room) if room > 0 => Ok(room),
        _ => Err(Error::Length { length: max_len, specials }),
    }
}

/// The result of tokenizing `text`; a panic of the `tokenizers` crate becomes an error.
fn encoding(
    text: &str,
    encode: impl FnOnce() -> tokenizers::Result<tokenizers::Encoding>,
) -> Result<tokenizers::Encoding> {
    let reason = match caught(encode) {
        Ok(Ok(encoding)) => return Ok(encoding),
        Ok(Err(e)) => e.to_string(),
        Err(panic) => panic,
    };
    Err(Error::Tokenize { text: text.chars().take(40).collect(), path: None, reason })
}

/// The special tokens by their roles; where no role is named, by the spellings of BERT and RoBERTa.
fn find_specials(loaded: &Loaded) -> Result<Specials> {
    let Loaded { inner, path, tokens, class, .. } = loaded;
    let find = |role: &str, bert: &str, roberta: &str| match tokens.role(role) {
        Some(token) => inner.token_to_id(&token),
        None => inner.token_to_id(bert).or_else(|| inner.token_to_id(roberta)),
    };
    let need = |role, key: &str, bert, roberta| {
        find(key, bert, roberta).ok_or_else(|| Error::MissingSpecial { path: path.clone(), role, bert, roberta })
    };
    let template = match loaded.template {
        Some(template) => template,
        None => Template {
            cls: need("cls", "cls_token", "[CLS]", "<s>")?,
            sep: need("sep", "sep_token", "[SEP]", "</s>")?,
            separators: class.separators(),
            second_type: u32::from(class.separators() == 1),
        },
    };
    Ok(Specials {
        cls: template.cls,
        sep: template.sep,
        mask: need("mask", "mask_token", "[MASK]", "<mask>")?,
        pad: find("pad_token", "[PAD]", "<pad>"),
        unk: match &loaded.unknown {
            Some(token) => inner.token_to_id(token),
            None => find("unk_token", "[UNK]", "<unk>"),
        },
        pair_separators: template.separators,
        second_type: if loaded.type_ids { template.second_type } else { 0 },
    })
}
