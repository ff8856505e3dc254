//! `tamt import`: makes a ticket of masks that were made elsewhere.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;
use tamt::import::{ImportSource, import};
use tamt::inspect::Rates;
use tamt::ticket::TICKET_FILE;

use crate::args::import::ImportArgs;
use crate::printer::Printer;
use crate::verbs::shared;

pub(super) fn run(args: &ImportArgs, printer: Printer) -> Result<()> {
    let source = match (&args.file, &args.zeros_of) {
        (Some(file), _) => ImportSource::Masks(file.clone()),
        (None, Some(checkpoint)) => ImportSource::ZerosOf(checkpoint.clone()),
        (None, None) => unreachable!("the parser of the command line requires one of them"),
    };
    shared::check_unoccupied(&args.output_dir, shared::RUN_FILES)?;
    let base = shared::base(&args.model, printer)?;
    let imported = import(&base, &source)?;
    imported.notes.iter().try_for_each(|note| printer.info(note))?;
    fs::create_dir_all(&args.output_dir).with_context(|| format!("cannot create {}", args.output_dir.display()))?;
    let path = args.output_dir.join(TICKET_FILE);
    imported.ticket.write(&path)?;

    let rates = Rates::of(&imported.ticket, Some(&base.model));
    let mut json = serde_json::to_value(&rates).context("the rates are no JSON")?;
    json["output_dir"] = json!(args.output_dir.to_string_lossy());
    json["imported"] = json!(imported.ticket.provenance.imported);
    json["unmasked"] = json!(imported.unmasked);
    let mut text = format!("{}{}", shared::rates_table(&rates), shared::rates_summary(&rates));
    if !imported.unmasked.is_empty() {
        let names = imported.unmasked.join(", ");
        text.push_str(&format!("without a mask, so dense: {names}\n"));
    }
    text.push_str(&format!("ticket of {}: {}", imported.form.name(), path.display()));
    printer.result(&json, &text)
}
