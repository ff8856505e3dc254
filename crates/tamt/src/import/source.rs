//! Reading masks from files.

use std::collections::HashMap;
use std::path::Path;

use tamt_kernels::masks::BitMask;
use tamt_model::{Checkpoint, Model, TensorFile};

use crate::error::Result;
use crate::import::found::{Form, Found, refused};
use crate::import::names::Wanted;
use crate::matrix_digest::POOLER;
use crate::ticket::Ticket;

/// Canonical name of the word embeddings.
const WORDS: &str = "embeddings.word_embeddings.weight";
/// Number of names that an error shows.
const SHOWN: usize = 3;

/// The masks in the file `path`, or in the checkpoint of a directory.
pub(super) fn masks(path: &Path, model: &Model, wanted: &Wanted) -> Result<Found> {
    let may_be_ticket = path.is_dir() || path.extension().is_some_and(|ending| ending == "safetensors");
    if may_be_ticket && Ticket::read(path).is_ok() {
        return Err(refused(path, "it is a ticket already; every command takes it as it is".to_owned()));
    }
    // The reference saves its masks under this name in a directory for each checkpoint.
    let inside = path.join("mask.pt");
    let file = TensorFile::open(if inside.is_file() { &inside } else { path })?;
    let has = |suffix: &str| file.names().any(|name| name.ends_with(suffix));
    let (form, suffix) = match (has(".bitmask"), has("_mask"), has(".weight_orig")) {
        (true, ..) => (Form::SparseBitmask, ".bitmask"),
        (false, true, true) => (Form::TorchPrune, "_mask"),
        (false, true, false) => (Form::Masks, "_mask"),
        (false, false, _) => (Form::Masks, ""),
    };
    let mut found =
        Found { form, sha256: file.sha256(), masks: Vec::new(), other_weights: Vec::new(), notes: Vec::new() };
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let (mut foreign, mut of_ones) = (Vec::new(), Vec::new());
    for name in file.names().filter(|name| name.ends_with(suffix)) {
        let Some(matrix) = wanted.matrix_of(name) else {
            if keeps_all(&file, form, name, wanted) {
                of_ones.push(name);
            } else {
                foreign.push(name);
            }
            continue;
        };
        if let Some(first) = owners.insert(matrix, name) {
            return Err(refused(path, format!("it has the mask of {matrix} twice: as `{first}` and as `{name}`")));
        }
        let mask = mask(&file, form, name, matrix, wanted)?;
        let stem = name.strip_suffix("_mask").filter(|_| form == Form::TorchPrune);
        let shape = [mask.rows(), mask.cols()];
        let weights = stem.map(|stem| file.values(&format!("{stem}_orig"), shape)).transpose()?;
        found.add(model, matrix, mask, weights.as_deref());
    }
    if !foreign.is_empty() {
        return Err(refused(path, without_place(&foreign, model)));
    }
    if !of_ones.is_empty() {
        found.notes.push(format!("{} masks of other tensors keep everything and are left out", listed(&of_ones)));
    }
    Ok(found)
}

/// The mask of one matrix.
fn mask(file: &TensorFile, form: Form, name: &str, matrix: &str, wanted: &Wanted) -> Result<BitMask> {
    let shape = wanted.shape(matrix).unwrap_or_default();
    match form {
        Form::SparseBitmask => Ok(file.packed_mask(name, shape)?),
        _ => Ok(file.mask(name, shape)?),
    }
}

/// Whether a tensor that belongs to no matrix is a mask that keeps everything. Tensors larger than all matrices do not
/// count: their size comes from the file.
fn keeps_all(file: &TensorFile, form: Form, name: &str, wanted: &Wanted) -> bool {
    let most = wanted.in_order().iter().map(|(_, [rows, cols])| rows * cols).max().unwrap_or(0);
    let is_full = |mask: BitMask| mask.count_ones() == mask.len();
    let [rows, cols] = match *file.shape(name).unwrap_or_default() {
        [rows, cols] => [rows, cols],
        // Nothing says how many bits of the last byte are elements.
        [n] => return form != Form::SparseBitmask && n <= most && file.mask_of_vector(name, n).is_ok_and(is_full),
        _ => return false,
    };
    if rows.checked_mul(cols).is_none_or(|n| n > most) {
        return false;
    }
    match form {
        // Nothing says how many bits of the last byte of a row are columns.
        Form::SparseBitmask => (8 * cols.saturating_sub(1) + 1..=8 * cols)
            .any(|cols| file.packed_mask(name, [rows, cols]).is_ok_and(is_full)),
        _ => file.mask(name, [rows, cols]).is_ok_and(is_full),
    }
}

fn without_place(names: &[&str], model: &Model) -> String {
    format!(
        "{} belong to no matrix that a ticket of the model masks: the word embeddings, the matrices of its {} layers, and \
         the pooler",
        listed(names),
        model.layers.len()
    )
}

/// The number of names, and the first of them.
fn listed(names: &[&str]) -> String {
    let first: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{} ({}{more})", names.len(), first.join(", "))
}

/// The zeros of the checkpoint in a directory or a file.
pub(super) fn zeros(path: &Path, model: &Model, wanted: &Wanted) -> Result<Found> {
    let checkpoint = if path.is_dir() { Checkpoint::open(path)? } else { Checkpoint::open_weights(path.to_owned())? };
    let mut found = Found {
        form: Form::Zeros,
        sha256: checkpoint.sha256().to_owned(),
        masks: Vec::new(),
        other_weights: Vec::new(),
        notes: checkpoint.notes().to_vec(),
    };
    for (name, [rows, cols]) in wanted.in_order() {
        // Some checkpoints of an encoder lack the pooler.
        if name == POOLER && !checkpoint.contains(name) {
            continue;
        }
        checkpoint.check(name, &[rows, cols])?;
        let mut weights = vec![0.0; rows * cols];
        checkpoint.load_f32(name, &[rows, cols], &mut weights)?;
        let mask = BitMask::of_nonzero(rows, cols, &weights);
        // The padding token of many dense models has the embedding 0.
        let padding = model.config.pad_token_id as usize;
        let is_padding = name == WORDS && mask.count_ones_in(padding..padding + 1) == 0;
        let zeros = mask.len() - mask.count_ones();
        if zeros > if is_padding { cols } else { 0 } {
            found.add(model, name, mask, Some(&weights));
        }
    }
    if found.masks.is_empty() {
        return Err(refused(path, "no matrix that a ticket masks has a zero".to_owned()));
    }
    Ok(found)
}
