//! `tamt export`: writes a ticket or a model for other programs.

use anyhow::{Result, bail};
use serde_json::json;
use tamt::apply::apply;
use tamt::export::{MASK_FILE, OnnxSettings, onnx, torch_masks, torch_prune};
use tamt::ticket::{BaseCheck, Ticket};
use tamt_model::Masks;

use crate::args::choices::ExportFormat;
use crate::args::export::ExportArgs;
use crate::exit::UsageError;
use crate::printer::Printer;
use crate::verbs::shared;

pub(super) fn run(args: &ExportArgs, printer: Printer) -> Result<()> {
    check_flags(args)?;
    shared::check_unoccupied(&args.output_dir, shared::MODEL_FILES)?;
    let base = shared::base(&args.subject.model, printer)?;
    let ticket = args.subject.ticket.as_deref().map(Ticket::read).transpose()?;
    let masks = match &ticket {
        Some(ticket) => base.masks_of(ticket, args.subject.allow_other_base)?,
        None => Masks::default(),
    };
    let directory = &args.output_dir;
    match (args.format, &ticket) {
        (ExportFormat::TorchMask, Some(ticket)) => note_unmasked(&torch_masks(&base, ticket, directory)?, printer)?,
        (ExportFormat::TorchMask | ExportFormat::TorchPrune, None) => {
            bail!(UsageError("--format: this format is of masks; give a --ticket".to_owned()))
        }
        (ExportFormat::TorchPrune, Some(_)) => torch_prune(&base, &masks, directory)?,
        (ExportFormat::Onnx, ticket) => {
            let settings = OnnxSettings { pool: args.pool, weights: args.weights.unwrap_or_default() };
            let check = match args.subject.allow_other_base {
                true => BaseCheck::NamesAndShapes,
                false => BaseCheck::Sha256(&base.sha256),
            };
            let written = onnx(&base, ticket.as_ref(), check, settings, directory)?;
            written.notes.iter().try_for_each(|note| printer.info(note))?;
        }
        (ExportFormat::Transformers, _) => apply(&base, &masks, directory, args.dtype).map(|_| ())?,
    }
    let (name, output_dir) = (args.format.name(), directory.to_string_lossy());
    let json = json!({ "output_dir": output_dir, "format": name });
    printer.result(&json, &format!("{name}: {}", directory.display()))
}

/// Says which matrices a file of masks lacks, because the ticket does not mask them.
fn note_unmasked(names: &[String], printer: Printer) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    printer.info(&format!(
        "the ticket does not mask {} of the matrices, so {MASK_FILE} has no mask of them: {}",
        names.len(),
        names.join(", ")
    ))
}

/// Refuses flags that the format does not have.
fn check_flags(args: &ExportArgs) -> Result<()> {
    let given = [
        ("dtype", args.dtype.is_some(), ExportFormat::Transformers),
        ("pool", args.pool.is_some(), ExportFormat::Onnx),
        ("weights", args.weights.is_some(), ExportFormat::Onnx),
    ];
    match given.iter().find(|(_, given, format)| *given && *format != args.format) {
        Some((flag, ..)) => bail!(UsageError(format!("--{flag} has no effect with --format {}", args.format.name()))),
        None => Ok(()),
    }
}
