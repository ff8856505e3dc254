//! A base model by the name that a user gives it: weights, tokenizer, digest.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use tamt_data::Tokenizer;
use tamt_model::{Checkpoint, Masks, Model, Storage};

use crate::error::{Error, Result};
use crate::ticket::{BaseCheck, Ticket};

/// Special tokens of every sequence: the first one and the last one.
const SPECIALS: usize = 2;

/// A base model and its tokenizer.
#[derive(Clone, Debug)]
pub struct Base {
    /// Directory or hub id, as given; characters that are not UTF-8 are replaced.
    pub name: String,
    /// The directory of its files.
    pub directory: PathBuf,
    /// The weights.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the weights file, in hexadecimal.
    pub sha256: String,
    /// Whether the weights file is packed, so that the zeros of a ticket are in it.
    pub is_packed: bool,
}

impl Base {
    /// Loads a directory in Hugging Face layout or a hub id.
    ///
    /// # Errors
    /// If the model is not found or malformed, or the tokenizer knows more tokens than the embeddings have rows.
    pub fn load(name: impl AsRef<OsStr>) -> Result<Self> {
        Self::load_as(name, Storage::Dense)
    }

    /// [`Base::load`] with a choice of how packed matrices are stored; compact ones take no ticket.
    ///
    /// # Errors
    /// Those of [`Base::load`].
    pub fn load_as(name: impl AsRef<OsStr>, storage: Storage) -> Result<Self> {
        let name = name.as_ref();
        let directory = tamt_model::hub::resolve(name)?;
        // Each of the three takes a tenth of a second.
        let file = || Checkpoint::open(&directory).map(|file| (file.sha256().to_owned(), file.is_packed()));
        let ((file, tokenizer), model) = rayon::join(
            || rayon::join(file, || Tokenizer::from_dir(&directory)),
            || Model::load_as(&directory, storage),
        );
        let ((sha256, is_packed), model, tokenizer) = (file?, model?, tokenizer?);
        check_vocabulary(&model, &tokenizer, &directory)?;
        let name = name.to_string_lossy().into_owned();
        Ok(Self { name, directory, model, tokenizer, sha256, is_packed })
    }

    /// The masks of a ticket for this model; with `allow_other_base` only names and shapes must fit.
    ///
    /// # Errors
    /// If the ticket belongs to another model.
    pub fn masks_of(&self, ticket: &Ticket, allow_other_base: bool) -> Result<Masks> {
        let check = if allow_other_base { BaseCheck::NamesAndShapes } else { BaseCheck::Sha256(&self.sha256) };
        of_packed(ticket.masks(&self.model, check), &self.name, self.is_packed)
    }

    /// The longest sequence, special tokens included, that the model has positions for.
    pub fn max_length(&self) -> usize {
        self.model.config.max_length()
    }

    /// Checks that blocks of `block_size` tokens fit the model.
    ///
    /// # Errors
    /// [`Error::Setting`] if they do not.
    pub fn check_block_size(&self, block_size: usize) -> Result<()> {
        check_length("block-size", block_size, &self.model)
    }
}

/// The masks of a ticket for the model `name`. A packed model is no model that tickets are made for, and says so.
pub(crate) fn of_packed(masks: Result<Masks>, name: &str, is_packed: bool) -> Result<Masks> {
    match masks {
        Err(Error::OtherBase { base_model, .. }) if is_packed => {
            Err(Error::TicketOfPacked { model: name.to_owned(), base_model })
        }
        other => other,
    }
}

/// Checks that sequences of `tokens` tokens, the value of `setting`, have room for text, and that a model has positions
/// for them.
///
/// # Errors
/// [`Error::Setting`] if the sequences are too short or too long.
pub fn check_length(setting: &'static str, tokens: usize, model: &Model) -> Result<()> {
    check_length_up_to(setting, tokens, model.config.max_length())
}

/// As [`check_length`], for a model that has positions for `longest` tokens.
///
/// # Errors
/// As [`check_length`].
pub fn check_length_up_to(setting: &'static str, tokens: usize, longest: usize) -> Result<()> {
    if tokens <= SPECIALS {
        let reason = format!("{tokens} tokens leave no room for text beside {SPECIALS} special tokens");
        return Err(Error::setting(setting, reason));
    }
    if tokens > longest {
        let reason = format!("{tokens} tokens do not fit the model, which has {longest} positions");
        return Err(Error::setting(setting, reason));
    }
    Ok(())
}

/// Checks that the embeddings have a row for every token: a missing row would fail in the middle of a run.
///
/// # Errors
/// [`Error::Vocabulary`], which names `directory`, if a token has no row.
pub fn check_vocabulary(model: &Model, tokenizer: &Tokenizer, directory: &Path) -> Result<()> {
    let (tokens, rows) = (tokenizer.vocab_size(), model.config.vocab_size);
    if tokens as usize > rows {
        return Err(Error::Vocabulary { path: directory.to_owned(), tokens, rows });
    }
    Ok(())
}
