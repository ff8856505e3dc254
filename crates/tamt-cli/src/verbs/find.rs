//! `tamt find`: finds a subnetwork of a pre-trained encoder and writes it as a ticket.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value};
use tamt::base::Base;
use tamt::find::{FindSettings, MaskInit, Method, Texts, find, untouched};
use tamt::inspect::Rates;
use tamt::run::RunDir;
use tamt::ticket::{TICKET_FILE, Ticket};
use tamt::train::Session;
use tamt_model::digest::sha256_file;
use toml::Table;

use crate::args::find::FindArgs;
use crate::effects::without_effect;
use crate::printer::Printer;
use crate::record::{self, Record};
use crate::recorded_path;
use crate::resolve;
use crate::signals::Signals;
use crate::verbs::shared;
use crate::watch::observer;

pub(super) fn run(args: &FindArgs, printer: Printer) -> Result<()> {
    let signals = Signals::listen(printer)?;
    let goal = resolve::goal(args)?;
    signals.quietly(|| RunDir::check(&args.output_dir, args.training.run.resume))?;
    let mut base = shared::base(&args.model, printer)?;
    if let Some(name) = record::model_of_ticket(&args.output_dir).filter(|_| args.training.run.resume) {
        base.name = name;
    }
    let corpus: &[PathBuf] = if goal.method.trains() { &args.corpus } else { &[] };
    let texts = shared::read_texts(&base.tokenizer, corpus, &args.training.eval_corpus, printer)?;
    let tokens = texts.train.as_ref().map(|corpus| corpus.tokens.len());
    let settings = goal.settings(args, base.max_length(), tokens);
    let record = record(args, &settings, &goal.defaults(base.max_length()), &base, &texts)?;

    let resume = args.training.run.resume;
    let directory = shared::open(&args.output_dir, record.table(), &record, resume, &signals, printer)?;
    if let Some(json) = shared::finished(&directory, |steps| settings.goes_on_after(steps), printer)? {
        let ticket = Ticket::read(&directory.file(TICKET_FILE))?;
        let rates = Rates::of(&ticket, Some(&base.model));
        let text = result_text(&json, &rates, &untouched(&base.model, &settings)?, &args.output_dir);
        return printer.result(&Value::Object(json), &text);
    }
    record.announce(printer, &headline(&settings), &args.output_dir)?;
    let unused: Vec<String> = without_effect(args).into_iter().map(|name| format!("--{name}")).collect();
    // A resumed run has the flags of its record, some of which follow from others.
    if !unused.is_empty() && !resume {
        printer.info(&format!("no effect with --method {}: {}", settings.method.name(), unused.join(", ")))?;
    }

    let mut progress = observer(printer);
    let session = Session { directory, observer: &mut *progress, stop: signals.stop() };
    let found = find(base, &texts, &settings, session)?;
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
    record.model(&args.model, &base.sha256);
    record.model_of_ticket(&base.name);
    record.tokenizer(&base.tokenizer);
    record.texts(texts, &args.corpus, &args.training.eval_corpus);
    if let MaskInit::Ticket(path) = &settings.start {
        // A ticket that cannot be read or does not fit is an error ahead of the run directory.
        base.masks_of(&Ticket::read(path)?, settings.allow_other_base)?;
        record.set("start", Table::from_iter([("ticket".to_owned(), recorded_path::path(path).into())]));
        record.set("start-sha256", sha256_file(&Ticket::locate(path))?);
    }
    Ok(record)
}

fn headline(settings: &FindSettings) -> String {
    let (name, sparsity) = (settings.method.name(), settings.sparsity.share());
    match settings.method {
        Method::Random | Method::Magnitude => format!("{name} at sparsity {sparsity}"),
        _ => {
            let batch = shared::batch(settings.batch_size, settings.block_size);
            format!("{name} at sparsity {sparsity}, {} steps of {batch}", settings.train.max_steps)
        }
    }
}

fn result_text(json: &Map<String, Value>, rates: &Rates, untouched: &[String], output_dir: &Path) -> String {
    let mut text = shared::rates_summary(rates);
    for name in untouched {
        text.push_str(&format!("{name} has the mask it started from: no objective reaches it\n"));
    }
    if let Some(metrics) = shared::metrics_line(json) {
        text.push_str(&format!("{metrics}\n"));
    }
    text.push_str(&shared::steps_line(json));
    text.push_str(&format!("ticket: {}\n", output_dir.join(TICKET_FILE).display()));
    text
}
