//! `tamt pack` and `tamt unpack`: models without their dropped weights, and back.

use anyhow::Result;
use serde_json::json;
use tamt::ticket::Ticket;
use tamt_kernels::Precision;
use tamt_model::{Masks, PackedSizes};

use crate::args::pack::{PackArgs, UnpackArgs};
use crate::printer::{Printer, grouped};
use crate::progress::Heartbeat;
use crate::verbs::shared;

pub(super) fn pack(args: &PackArgs, printer: Printer) -> Result<()> {
    shared::check_unoccupied(&args.output_dir, shared::MODEL_FILES)?;
    let base = shared::base(&args.subject.model, printer)?;
    let masks = match &args.subject.ticket {
        Some(path) => base.masks_of(&Ticket::read(path)?, args.subject.allow_other_base)?,
        None => Masks::default(),
    };
    let precision = (args.common.precision)();
    let heartbeat = Heartbeat::start(printer, "writing the model");
    let sizes = tamt::pack::pack(&base, &masks, args.subject.ticket.as_deref(), &args.output_dir, precision)?;
    drop(heartbeat);
    if sizes.kept == sizes.weights && sizes.weights > 0 {
        printer
            .info("no matrix of the model has zeros to leave out, so it is as large as before; --ticket prunes it")?;
    }
    let PackedSizes { weights, kept, matrix_bytes, file_bytes } = sizes;
    let share = |part: u64| part as f64 / weights.max(1) as f64;
    let name = if precision == Precision::Bf16 { "bf16" } else { "f32" };
    let json = json!({
        "output_dir": args.output_dir.to_string_lossy(),
        "precision": name,
        "prunable_weights": weights,
        "kept_weights": kept,
        "sparsity": 1.0 - share(kept),
        "bytes_per_prunable_weight": share(matrix_bytes),
        "file_bytes": file_bytes,
    });
    let (kept, all, bytes) = (grouped(kept), grouped(weights), grouped(file_bytes));
    let text = format!(
        "{kept} of {all} prunable weights kept, in {name}: {:.3} bytes a prunable weight\nweights file: {bytes} bytes\n\
         model: {}",
        share(matrix_bytes),
        args.output_dir.display()
    );
    printer.result(&json, &text)
}

pub(super) fn unpack(args: &UnpackArgs, printer: Printer) -> Result<()> {
    shared::check_unoccupied(&args.output_dir, shared::MODEL_FILES)?;
    let base = shared::base(&args.model, printer)?;
    let heartbeat = Heartbeat::start(printer, "writing the model");
    let written = tamt::pack::unpack(&base, &args.output_dir)?;
    drop(heartbeat);
    let json = json!({ "output_dir": args.output_dir.to_string_lossy(), "dtypes": written.dtypes });
    let dtypes: Vec<String> = written.dtypes.iter().map(|(dtype, count)| format!("{count} in {dtype}")).collect();
    printer.result(&json, &format!("tensors: {}\nmodel: {}", dtypes.join(", "), args.output_dir.display()))
}
