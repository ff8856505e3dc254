//! Writing a ticket as a checkpoint with zeros, which `transformers` loads.

use std::path::Path;

use tamt_model::write::write_config;
use tamt_model::{Dtype, Masks, Rewritten, rewrite};

use crate::base::Base;
use crate::error::{Error, Result};
use crate::sentence;

/// Writes the base model's checkpoint with the ticket's zeros, its configuration, its tokenizer and its
/// sentence-transformers modules into `directory`. Tensors outside the ticket (heads, buffers) stay as they are. Weights
/// are rounded to `dtype`; with `None` they keep their types.
///
/// A decoder that is tied to the word embeddings has their zeros in the written model. `tamt` itself decodes with the
/// dense matrix.
///
/// # Errors
/// If a file cannot be read or written, or a weight is too large for `dtype`.
pub fn apply(base: &Base, masks: &Masks, directory: &Path, dtype: Option<Dtype>) -> Result<Rewritten> {
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    // The weights come first: files of modules are copied, and their source may be gone.
    let (rewritten, config) = rewrite(&base.directory, &base.model, masks, directory, dtype)?;
    copy_companions(base, directory)?;
    write_config(directory, &config)?;
    Ok(rewritten)
}

/// Copies what belongs to a model beside its weights and its configuration into `directory`, which exists: the tokenizer
/// and the sentence-transformers modules.
///
/// # Errors
/// If a file cannot be read or written.
pub(crate) fn copy_companions(base: &Base, directory: &Path) -> Result<()> {
    base.tokenizer.save_to(directory)?;
    sentence::copy_modules(&base.directory, directory)
}
