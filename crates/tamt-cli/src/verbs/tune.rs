//! `tamt tune`: fine-tunes a ticket, or the dense model, on a task.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use tamt::run::{RunDir, Stop, read_eval_results, write_eval_results};
use tamt::ticket::Ticket;
use tamt::train::Session;
use tamt::tune::{
    BEST_PREFIX, LabelOrder, TaskData, TaskModel, TuneSettings, check_teacher, is_measured, summary, tune,
};
use tamt_data::tasks::Task;
use tamt_model::digest::sha256_file;
use tamt_model::{HeadStart, Storage};

use crate::args::tune::TuneArgs;
use crate::exit::UsageError;
use crate::printer::{Printer, Table, grouped, metric};
use crate::progress::{Heartbeat, duration};
use crate::record::Record;
use crate::recorded_path;
use crate::resolve;
use crate::signals::Signals;
use crate::verbs::{shared, task};
use crate::watch::observer;

pub(super) fn run(args: &TuneArgs, printer: Printer) -> Result<()> {
    let signals = Signals::listen(printer)?;
    let task = task::declaration(&args.task)?;
    let seeds = resolve::seeds(args)?;
    // Not a rule of the command line: a study parses the flags of its plan without a ticket.
    if args.dense_pooler && args.subject.ticket.is_none() {
        bail!(UsageError("--dense-pooler: without --ticket nothing is masked".to_owned()));
    }
    signals.quietly(|| RunDir::check(&args.output_dir, args.fitting.run.resume))?;
    for name in std::iter::once(&args.subject.model).chain(&args.teacher.teacher) {
        shared::note_hub_id(name, printer);
    }
    let heartbeat = Heartbeat::start(printer, "reading the model");
    let first = load(args, &task, seeds[0])?;
    drop(heartbeat);
    shared::notes(&first.model, printer)?;
    let heartbeat = Heartbeat::start(printer, "reading the task");
    let longest = first.model.config.max_length();
    let settings = resolve::tune(args, &task, longest);
    settings.validate(longest)?;
    let mut notes = Vec::new();
    let ticket =
        args.subject.ticket.as_deref().map(|path| read_ticket(args, path, &first, &mut notes, printer)).transpose()?;
    let data = TaskData::read(&task, task::directory(&args.task), &first.tokenizer, &settings)?;
    let teacher = args.teacher.teacher.as_deref().map(|name| load_teacher(args, &task, name)).transpose()?;
    let is_new = |model: &TaskModel| model.label_order == LabelOrder::Task;
    if task::labels(&args.task).is_some() && is_new(&first) && teacher.as_ref().is_none_or(is_new) {
        bail!(UsageError("--labels: no given model has a head whose outputs need names".to_owned()));
    }
    if let Some((teacher, settings)) = teacher.as_ref().zip(settings.distillation) {
        check_teacher(&teacher.model, &first.model, settings)?;
    }
    let classifiers = std::iter::once(&first).chain(&teacher);
    notes.extend(classifiers.filter_map(|model| task::note_of_guessed_labels(model, &task)));
    let tuning = Tuning { args, task: &task, settings, ticket, teacher, data, notes, printer };
    let record = tuning.record(&first, longest)?;
    drop(heartbeat);
    if let [seed] = *seeds {
        let resume = args.fitting.run.resume;
        let directory = shared::open(&args.output_dir, record.table(), &record, resume, &signals, printer)?;
        if let Some(result) = shared::finished(&directory, |steps| tuning.settings.goes_on_after(steps), printer)? {
            return show(&result, &args.output_dir, printer);
        }
        tuning.announce(&record)?;
        let result = tuning.run(first, seed, directory, signals.stop())?;
        return show(&result, &args.output_dir, printer);
    }
    tuning.run_seeds(&seeds, first, &record, &signals)
}

fn load(args: &TuneArgs, task: &Task, seed: u64) -> Result<TaskModel> {
    let head = if args.new_head { HeadStart::Fresh(seed) } else { HeadStart::Random(seed) };
    Ok(TaskModel::load(&args.subject.model, task, head, task::labels(&args.task), Storage::Dense)?)
}

/// Reads a ticket that fits `model`, with `--dense-pooler` without the mask of the pooler; warns of a pooler without
/// weights.
fn read_ticket(
    args: &TuneArgs,
    path: &Path,
    model: &TaskModel,
    notes: &mut Vec<String>,
    printer: Printer,
) -> Result<Ticket> {
    let mut ticket = Ticket::read(path)?;
    if args.dense_pooler {
        let unmasked = model.model.pooler.is_some() && ticket.unmask_pooler();
        notes.push(if unmasked {
            "the pooler is dense: the ticket's mask of the pooler is left out".to_owned()
        } else {
            "no effect: --dense-pooler (the ticket masks no pooler that this model has)".to_owned()
        });
    }
    let masks = model.masks_of(&ticket, args.subject.allow_other_base)?;
    let mask = model.model.pooler.and_then(|pooler| masks.get(pooler.weight));
    if mask.is_some_and(|mask| mask.count_ones() == 0) {
        printer.warning(&format!(
            "{}: it keeps no weight of the pooler, so that the task's head gets the same vector for every text; \
             --dense-pooler leaves the pooler dense",
            path.display()
        ));
    }
    Ok(ticket)
}

