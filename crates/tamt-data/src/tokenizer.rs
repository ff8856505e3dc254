//! Tokenizers of BERT and RoBERTa checkpoints, in each of their file formats.

mod files;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

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
    /// The token type of each id: 0 up to and including the first text's `sep`, then 1. All 0 for RoBERTa, which has
    /// one token type.
    pub type_ids: Vec<u32>,
}

/// A tokenizer: maps text to token ids.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    specials: Specials,
    vocab_size: u32,
    files: Vec<PathBuf>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("specials", &self.specials)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads the tokenizer of a model directory: `tokenizer.json` if it exists, else `vocab.txt` (WordPiece), else
    /// `vocab.json` with `merges.txt` (byte-level BPE). The last two formats respect `tokenizer_config.json`.
    ///
    /// The function disables truncation and padding settings of a `tokenizer.json`: callers pass lengths themselves.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if `dir` holds none of these files, [`Error::BadTokenizer`] if a file is malformed,
    /// [`Error::MissingSpecial`] if the vocabulary lacks `cls`, `sep` or `mask`, [`Error::Io`], [`Error::NotText`].
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let (mut inner, main_file) = files::load(dir)?;
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| Error::BadTokenizer { path: main_file.clone(), reason: e.to_string() })?;
        let specials = find_specials(&inner, &main_file)?;
        // A vocabulary may skip ids, so the number of entries is not the size of an embedding table.
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |highest| highest.saturating_add(1));
        Ok(Self { inner, specials, vocab_size, files: files::present(dir) })
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
        let encoding = self.inner.encode_fast(text, false).map_err(|e| refused(text, &*e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The token ids of a text, without `cls` and `sep`, each with its byte range in `text`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::ids`].
    pub fn ids_with_offsets(&self, text: &str) -> Result<Tokenized> {
        let encoding = self.inner.encode(text, false).map_err(|e| refused(text, &*e))?;
        Ok(Tokenized { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// `cls` text `sep`, with the text truncated so that the sequence has at most `max_len` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if `max_len` is below 3, and as [`Tokenizer::ids`].
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Vec<u32>> {
        let room = room(max_len, 2)?;
        let mut ids = self.ids(text)?;
        ids.truncate(room);
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
        let Specials { cls, sep, pair_separators, .. } = self.specials;
        let room = room(max_len, 2 + pair_separators)?;
        let (first, second) = (self.ids(first)?, self.ids(second)?);
        let (keep_first, keep_second) = longest_first(first.len(), second.len(), room);

        let mut ids = Vec::with_capacity(keep_first + keep_second + 2 + pair_separators);
        ids.push(cls);
        ids.extend_from_slice(&first[..keep_first]);
        ids.extend(std::iter::repeat_n(sep, pair_separators));
        let second_start = ids.len();
        ids.extend_from_slice(&second[..keep_second]);
        ids.push(sep);
        let second_type = u32::from(pair_separators == 1);
        let type_ids = (0..ids.len()).map(|i| if i < second_start { 0 } else { second_type }).collect();
        Ok(Pair { ids, type_ids })
    }

    /// The tokenizer's files in its directory.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Copies the tokenizer's files into `dir`, which must exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the file that could not be copied.
    pub fn save_to(&self, dir: &Path) -> Result<()> {
        files::copy(&self.files, dir)
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

/// [`Error::Tokenize`] with the beginning of the text.
fn refused(text: &str, error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::Tokenize { text: text.chars().take(40).collect(), reason: error.to_string() }
}

fn find_specials(inner: &tokenizers::Tokenizer, path: &Path) -> Result<Specials> {
    let find = |bert: &str, roberta: &str| inner.token_to_id(bert).or_else(|| inner.token_to_id(roberta));
    let need = |role, bert, roberta| {
        find(bert, roberta).ok_or_else(|| Error::MissingSpecial { path: path.to_owned(), role, bert, roberta })
    };
    Ok(Specials {
        cls: need("cls", "[CLS]", "<s>")?,
        sep: need("sep", "[SEP]", "</s>")?,
        mask: need("mask", "[MASK]", "<mask>")?,
        pad: find("[PAD]", "<pad>"),
        unk: find("[UNK]", "<unk>"),
        pair_separators: if inner.token_to_id("[SEP]").is_some() { 1 } else { 2 },
    })
}
