//! What `tune` and `eval` do with a task: its declaration and its directory, and evaluating a tuned model on it.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};
use tamt::ticket::Ticket;
use tamt::tune::{Answers, InputSettings, Inputs, TaskModel};
use tamt_data::tasks::{Split, Task};
use tamt_model::HeadStart;

use crate::args::EvalArgs;
use crate::args::tune::TaskArgs;
use crate::exit::UsageError;
use crate::printer::{Printer, Table, grouped, metric};
use crate::progress::Counter;
use crate::resolve;

/// The task that was named or declared.
pub(super) fn declaration(args: &TaskArgs) -> Result<Cow<'static, Task>> {
    if let Some(path) = &args.task_file {
        return Ok(Cow::Owned(Task::from_file(path).map_err(tamt::Error::from)?));
    }
    let name = args.task.as_deref().unwrap_or_default();
    let task = Task::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = Task::all().iter().map(|task| task.name.as_str()).collect();
        UsageError(format!("--task: there is no task {name:?}; known are {}", known.join(", ")))
    })?;
    Ok(Cow::Borrowed(task))
}

/// The directory of its files; the command line requires one.
pub(super) fn directory(args: &TaskArgs) -> &Path {
    args.data.as_deref().unwrap_or(Path::new("."))
}

/// `tamt eval --task`: scores of a fine-tuned model on the task's development set.
pub(super) fn evaluate(args: &EvalArgs, printer: Printer) -> Result<()> {
    let task = declaration(&args.task)?;
    let model = TaskModel::load(&args.subject.model, &task, HeadStart::Checkpoint)?;
    let masks = match &args.subject.ticket {
        Some(path) => Some(model.masks_of(&Ticket::read(path)?, args.subject.allow_other_base)?),
        None => None,
    };
    let longest = model.model.config.max_length();
    let mut settings = InputSettings::new(&task);
    resolve::inputs(&mut settings, &args.task, longest);
    settings.validate(longest)?;

    let compute = resolve::compute(&args.common);
    let mut examples = 0;
    let mut result = Map::new();
    let mut table = Table::new(&["measure", "value"]);
    if !task.has(Split::Dev) {
        let error = tamt_data::Error::NoSuchSplit { task: task.name.clone(), split: Split::Dev.name() };
        return Err(tamt::Error::from(error).into());
    }
    for split in task.dev_splits() {
        let inputs = Inputs::read(&task, directory(&args.task), split, &model.tokenizer, &settings)?;
        for note in &inputs.notes {
            printer.info(note)?;
        }
        examples += inputs.examples();
        let mut counter = Counter::new(printer, "eval", "sequences", inputs.sequences());
        let answers = Answers::of(&model.model, masks.as_ref(), compute, &task, &inputs, &settings, |done| {
            counter.at(done);
        })?;
        drop(counter);
        table.row([format!("examples ({})", split.name()), grouped(inputs.examples() as u64)]);
        for (name, value) in answers.metrics(&task, &inputs)? {
            table.row([name.to_string(), metric(value)]);
            result.insert(name.into_owned(), json!(value));
        }
    }
    result.insert("task".into(), json!(task.name));
    result.insert("examples".into(), json!(examples));
    printer.result(&Value::Object(result), &table.render())
}
