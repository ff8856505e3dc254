//! A base model as a user names it: weights, tokenizer, digest.

use std::path::{Path, PathBuf};

use tamt_data::Tokenizer;
use tamt_model::{Checkpoint, Masks, Model};

use crate::ticket::{BaseCheck, Ticket};
use crate::{Error, Result};

/// A base model with what belongs to it.
#[derive(Clone, Debug)]
pub struct Base {
    /// Directory or hub id, as it was given.
    pub name: String,
    /// Where its files lie.
    pub directory: PathBuf,
    /// The weights.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the weights file, in hexadecimal.
    pub sha256: String,
}

impl Base {
    /// Loads a directory in Hugging Face layout or a hub id.
    ///
    /// # Errors
    /// If it is not found, malformed, or its tokenizer knows more tokens than its embeddings have rows.
    pub fn load(name: &str) -> Result<Self> {
        let directory = tamt_model::hub::resolve(name)?;
        let sha256 = Checkpoint::open(&directory)?.sha256().to_owned();
        let model = Model::load(&directory)?;
        let tokenizer = Tokenizer::from_dir(&directory)?;
        check_vocabulary(&model, &tokenizer, &directory)?;
        Ok(Self { name: name.to_owned(), directory, model, tokenizer, sha256 })
    }

    /// The masks of a ticket for this model; with `allow_other_base` only names and shapes must fit.
    ///
    /// # Errors
    /// If the ticket cannot be read or belongs to another model.
    pub fn masks_of(&self, ticket: &Ticket, allow_other_base: bool) -> Result<Masks> {
        let check = if allow_other_base { BaseCheck::NamesAndShapes } else { BaseCheck::Sha256(&self.sha256) };
        ticket.masks(&self.model, check)
    }

    /// The longest sequence, special tokens included, that the model has positions for.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.model.config.max_length()
    }

    /// Checks that blocks of this length fit the model.
    ///
    /// # Errors
    /// [`Error::Setting`] if they do not.
    pub fn check_block_size(&self, block_size: usize) -> Result<()> {
        let longest = self.max_length();
        if block_size > longest {
            let reason = format!("{block_size} tokens do not fit the model, which has {longest} positions");
            return Err(Error::setting("block-size", reason));
        }
        Ok(())
    }
}

/// Checks that the embeddings have a row for every token, which would otherwise only fail in the middle of a run.
///
/// # Errors
/// [`Error::Vocabulary`] if they have not; it names `directory`.
pub fn check_vocabulary(model: &Model, tokenizer: &Tokenizer, directory: &Path) -> Result<()> {
    let (tokens, rows) = (tokenizer.vocab_size(), model.config.vocab_size);
    if tokens as usize > rows {
        return Err(Error::Vocabulary { path: directory.to_owned(), tokens, rows });
    }
    Ok(())
}
