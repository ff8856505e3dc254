//! The task of `tamt tune` and `tamt eval`: its declaration, its directory, and the evaluation of a tuned model.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};
use tamt::ticket::Ticket;
use tamt::tune::{Answers, Inputs, LabelOrder, TaskModel};
use tamt_data::nearest;
use tamt_data::tasks::{Split, Task};
use tamt_model::HeadStart;
use tamt_model::digest::sha256_file;

use crate::args::eval::EvalArgs;
use crate::args::task::{InputArgs, TaskArgs};
use crate::exit::UsageError;
use crate::printer::{Printer, Table, grouped, metric};
use crate::progress::{Counter, Heartbeat};
use crate::recorded_path;
use crate::resolve;
use crate::verbs::{kept, shared};

/// The task that the flags name or declare.
pub(super) fn declaration(args: &TaskArgs) -> Result<Cow<'static, Task>> {
    declared(args.task.as_deref(), args.task_file.as_deref())
}

/// The task that the file declares, or else the one with this name.
pub(super) fn declared(name: Option<&str>, file: Option<&Path>) -> Result<Cow<'static, Task>> {
    if let Some(path) = file {
        return Ok(Cow::Owned(Task::from_file(path)?));
    }
    let name = name.unwrap_or_default();
    let task = Task::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = Task::all().iter().map(|task| task.name.as_str()).collect();
        let meant = nearest(name, known.iter().copied());
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        UsageError(format!("--task: there is no task {name:?}; known are {}{meant}", known.join(", ")))
    })?;
    Ok(Cow::Borrowed(task))
}

/// The directory of the task's files. The command line requires the flag.
pub(super) fn directory(args: &TaskArgs) -> &Path {
    args.data.as_deref().unwrap_or(Path::new("."))
}

/// The labels of `--labels`, if the flag was given.
pub(super) fn labels(args: &TaskArgs) -> Option<&[String]> {
    (!args.labels.is_empty()).then_some(args.labels.as_slice())
}

/// A notice about a model whose outputs have no known labels, if it is one.
pub(super) fn note_of_guessed_labels(model: &TaskModel, task: &Task) -> Option<String> {
    let LabelOrder::Guessed { names } = &model.label_order else { return None };
    let names = match names.as_slice() {
        [] => "does not name its outputs".to_owned(),
        names => format!("calls its outputs {}", names.join(", ")),
    };
    let (model, assumed) = (&model.name, task.labels().join(", "));
    Some(format!("the order of labels is a guess: {model} {names}; taken as {assumed}; --labels sets the order"))
}

/// Says which given flags have no effect on a task without spans.
pub(super) fn note_span_flags(args: &InputArgs, task: &Task, printer: Printer) -> Result<()> {
    let unused = resolve::without_effect_on_task(args, task);
    if unused.is_empty() {
        return Ok(());
    }
    printer.info(&format!("no effect on {}, which has no spans: {}", task.name, unused.join(", ")))
}

/// `tamt eval --task`: scores a fine-tuned model on the task's development set.
pub(super) fn evaluate(args: &EvalArgs, printer: Printer) -> Result<()> {
    let task = declaration(&args.task)?;
    shared::note_hub_id(&args.subject.model, printer);
    let heartbeat = Heartbeat::start(printer, "reading the model");
    let storage = shared::storage(&args.subject);
    let model = TaskModel::load(&args.subject.model, &task, HeadStart::Checkpoint, labels(&args.task), storage)?;
    drop(heartbeat);
    shared::notes(&model.model, printer)?;
    if let Some(note) = note_of_guessed_labels(&model, &task) {
        printer.info(&note)?;
    }
    note_span_flags(&args.task.inputs, &task, printer)?;
    let ticket = args.subject.ticket.as_deref().map(Ticket::read).transpose()?;
    let masks = ticket.map(|ticket| model.masks_of(&ticket, args.subject.allow_other_base)).transpose()?;
    let longest = model.model.config.max_length();
    let mut settings = model.input_settings(&task)?;
    resolve::inputs(&mut settings, &args.task.inputs, longest);
    settings.validate(longest)?;

    let compute = resolve::compute(&args.common);
    let mut examples = 0;
    let mut result = Map::new();
    let mut files = Vec::new();
    let mut table = Table::new(&["measure", "value"]);
    if !task.has(Split::Dev) {
        return Err(tamt_data::Error::NoSuchSplit { task: task.name.clone(), split: Split::Dev.name() }.into());
    }
    for split in task.dev_splits() {
        let heartbeat = Heartbeat::start(printer, "reading the task");
        let inputs = Inputs::read(&task, directory(&args.task), split, &model.tokenizer, &settings)?;
        drop(heartbeat);
        for note in &inputs.notes {
            printer.info(note)?;
        }
        examples += inputs.examples();
        files.push((split, inputs.files.clone()));
        let mut counter = Counter::new(printer, "eval", "sequences", inputs.sequences());
        let answers = Answers::predict(&model.model, masks.as_ref(), compute, &task, &inputs, &settings, |done| {
            counter.at(done)
        })?;
        drop(counter);
        table.row([format!("examples ({})", split.name()), grouped(inputs.examples() as u64)]);
        for (name, value) in answers.metrics(&task, &inputs)? {
            table.row([name.to_string(), metric(value)]);
            result.insert(name.into_owned(), json!(value));
        }
        for note in answers.notes(&task, &inputs)? {
            printer.info(&note)?;
        }
    }
    result.insert("task".into(), json!(task.name));
    result.insert("examples".into(), json!(examples));
    let result = Value::Object(result);
    let recorded = || {
        let mut recorded = toml::Table::try_from(settings)?;
        kept::add_digests_of_model(&mut recorded, &model.sha256, &model.tokenizer);
        match &args.task.task_file {
            Some(path) => {
                recorded.insert("task-file".to_owned(), recorded_path::path(path).into());
                recorded.insert("task-file-sha256".to_owned(), sha256_file(path)?.into());
            }
            None => drop(recorded.insert("task".to_owned(), task.name.clone().into())),
        }
        recorded.insert("data".to_owned(), recorded_path::path(directory(&args.task)).into());
        for (split, files) in files {
            recorded.insert(format!("{}-sha256", split.name()), digests(&files)?.into());
        }
        if let Some(labels) = labels(&args.task) {
            recorded.insert("labels".to_owned(), labels.to_vec().into());
        }
        Ok(recorded)
    };
    kept::write(args, recorded, &result)?;
    printer.result(&result, &table.render())
}

/// The SHA-256 of each of the files of a split.
pub(super) fn digests(files: &[PathBuf]) -> Result<Vec<String>> {
    files.iter().map(|path| Ok(sha256_file(path)?)).collect()
}
