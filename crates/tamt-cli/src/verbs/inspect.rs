//! `tamt inspect`: shows the sparsity of tickets, matrix by matrix, and their similarity.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tamt::evaluate::EvalConditions;
use tamt::inspect::Rates;
use tamt::ticket::{EvalRecord, ImportRecord, Provenance, Ticket};

use crate::args::inspect::InspectArgs;
use crate::printer::{Printer, grouped};
use crate::verbs::shared;

pub(super) fn run(args: &InspectArgs, printer: Printer) -> Result<()> {
    let against = args.against.as_deref().map(Ticket::read).transpose()?;
    let base = args.model.as_deref().map(|name| shared::base(name, printer)).transpose()?;
    let mut objects = Vec::with_capacity(args.tickets.len());
    let mut texts = Vec::with_capacity(args.tickets.len());
    for path in &args.tickets {
        let ticket = Ticket::read(path)?;
        if let Some(base) = &base {
            base.masks_of(&ticket, false).with_context(|| format!("{} does not fit the model", path.display()))?;
        }
        let mut rates = Rates::of(&ticket, base.as_ref().map(|base| &base.model));
        if let Some(other) = &against {
            rates = rates
                .against(&ticket, other)
                .with_context(|| format!("{} cannot be compared with the other ticket", path.display()))?;
        }
        objects.push(object(&rates, &ticket.provenance)?);
        let heading = heading(path, &ticket.provenance);
        texts.push(format!("{heading}{}{}", shared::rates_table(&rates), shared::rates_summary(&rates)));
    }
    let json = match <[Value; 1]>::try_from(objects) {
        Ok([only]) => only,
        Err(objects) => json!({ "tickets": objects }),
    };
    printer.result(&json, &texts.join("\n"))
}

/// The rates, with the metadata in a nested object: the requested sparsity differs from the reached one.
fn object(rates: &Rates, provenance: &Provenance) -> Result<Value> {
    let mut object = serde_json::to_value(rates).context("the rates are no JSON")?;
    object["metadata"] = serde_json::to_value(provenance).context("the metadata is no JSON")?;
    Ok(object)
}

fn heading(path: &Path, provenance: &Provenance) -> String {
    let Provenance { base_model, base_sha256, method, objective, sparsity, seed, steps, .. } = provenance;
    let mut text = format!("{}\n", Ticket::locate(path).display());
    text.push_str(&format!("  base        {base_model} (SHA-256 {base_sha256})\n"));
    text.push_str(&format!("  method      {method}, sparsity {sparsity}, seed {seed}"));
    if let Some(objective) = objective {
        text.push_str(&format!(", {objective} for {steps} steps"));
    }
    text.push('\n');
    if let Some(corpus) = &provenance.corpus_sha256 {
        text.push_str(&format!("  corpus      SHA-256 {corpus}\n"));
    }
    if let Some(EvalRecord { conditions, tokens, .. }) = &provenance.evaluation {
        let (tokens, EvalConditions { block_size, seed, .. }) = (grouped(*tokens), conditions);
        text.push_str(&format!(
            "  evaluated   on {tokens} tokens in blocks of {block_size}, masked with seed {seed}\n"
        ));
    }
    if let Some(ImportRecord { file, sha256, form }) = &provenance.imported {
        text.push_str(&format!("  imported    from {file}, {form} (SHA-256 {sha256})\n"));
    }
    text.push_str(&format!("  written by  tamt {}\n", provenance.tool_version));
    text
}
