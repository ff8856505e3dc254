//! Packed models: a bit for each weight of a pruned matrix and the values of the survivors, in place of zeros.

use std::collections::BTreeMap;
use std::path::Path;

use tamt_kernels::Precision;
use tamt_model::digest::sha256_file;
use tamt_model::write::write_config;
use tamt_model::{Checkpoint, Masks, PackedSizes, Rewritten};

use crate::apply::{apply, copy_companions};
use crate::base::Base;
use crate::error::{Error, Result};
use crate::ticket::Ticket;

/// Writes the packed model of `base` under `masks` into `directory`: `model.packed.safetensors` with all tensors rounded to
/// `precision`, the configuration, the tokenizer and the sentence-transformers modules. The zeros of matrices without a mask
/// are left out too, where that saves bytes. The file names the base model and `ticket`, the path of the ticket that the
/// masks are from, by their SHA-256.
///
/// A decoder that is tied to the word embeddings has their zeros in the packed model.
///
/// # Errors
/// If a file cannot be read or written, or a weight is too large for `precision`.
pub fn pack(
    base: &Base,
    masks: &Masks,
    ticket: Option<&Path>,
    directory: &Path,
    precision: Precision,
) -> Result<PackedSizes> {
    let mut metadata = BTreeMap::from([
        ("base_model".to_owned(), base.name.clone()),
        ("base_sha256".to_owned(), base.sha256.clone()),
        ("tool_version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if let Some(path) = ticket {
        metadata.insert("ticket_sha256".to_owned(), sha256_file(&Ticket::locate(path))?);
    }
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    let (sizes, config) = tamt_model::pack(&base.directory, &base.model, masks, directory, precision, &metadata)?;
    copy_companions(base, directory)?;
    write_config(directory, &config)?;
    Ok(sizes)
}

/// Writes the dense checkpoint of a packed model into `directory`: the files of [`apply`](apply()) with the type of the
/// packed values.
///
/// # Errors
/// [`Error::NotPacked`]; if a file cannot be read or written.
pub fn unpack(base: &Base, directory: &Path) -> Result<Rewritten> {
    if !base.is_packed {
        let path = Checkpoint::open(&base.directory)?.path().to_owned();
        return Err(Error::NotPacked { path });
    }
    apply(base, &Masks::default(), directory, None)
}
