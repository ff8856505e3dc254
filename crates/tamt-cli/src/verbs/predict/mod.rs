//! `tamt predict`: labels, numbers or answers for new texts.

mod input;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tamt::predict::{OutputFormat, Subject, Summary, Target, predict};
use tamt::ticket::Ticket;
use tamt::tune::TaskModel;
use tamt_data::tasks::InputLayout;
use tamt_model::HeadStart;
use tamt_model::write::atomic_write;

use crate::args::predict::PredictArgs;
use crate::args::values::LineTarget;
use crate::exit::UsageError;
use crate::printer::{Printer, Table, grouped};
use crate::progress::{Counter, Heartbeat, duration};
use crate::resolve;
use crate::verbs::predict::input::{Input, Known};
use crate::verbs::{shared, task};

pub(super) fn run(args: &PredictArgs, printer: Printer) -> Result<()> {
    let started = Instant::now();
    let printer = match &args.output {
        LineTarget::File(path) => {
            shared::check_output(path, &args.subject, &args.input, args.task_file.as_deref())?;
            printer
        }
        LineTarget::Stdout if args.common.json => {
            bail!(UsageError("--json prints its object to stdout, so --output has to be a file".to_owned()));
        }
        LineTarget::Stdout => printer.beside_data(),
    };
    let (model, known) = load(args, printer)?;
    task::note_span_flags(&args.inputs, &known.task, printer)?;
    let ticket = args.subject.ticket.as_deref().map(Ticket::read).transpose()?;
    let masks = ticket.map(|ticket| model.masks_of(&ticket, args.subject.allow_other_base)).transpose()?;
    let longest = model.model.config.max_length();
    let mut settings = known.settings;
    resolve::inputs(&mut settings, &args.inputs, longest);
    settings.validate(longest)?;
    let input = input::open(args, &known)?;
    let subject = Subject {
        model: &model,
        masks: masks.as_ref(),
        compute: resolve::compute(&args.common),
        task: &known.task,
        settings: &settings,
    };
    let Some(summary) = write(args, subject, input, printer)? else { return Ok(()) };
    if let Some((line, reason)) = &summary.first_unusable {
        let (n, name) = (summary.unusable, args.input.name());
        let rows = if n == 1 { "a row has".to_owned() } else { format!("{n} rows have") };
        printer.info(&format!("{rows} no prediction; the first: {}:{line}: {reason}", name.display()))?;
    }
    show(args, &summary, started.elapsed().as_secs_f64(), printer)
}

/// The model, with the task of the flags, or else with its own.
fn load(args: &PredictArgs, printer: Printer) -> Result<(TaskModel, Known)> {
    let labels = (!args.labels.is_empty()).then_some(args.labels.as_slice());
    let storage = shared::storage(&args.subject);
    shared::note_hub_id(&args.subject.model, printer);
    let heartbeat = Heartbeat::start(printer, "reading the model");
    let (model, known) = if args.task.is_some() || args.task_file.is_some() {
        let task = task::declared(args.task.as_deref(), args.task_file.as_deref())?;
        let model = TaskModel::load(&args.subject.model, &task, HeadStart::Checkpoint, labels, storage)?;
        drop(heartbeat);
        if let Some(note) = task::note_of_guessed_labels(&model, &task) {
            printer.info(&note)?;
        }
        let (settings, inputs) = (model.input_settings(&task)?, Some(InputLayout::of_task(&task)));
        (model, Known { task, settings, inputs })
    } else {
        let (model, own) = TaskModel::load_own(&args.subject.model, labels, storage)?;
        drop(heartbeat);
        (model, Known { task: Cow::Owned(own.task), settings: own.settings, inputs: own.inputs })
    };
    shared::notes(&model.model, printer)?;
    Ok((model, known))
}

/// Predicts, and writes the lines; `None` if the reader of stdout is gone.
fn write(args: &PredictArgs, subject: Subject<'_>, input: Input, printer: Printer) -> Result<Option<Summary>> {
    let Input { source, total, unit } = input;
    let mut counter = Counter::of(printer, "predict", unit, total);
    let progress = |_: u64, read: u64| counter.at(read);
    match &args.output {
        LineTarget::Stdout => {
            let format = args.output_format.unwrap_or(OutputFormat::Tsv);
            let (mut out, path) = (printer.data(), Path::new("stdout"));
            match predict(subject, source, Target { out: &mut out, path, format }, progress) {
                Err(tamt::Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(None),
                outcome => Ok(Some(outcome?)),
            }
        }
        LineTarget::File(path) => {
            let format = args.output_format.unwrap_or_else(|| format_of(path));
            let mut outcome = Ok(None);
            let written =
                atomic_write(path, |out| match predict(subject, source, Target { out, path, format }, progress) {
                    Ok(summary) => {
                        outcome = Ok(Some(summary));
                        Ok(())
                    }
                    Err(error) => {
                        outcome = Err(error);
                        Err(io::ErrorKind::Other.into())
                    }
                });
            // An error of the predictions says more than the file that they leave unfinished.
            let summary = outcome?;
            written?;
            Ok(summary)
        }
    }
}

/// The form of an output, by the ending of its name.
fn format_of(path: &Path) -> OutputFormat {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => OutputFormat::JsonLines,
        _ => OutputFormat::Tsv,
    }
}

fn show(args: &PredictArgs, summary: &Summary, seconds: f64, printer: Printer) -> Result<()> {
    let output = match &args.output {
        LineTarget::Stdout => PathBuf::from("stdout"),
        LineTarget::File(path) => path.clone(),
    };
    let mut result = Map::new();
    result.insert("output".into(), json!(output.to_string_lossy()));
    result.insert("records".into(), json!(summary.records));
    result.insert("unusable".into(), json!(summary.unusable));
    let mut text = String::new();
    if !summary.labels.is_empty() {
        let mut table = Table::new(&["label", "records"]);
        summary.labels.iter().for_each(|(label, n)| table.row([label.clone(), grouped(*n)]));
        text.push_str(&table.render());
        result.insert("labels".into(), summary.labels.iter().cloned().collect());
    }
    if let Some(n) = summary.without_answer {
        text.push_str(&format!("without an answer: {}\n", grouped(n)));
        result.insert("without_answer".into(), json!(n));
    }
    result.insert("seconds".into(), json!(seconds));
    let (n, seconds) = (grouped(summary.records), duration(seconds));
    text.push_str(&format!("{n} records in {seconds}: {}", output.display()));
    match args.output {
        LineTarget::Stdout => {
            printer.progress(&text);
            Ok(())
        }
        LineTarget::File(_) => printer.result(&Value::Object(result), &text),
    }
}