/// The teacher, whose own names of labels count more than `--labels`, which belong to the model in the first place.
fn load_teacher(args: &TuneArgs, task: &Task, name: &OsStr) -> Result<TaskModel> {
    let teacher = TaskModel::load(name, task, HeadStart::Checkpoint, None, Storage::Dense)?;
    match (&teacher.label_order, task::labels(&args.task)) {
        (LabelOrder::Guessed { .. }, Some(labels)) => {
            Ok(TaskModel::load(name, task, HeadStart::Checkpoint, Some(labels), Storage::Dense)?)
        }
        _ => Ok(teacher),
    }
}

/// The inputs and settings that all seeds share.
struct Tuning<'a> {
    args: &'a TuneArgs,
    task: &'a Task,
    settings: TuneSettings,
    ticket: Option<Ticket>,
    teacher: Option<TaskModel>,
    data: TaskData,
    /// Notices about the models and the ticket.
    notes: Vec<String>,
    printer: Printer,
}

impl Tuning<'_> {
    fn record(&self, model: &TaskModel, longest: usize) -> Result<Record> {
        let args = self.args;
        let mut defaults = TuneSettings::new(self.task);
        defaults.inputs.max_length = defaults.inputs.max_length.min(longest);
        let mut record = Record::new("tune", &self.settings, &defaults)?;
        record.model(&args.subject.model, &model.sha256);
        record.tokenizer(&model.tokenizer);
        if args.new_head {
            record.set("new-head", true);
        }
        if args.dense_pooler {
            record.set("dense-pooler", true);
        }
        if let Some(labels) = task::labels(&args.task) {
            record.set("labels", labels.to_vec());
        }
        if args.subject.allow_other_base {
            record.set("allow-other-base", true);
        }
        if let Some(path) = &args.subject.ticket {
            record.set("ticket", recorded_path::path(path));
            record.set("ticket-sha256", sha256_file(&Ticket::locate(path))?);
            record.input("ticket", path.display().to_string());
        }
        if let Some((teacher, name)) = self.teacher.as_ref().zip(args.teacher.teacher.as_deref()) {
            record.set("teacher", recorded_path::model(name));
            record.set("teacher-sha256", teacher.sha256.as_str());
            record.input("teacher", teacher.name.clone());
        }
        if let Some(path) = &args.task.task_file {
            record.set("task-file", recorded_path::path(path));
            record.set("task-file-sha256", sha256_file(path)?);
        }
        record.set("data", recorded_path::path(task::directory(&args.task)));
        for inputs in self.data.all() {
            record.set(format!("{}-sha256", inputs.split.name()), task::digests(&inputs.files)?);
            let files: Vec<String> = inputs.files.iter().map(|file| file.display().to_string()).collect();
            let count = grouped(inputs.examples() as u64);
            record.input(inputs.split.name(), format!("{} ({count} examples)", files.join(", ")));
        }
        if args.fitting.seeds.len() > 1 {
            record.set("seeds", args.fitting.seeds.iter().map(|&seed| seed as i64).collect::<Vec<i64>>());
        }
        Ok(record)
    }

    fn announce(&self, record: &Record) -> Result<()> {
        let what = if self.ticket.is_some() { "a ticket" } else { "the dense model" };
        let inputs = &self.settings.inputs;
        let unit = if inputs.spans.is_some() { "window" } else { "example" };
        let plural = if self.settings.batch_size == 1 { "" } else { "s" };
        let batch = format!("{} {unit}{plural} of up to {} tokens", self.settings.batch_size, inputs.max_length);
        let headline = format!("fine-tuning {what} on {}, steps of {batch}", self.task.name);
        record.announce(self.printer, &headline, &self.args.output_dir)?;
        if self.ticket.is_none() {
            shared::note_kernel(&self.args.common, self.printer)?;
        }
        task::note_span_flags(&self.args.task.inputs, self.task, self.printer)?;
        if self.data.dev.is_empty() {
            self.printer.info("the task has no dev split: nothing is evaluated, and the final model is written")?;
        }
        for note in self.notes.iter().chain(self.data.all().flat_map(|inputs| &inputs.notes)) {
            self.printer.info(note)?;
        }
        Ok(())
    }

    fn run(&self, model: TaskModel, seed: u64, directory: RunDir, stop: Stop) -> Result<Map<String, Value>> {
        let masks_of = |ticket| model.masks_of(ticket, self.args.subject.allow_other_base);
        let masks = self.ticket.as_ref().map(masks_of).transpose()?;
        let teacher = self.teacher.as_ref().map(|teacher| &teacher.model);
        let settings = TuneSettings { seed, ..self.settings.clone() };
        let mut progress = observer(self.printer);
        let ticket = self.ticket.as_ref().zip(masks);
        let session = Session { directory, observer: &mut *progress, stop };
        let tuned = tune(self.task, model, ticket, teacher, &self.data, &settings, session)?;
        Ok(tuned.to_json())
    }

    /// Trains with each seed; `first` is the model of the first one.
    fn run_seeds(&self, seeds: &[u64], first: TaskModel, record: &Record, signals: &Signals) -> Result<()> {
        let (root, resume) = (&self.args.output_dir, self.args.fitting.run.resume);
        let directory =
            signals.watch(|| RunDir::create_with_defaults(root, record.table(), record.defaults(), resume))?;
        self.announce(record)?;
        let mut runs = Vec::with_capacity(seeds.len());
        let sha256 = first.sha256.clone();
        let mut first = Some(first);
        for &seed in seeds {
            // The opening of a seed's directory would bring a removed one back.
            directory.check_held()?;
            let path = root.join(format!("seed-{seed}"));
            let mut table = record.table().clone();
            table.remove("seeds");
            table.insert("seed".to_owned(), i64::try_from(seed).unwrap_or(i64::MAX).into());
            let run = shared::open(&path, &table, record, directory.resumed(), signals, self.printer)?;
            if run.finished() {
                run.retire_checkpoints_of_finished(|steps| self.settings.goes_on_after(steps))?;
                runs.push(read_eval_results(&path)?);
                continue;
            }
            self.printer.info(&format!("seed {seed}"))?;
            let model =
                first.take().filter(|_| seed == seeds[0]).map_or_else(|| load(self.args, self.task, seed), Ok)?;
            if model.sha256 != sha256 {
                bail!("{}: its weights are no longer those that the first seed was tuned from", model.name);
            }
            runs.push(self.run(model, seed, run, signals.stop())?);
        }
        directory.check_held()?;
        let result = summary(root, &runs);
        write_eval_results(root, &result)?;
        show_seeds(&result, &runs, root, self.printer)
    }
}

