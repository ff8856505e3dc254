//! Tickets of masks that were made elsewhere: with the reference's programs, BERT-Tickets, `torch.nn.utils.prune`, numpy,
//! compressed-tensors, or by zeros in a checkpoint.

mod found;
pub(crate) mod names;
mod source;

use std::path::PathBuf;

pub use crate::import::found::Form;

use tamt_kernels::masks::BitMask;
use tamt_model::{Model, ParamId};

use crate::base::Base;
use crate::error::{Error, Result};
use crate::import::found::refused;
use crate::import::names::Wanted;
use crate::inspect::Rates;
use crate::matrix_digest::MatrixDigests;
use crate::ticket::{ImportRecord, Provenance, Ticket};

/// The name of the method of an imported ticket.
pub const IMPORTED: &str = "imported";

/// Where masks come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// A file of masks, or a directory with a checkpoint that was pruned by `torch.nn.utils.prune`.
    Masks(PathBuf),
    /// A checkpoint, as a file or a directory, whose zeros are dropped weights.
    ZerosOf(PathBuf),
}

/// An imported ticket.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The ticket, with its matrices in the order of the model.
    pub ticket: Ticket,
    /// What the masks were.
    pub form: Form,
    /// Matrices of the model without a mask: they stay dense.
    pub unmasked: Vec<String>,
    /// What a user should know, a sentence each.
    pub notes: Vec<String>,
}

/// Makes a ticket of `base` from masks.
///
/// # Errors
/// If the source cannot be read, has a mask for a matrix that no ticket of the model masks, a mask of another shape or with
/// other values than 0 and 1, or no mask at all.
pub fn import(base: &Base, source: &ImportSource) -> Result<Imported> {
    let wanted = Wanted::of(&base.model);
    let (path, mut found) = match source {
        ImportSource::Masks(path) => (path, source::masks(path, &base.model, &wanted)?),
        ImportSource::ZerosOf(path) => (path, source::zeros(path, &base.model, &wanted)?),
    };
    if found.masks.is_empty() {
        return Err(refused(path, "it has no mask of a matrix of the model".to_owned()));
    }
    found.masks.sort_by_key(|(name, _)| wanted.position(name));
    if !found.other_weights.is_empty() {
        found.notes.push(format!(
            "the weights of {} matrices differ from the model's, {} among them; the ticket keeps the model's weights",
            found.other_weights.len(),
            found.other_weights[0]
        ));
    }
    let record = ImportRecord {
        file: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        sha256: found.sha256,
        form: found.form.name().to_owned(),
    };
    let unmasked = unmasked(&base.model, &found.masks);
    let ticket = ticket(base, found.masks, Some(record));
    Ok(Imported { ticket, form: found.form, unmasked, notes: found.notes })
}

/// Makes a ticket of `base` from masks in memory, by the names that their matrices have in any usual file of masks.
///
/// # Errors
/// [`Error::TicketMismatch`] if a name is that of no matrix to prune or occurs twice, or a shape differs;
/// [`Error::Setting`] if there are no masks.
pub fn of_masks(base: &Base, masks: Vec<(String, BitMask)>) -> Result<Ticket> {
    if masks.is_empty() {
        return Err(Error::setting("masks", "there are none"));
    }
    let wanted = Wanted::of(&base.model);
    let mut matrices: Vec<(String, BitMask)> = Vec::with_capacity(masks.len());
    for (name, mask) in masks {
        let mismatch = |reason: String| Err(Error::TicketMismatch { name: name.clone(), reason });
        let Some(matrix) = wanted.matrix_of(&name) else {
            return mismatch("the model has no such matrix to prune".to_owned());
        };
        if matrices.iter().any(|(other, _)| other == matrix) {
            return mismatch(format!("it is a second mask of {matrix}"));
        }
        if let Some([rows, cols]) = wanted.shape(matrix).filter(|&shape| shape != [mask.rows(), mask.cols()]) {
            let (r, c) = (mask.rows(), mask.cols());
            return mismatch(format!("it is {r} x {c} in the mask and {rows} x {cols} in the model"));
        }
        matrices.push((matrix.to_owned(), mask));
    }
    matrices.sort_by_key(|(name, _)| wanted.position(name));
    Ok(ticket(base, matrices, None))
}

fn ticket(base: &Base, matrices: Vec<(String, BitMask)>, record: Option<ImportRecord>) -> Ticket {
    let ids: Vec<ParamId> = matrices.iter().filter_map(|(name, _)| base.model.params.find(name)).collect();
    let MatrixDigests { pruned, pooler } = MatrixDigests::of(&base.model, &ids);
    let provenance = Provenance {
        base_model: base.name.clone(),
        base_sha256: base.sha256.clone(),
        pruned_sha256: Some(pruned),
        pooler_sha256: pooler,
        method: IMPORTED.to_owned(),
        imported: record,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Provenance::default()
    };
    let mut ticket = Ticket { matrices, provenance };
    ticket.provenance.sparsity = Rates::of(&ticket, None).sparsity;
    ticket
}

/// The prunable matrices of a model without a mask.
pub(crate) fn unmasked(model: &Model, masks: &[(String, BitMask)]) -> Vec<String> {
    let names = model.prunable().into_iter().map(|id| model.params.spec(id).name.clone());
    names.filter(|name| !masks.iter().any(|(masked, _)| masked == name)).collect()
}
