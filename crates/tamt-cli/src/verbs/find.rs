//! `tamt find`: a subnetwork of a pre-trained encoder, written as a ticket.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value};
use tamt::base::Base;
use tamt::find::{FindSettings, Method, Start, Texts, find, untouched};
use tamt::inspect::Rates;
use tamt::run::{RunDir, Stop, read_eval_results};
use tamt::ticket::{TICKET_FILE, Ticket};
use tamt_model::digest::sha256_file;

use super::shared;
use crate::args::FindArgs;
use crate::printer::Printer;
use crate::progress::{Progress, duration};
use crate::record::Record;
use crate::{resolve, signals};

pub(super) fn run(args: &FindArgs, printer: Printer) -> Result<()> {
    let goal = resolve::goal(args)?;
    RunDir::check(&args.output_dir, args.training.run.resume)?;
    let base = Base::load(&args.model)?;
    let corpus: &[PathBuf] = if goal.method.trains() { &args.corpus } else { &[] };
    let texts = shared::read_texts(&base.tokenizer, corpus, &args.training.eval_corpus, printer)?;
    let settings = goal.settings(args, &base, &texts);
    let record = record(args, &settings, &goal.defaults(&base), &base, &texts)?;

    let directory = RunDir::create(&args.output_dir, record.table(), args.training.run.resume)?;
    if directory.finished() {
        return show_finished(&base, &settings, &args.output_dir, printer);
    }
    record.announce(printer, &headline(&settings), &args.output_dir)?;
    let unused = resolve::without_effect(args, settings.method);
    if !unused.is_empty() {
        printer.info(&format!("no effect with --method {}: {}", settings.method.name(), unused.join(", ")))?;
    }

    // A method that does not train has nothing to save: signals end it as they end any program.
    let stop = if settings.method.trains() { signals::stop_on_signals(printer)? } else { Stop::new() };
    let mut progress = Progress::new(printer);
    let found = find(base, &texts, &settings, directory, &mut progress, stop)?;
    drop(progress);
    let json = found.to_json();
    let text = result_text(&json, &found.rates, &found.untouched, &args.output_dir);
    printer.result(&Value::Object(json), &text)
}

fn record(
    args: &FindArgs,
    settings: &FindSettings,
    defaults: &FindSettings,
    base: &Base,
    texts: &Texts,
) -> Result<Record> {
    let mut record = Record::new("find", settings, defaults)?;
    record.model("model", &base.name, &base.sha256);
    record.tokenizer(&base.tokenizer)?;
    record.texts(texts, &args.corpus, &args.training.eval_corpus);
    if let Start::Ticket(path) = &settings.start {
        record.set("start-sha256", sha256_file(&Ticket::locate(path)).map_err(tamt::Error::from)?);
    }
    Ok(record)
}

fn headline(settings: &FindSettings) -> String {
    let (name, sparsity) = (settings.method.name(), settings.sparsity.share());
    match settings.method {
        Method::Random | Method::Magnitude => format!("{name} at sparsity {sparsity}"),
        _ => format!("{name} at sparsity {sparsity}, {} steps", settings.train.max_steps),
    }
}

/// A run that has ended is told again, from what it left.
fn show_finished(base: &Base, settings: &FindSettings, output_dir: &Path, printer: Printer) -> Result<()> {
    printer.info("this run has finished; its result was:")?;
    let json = read_eval_results(output_dir)?;
    let ticket = Ticket::read(&output_dir.join(TICKET_FILE))?;
    let rates = Rates::of(&ticket, Some(&base.model));
    let text = result_text(&json, &rates, &untouched(&base.model, settings)?, output_dir);
    printer.result(&Value::Object(json), &text)
}

fn result_text(json: &Map<String, Value>, rates: &Rates, untouched: &[String], output_dir: &Path) -> String {
    let mut text = shared::rates_text(rates);
    for name in untouched {
        text.push_str(&format!("{name} has the mask it started from: no objective reaches it\n"));
    }
    if let Some(metrics) = shared::metrics_line(json) {
        text.push_str(&format!("{metrics}\n"));
    }
    let number = |key: &str| json.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    text.push_str(&format!("{} steps in {}\n", number("steps"), duration(number("seconds"))));
    text.push_str(&format!("ticket: {}\n", output_dir.join(TICKET_FILE).display()));
    text
}
