//! `tamt apply`: writes a dense checkpoint with the zeros of a ticket.

use anyhow::Result;
use serde_json::json;
use tamt::apply::apply;
use tamt::inspect::Rates;
use tamt::ticket::Ticket;

use crate::args::apply::ApplyArgs;
use crate::printer::Printer;
use crate::progress::Heartbeat;
use crate::verbs::shared;

pub(super) fn run(args: &ApplyArgs, printer: Printer) -> Result<()> {
    shared::check_unoccupied(&args.output_dir, shared::MODEL_FILES)?;
    let base = shared::base(&args.model, printer)?;
    let ticket = Ticket::read(&args.ticket)?;
    let masks = base.masks_of(&ticket, args.allow_other_base)?;
    let heartbeat = Heartbeat::start(printer, "writing the model");
    let written = apply(&base, &masks, &args.output_dir, args.dtype)?;
    drop(heartbeat);
    let rates = Rates::of(&ticket, Some(&base.model));
    let json = json!({
        "output_dir": args.output_dir.to_string_lossy(),
        "dtypes": written.dtypes,
        "sparsity": rates.sparsity,
        "encoder_sparsity": rates.encoder_sparsity,
    });
    let dtypes: Vec<String> = written.dtypes.iter().map(|(dtype, count)| format!("{count} in {dtype}")).collect();
    let text = format!(
        "sparsity {:.6} of all prunable weights, {:.6} in the encoder\ntensors: {}\nmodel: {}",
        rates.sparsity,
        rates.encoder_sparsity,
        dtypes.join(", "),
        args.output_dir.display()
    );
    printer.result(&json, &text)
}
