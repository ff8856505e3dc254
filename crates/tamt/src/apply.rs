//! Writing a ticket as a dense checkpoint with zeros, which `transformers` loads.

use std::collections::HashMap;
use std::path::Path;

use tamt_model::{Masks, ParamId};

use crate::base::Base;
use crate::error::{Error, Result};

/// Writes the base model with the ticket's zeros, its configuration and its tokenizer into `directory`.
///
/// The MLM decoder of a checkpoint is tied to the word embeddings, so the decoder of the written model has their zeros.
/// `tamt` itself decodes with the dense matrix.
///
/// # Errors
/// If a file cannot be written.
pub fn apply(base: &Base, masks: &Masks, directory: &Path) -> Result<()> {
    let masked: HashMap<ParamId, Vec<f32>> = masks
        .iter()
        .map(|(id, mask)| {
            let mut values = base.model.params.get(id).to_vec();
            mask.mask_in_place(&mut values);
            (id, values)
        })
        .collect();
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    base.tokenizer.save_to(directory)?;
    let values = |id| masked.get(&id).map_or_else(|| base.model.params.get(id), Into::into);
    Ok(base.model.save_with(directory, values)?)
}