/// Whether a value of a result is a score or a loss.
fn is_measure(key: &str) -> bool {
    is_measured(key) && !["sparsity", "encoder_sparsity"].contains(&key)
}

/// A value of a result in a table.
fn cell(value: Option<&Value>) -> String {
    value.and_then(Value::as_f64).map_or_else(|| "-".to_owned(), metric)
}

fn show(result: &Map<String, Value>, output_dir: &Path, printer: Printer) -> Result<()> {
    let mut table = Table::new(&["measure", "final", "best"]);
    for (key, value) in result.iter().filter(|(key, _)| is_measure(key) && !key.starts_with(BEST_PREFIX)) {
        if value.is_number() || value.is_null() {
            table.row([key.clone(), cell(Some(value)), cell(result.get(&format!("{BEST_PREFIX}{key}")))]);
        }
    }
    let mut out = table.render();
    if let Some(step) = result.get(&format!("{BEST_PREFIX}step")).and_then(Value::as_u64) {
        let primary = result.get("primary_metric").and_then(Value::as_str).unwrap_or_default();
        out.push_str(&format!("best by {primary}, at step {step}\n"));
    }
    out.push_str(&shared::steps_line(result));
    out.push_str(&format!("model: {}\n", output_dir.display()));
    printer.result(&Value::Object(result.clone()), &out)
}

fn show_seeds(result: &Map<String, Value>, runs: &[Map<String, Value>], root: &Path, printer: Printer) -> Result<()> {
    let empty = Map::new();
    let of = |key: &str| result.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let (mean, std) = (of("mean"), of("std"));
    let seeds: Vec<String> =
        runs.iter().map(|run| format!("seed {}", run.get("seed").unwrap_or(&Value::Null))).collect();
    let headings: Vec<&str> = ["measure", "mean", "std"].into_iter().chain(seeds.iter().map(String::as_str)).collect();
    let mut table = Table::new(&headings);
    for key in mean.keys().filter(|key| is_measure(key)) {
        let cells = [key.clone(), cell(mean.get(key)), cell(std.get(key))];
        table.row(cells.into_iter().chain(runs.iter().map(|run| cell(run.get(key)))));
    }
    let seconds = result.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let out = format!("{}{} runs in {}\nmodels: {}\n", table.render(), runs.len(), duration(seconds), root.display());
    printer.result(&Value::Object(result.clone()), &out)
}
