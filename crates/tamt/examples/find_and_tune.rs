//! Finds a ticket by mask training and fine-tunes the ticket on a task.
//!
//! An invented language stands for your corpus, its task `rte` for your task, and random weights for your pre-trained
//! encoder, so the example runs offline in seconds. The ticket of such a small, untrained model is of no use.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;

use tamt::base::Base;
use tamt::demo::{DemoSettings, TASKS_DIR, TRAIN_FILE, VALID_FILE, write_data};
use tamt::find::{FindSettings, Method, Texts, find};
use tamt::prune::Sparsity;
use tamt::run::{RunDir, Silent, Stop};
use tamt::ticket::Ticket;
use tamt::train::Session;
use tamt::tune::{TaskData, TaskModel, TrainingLength, TuneSettings, tune};
use tamt_data::Tokenizer;
use tamt_data::tasks::Task;
use tamt_model::{HeadStart, Model, Parts, Storage};

/// Writes texts, the files of tasks and, in `model/`, a random model with its tokenizer.
fn write_inputs(root: &Path) -> Result<(), Box<dyn Error>> {
    let sizes =
        DemoSettings { train_tokens: 3000, valid_tokens: 500, task_train: 32, task_dev: 16, ..Default::default() };
    write_data(&sizes, root)?;
    let tokenizer = Tokenizer::from_dir(&root.join("tokenizer"))?;
    let shape = DemoSettings { hidden_size: 32, layers: 2, heads: 2, ..sizes };
    let parts = Parts { pooler: true, mlm_head: true, task: None };
    std::fs::create_dir(root.join("model"))?;
    Model::random(shape.config(tokenizer.vocab_size())?, parts, 42).save(&root.join("model"))?;
    Ok(tokenizer.save_to(&root.join("model"))?)
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    write_inputs(root)?;
    let model = root.join("model");
    let model = model.to_str().ok_or("the directory is not Unicode")?;

    // A ticket with 30 % of the weights: masks trained on masked language modelling, for 10 steps.
    let base = Base::load(model)?;
    let texts = Texts::read(&base, &[root.join(TRAIN_FILE)], &[root.join(VALID_FILE)])?;
    let mut settings = FindSettings::new(Method::TamtMlm, Sparsity::new(0.7)?, 10);
    settings.block_size = 32;
    let run = RunDir::create(&root.join("ticket"), &settings, false)?;
    let session = Session { directory: run, observer: &mut Silent, stop: Stop::new() };
    let found = find(base, &texts, &settings, session)?;
    let loss = found.evaluation.and_then(|evaluation| evaluation.mlm_loss).ok_or("no token was masked")?;
    println!("ticket: sparsity {:.3}, MLM loss {loss:.3}", found.rates.sparsity);

    // Fine-tuning the ticket for one epoch. Dropped weights stay zero.
    let task = Task::by_name("rte").ok_or("there is no task rte")?;
    let base = TaskModel::load(model, task, HeadStart::Random(1), None, Storage::Dense)?;
    let ticket = Ticket::read(&root.join("ticket"))?;
    let masks = base.masks_of(&ticket, false)?;
    let mut settings = TuneSettings::new(task);
    settings.duration = TrainingLength::Epochs(1.0);
    settings.batch_size = 8;
    settings.inputs.max_length = 64;
    let data = TaskData::read(task, &root.join(TASKS_DIR), &base.tokenizer, &settings)?;
    let run = RunDir::create(&root.join("rte"), &settings, false)?;
    let session = Session { directory: run, observer: &mut Silent, stop: Stop::new() };
    let tuned = tune(task, base, Some((&ticket, masks)), None, &data, &settings, session)?;
    println!("{}: {}", task.name, serde_json::to_string_pretty(&tuned.to_json())?);
    Ok(())
}
