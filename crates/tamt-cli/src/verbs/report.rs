//! `tamt report`: writes tables, figures and a page of finished runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;
use tamt::prune::Scope;
use tamt::ticket::Ticket;
use tamt_report::report::{Report, report};
use tamt_report::ticket::{Matrix, Ticket as ReportTicket, TicketReader};
use tamt_study::labels::Labels;

use crate::args::report::ReportArgs;
use crate::printer::Printer;
use crate::progress::Heartbeat;

pub(super) fn run(args: &ReportArgs, printer: Printer) -> Result<()> {
    let output = args.output_dir.clone().unwrap_or_else(|| default_output(&args.paths[0]));
    let heartbeat = Heartbeat::start(printer, "reading the runs");
    let report = write(&args.paths, &output)?;
    drop(heartbeat);
    let left_out: Vec<_> =
        report.study.left_out.iter().map(|run| json!({ "run": run.name, "reason": run.reason })).collect();
    let json = json!({
        "output_dir": output.to_string_lossy(),
        "page": report.written.page.to_string_lossy(),
        "runs": report.study.runs.len(),
        "tables": report.written.tables,
        "figures": report.written.figures,
        "findings": report.findings,
        "left_out": left_out,
    });
    printer.result(&json, &text(&report))
}

/// The directory of a report that no flag names: in a directory of runs, or beside a file.
fn default_output(path: &Path) -> PathBuf {
    let directory = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    directory.join("report")
}

/// Writes the report of the runs in `paths` into `output`.
pub(super) fn write(paths: &[PathBuf], output: &Path) -> Result<Report> {
    Ok(report(paths, output, &Tickets)?)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!("* {finding}\n"));
    }
    for run in &report.study.left_out {
        text.push_str(&format!("left out: {}: {}\n", run.name, run.reason));
    }
    let (tables, figures) = (report.written.tables, report.written.figures);
    text.push_str(&format!("{} runs, {tables} tables, {figures} figures\n", report.study.runs.len()));
    text.push_str(&format!("report: {}\n", report.written.page.display()));
    text
}

/// Reads tickets with the library, so that their format has one reader.
struct Tickets;

impl TicketReader for Tickets {
    fn read(&self, path: &Path) -> Result<ReportTicket, String> {
        let ticket = Ticket::read(path).map_err(|error| error.to_string())?;
        let origin = ticket.provenance;
        let labels = Labels {
            base: origin.base_model,
            method: origin.method,
            sparsity: Some(origin.sparsity),
            scope: Some(scope(origin.scope).to_owned()),
            ticket_seed: Some(origin.seed),
            steps: Some(origin.steps),
            ..Labels::default()
        };
        let matrices = ticket.matrices.into_iter().map(|(name, mask)| Matrix {
            name,
            rows: mask.rows(),
            cols: mask.cols(),
            bits: mask.as_bytes().to_vec(),
        });
        Ok(ReportTicket { labels, matrices: matrices.collect() })
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Local => "local",
        Scope::Global => "global",
    }
}
