//! Tickets and models for other programs.

use std::path::Path;

use tamt_kernels::masks::BitMask;
use tamt_model::torch_export::{write_masks, write_pruned};
use tamt_model::write::write_config;
use tamt_model::{HeadStart, Masks, Model, TaskKind};
use tamt_onnx::{Outputs, Pooling, Weights};

use crate::apply::copy_companions;
use crate::base::Base;
use crate::encode::Pool;
use crate::error::{Error, Result};
use crate::import::names::Wanted;
use crate::import::unmasked;
use crate::sentence::{EncodeChoices, encode_settings};
use crate::ticket::{BaseCheck, Ticket};
use crate::tune::OwnTask;

/// The name of the reference's file of masks.
pub const MASK_FILE: &str = "mask.pt";

/// Writes the masks of a ticket of `base` as the reference's `mask.pt` into `directory`: a dictionary of a boolean tensor for
/// each masked matrix, which `torch.load(..., weights_only=True)` reads. The matrices are in the order of the model. Returns
/// the names of the prunable matrices that the ticket does not mask, which the file lacks.
///
/// # Errors
/// If a file cannot be written.
pub fn torch_masks(base: &Base, ticket: &Ticket, directory: &Path) -> Result<Vec<String>> {
    let wanted = Wanted::of(&base.model);
    let mut masks: Vec<(&str, &BitMask)> = ticket.matrices.iter().map(|(name, mask)| (name.as_str(), mask)).collect();
    masks.sort_by_key(|(name, _)| wanted.position(name));
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    write_masks(&directory.join(MASK_FILE), base.model.config.family, &masks)?;
    Ok(unmasked(&base.model, &ticket.matrices))
}

/// Writes the checkpoint of `base` pruned by `torch.nn.utils.prune` into `directory`: `pytorch_model.bin` with `weight_orig`
/// and `weight_mask` for each masked matrix, the configuration, and the tokenizer.
///
/// # Errors
/// If a file cannot be read or written.
pub fn torch_prune(base: &Base, masks: &Masks, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    let config = write_pruned(&base.directory, &base.model, masks, directory)?;
    copy_companions(base, directory)?;
    Ok(write_config(directory, &config)?)
}

/// The name of the ONNX file.
pub const ONNX_FILE: &str = "model.onnx";

/// How a model is exported to ONNX.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxSettings {
    /// The pooling of an encoder. `None` is the task head where the model has one, else the pooling that the model's
    /// sentence-transformers files say, else the mean over tokens.
    pub pool: Option<Pool>,
    /// How weights are stored.
    pub weights: Weights,
}

/// An exported ONNX file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxWritten {
    /// What the graph computes.
    pub outputs: Outputs,
    /// What a user should know, a sentence each.
    pub notes: Vec<String>,
}

/// Writes `base`, dense or under a ticket, into `directory`: `model.onnx`, the configuration, and the tokenizer.
///
/// # Errors
/// If the ticket does not fit the model, or a file cannot be read or written; [`Error::Setting`] if the settings choose no
/// pooling and the model has a head of another kind than sequences and spans.
pub fn onnx(
    base: &Base,
    ticket: Option<&Ticket>,
    check: BaseCheck<'_>,
    settings: OnnxSettings,
    directory: &Path,
) -> Result<OnnxWritten> {
    let masks_of = |model: &Model| ticket.map_or(Ok(Masks::default()), |ticket| ticket.masks(model, check));
    let task = if settings.pool.is_none() { own_head(base)? } else { None };
    let task_model = task.map(|task| Model::load_for_task(&base.directory, task, HeadStart::Checkpoint)).transpose()?;
    let (outputs, notes) = match &task_model {
        Some(_) => (Outputs::Task, Vec::new()),
        None => encoder_outputs(base, settings.pool)?,
    };
    let model = task_model.as_ref().unwrap_or(&base.model);
    let masks = masks_of(model)?;
    std::fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    tamt_onnx::write(&directory.join(ONNX_FILE), model, &masks, outputs, settings.weights)?;
    copy_companions(base, directory)?;
    write_config(directory, &base.model.config)?;
    Ok(OnnxWritten { outputs, notes })
}

/// The head whose scores are exported: the one that predicts. A head of another kind is an error, since without its scores
/// the file is not the model.
fn own_head(base: &Base) -> Result<Option<TaskKind>> {
    OwnTask::stored_head(&base.directory).map_err(|error| match error {
        Error::UnusableHead { .. } => Error::setting("pool", format!("{error}; mean exports the encoder's vectors")),
        other => other,
    })
}

/// The outputs of an encoder, and notes on how the pooling was chosen.
fn encoder_outputs(base: &Base, pool: Option<Pool>) -> Result<(Outputs, Vec<String>)> {
    let (settings, mut notes) = encode_settings(base, EncodeChoices { pool, ..EncodeChoices::default() })?;
    if settings.lower_case || !settings.prompt.is_empty() || settings.max_length < base.max_length() {
        let outside = "the graph begins with tokens: the prompt, lower case and the maximal length of texts are for the \
                       program that makes the tokens";
        notes.push(outside.to_owned());
    }
    let pooling = match settings.pool {
        Pool::None => None,
        Pool::Cls => Some(Pooling::Cls),
        Pool::Mean => Some(Pooling::Mean),
    };
    Ok((Outputs::Encoder { pooling, normalize: settings.normalize }, notes))
}
