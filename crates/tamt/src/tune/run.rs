//! A fine-tuning run: from a model and the data of a task to a directory that `transformers` loads.

use std::path::Path;
use std::time::Instant;

use tamt_data::Tokenizer;
use tamt_data::tasks::Task;
use tamt_model::write::atomic_write;
use tamt_model::{Masks, Model};

use crate::error::Result;
use crate::inspect::Rates;
use crate::run::{RunDir, create_folder, write_eval_results};
use crate::ticket::Ticket;
use crate::train::{Session, Watch, watch};
use crate::tune::answers::{Answers, predict_all};
use crate::tune::inputs::TaskData;
use crate::tune::model::{TaskModel, describe_head};
use crate::tune::result::Tuned;
use crate::tune::settings::{InputSettings, KeptModel, TuneSettings};
use crate::tune::teacher::Teacher;
use crate::tune::training::Tuning;

/// The folder of predictions for test splits, in a run directory.
pub const TEST_PREDICTIONS_DIR: &str = "test_predictions";

/// Fine-tunes `base` on `task` with the ticket's zeros. The run directory then holds the model in Hugging Face layout,
/// the results and the predictions.
///
/// # Errors
/// If settings do not fit the model or the data, the run is stopped, a loss is not finite, or a file cannot be written.
pub fn tune(
    task: &Task,
    base: TaskModel,
    ticket: Option<(&Ticket, Masks)>,
    teacher: Option<&Model>,
    data: &TaskData,
    settings: &TuneSettings,
    mut session: Session<'_>,
) -> Result<Tuned> {
    let started = Instant::now();
    settings.validate(base.model.config.max_length())?;
    let TaskModel { mut model, tokenizer, .. } = base;
    let (rates, masks) = ticket.map(|(ticket, masks)| (Rates::of(ticket, Some(&model)), masks)).unzip();
    for (id, mask) in masks.iter().flat_map(Masks::iter) {
        mask.mask_in_place(model.params.get_mut(id));
    }
    let distillation = teacher.zip(settings.distillation);
    let teacher = distillation.map(|(teacher, distill)| Teacher::new(teacher, &model, distill, settings.compute));
    let subset = |n| data.train.subset(task, n, settings.seed, &tokenizer, &settings.inputs);
    let subset = settings.train_examples.map(subset).transpose()?;
    let train_inputs = subset.as_ref().unwrap_or(&data.train);
    let mut tuning = Tuning::new(task, train_inputs, &data.dev, settings, teacher.transpose()?)?;
    let (mut trained, masks) = tuning.train(&mut model, masks, &mut session)?;
    let length = tuning.length();
    let Tuning { best, last, .. } = tuning;
    let mut kept_step = trained.steps;
    if settings.keep == KeptModel::Best {
        best.restore_weights(&mut model);
        kept_step = best.best().map_or(trained.steps, |best| best.step);
    }
    let Session { directory, observer, stop } = session;
    if settings.keep != KeptModel::None {
        write_model(&mut model, &tokenizer, task, &settings.inputs, directory.path())?;
    }
    trained.write_record(&directory)?;
    let evaluated = last.filter(|(step, _)| *step == kept_step).map(|(_, answers)| answers);
    let mut watch = watch(&directory, observer, &stop, trained.steps);
    let notes = write_predictions(task, &model, masks.as_ref(), data, settings, evaluated, &directory, &mut watch)?;
    drop(watch);
    notes.iter().for_each(|note| observer.note(note));
    let tuned = Tuned {
        output_dir: directory.path().to_owned(),
        task: task.name.clone(),
        primary: task.primary.key(),
        seed: settings.seed,
        examples: train_inputs.examples(),
        steps: trained.steps,
        seconds: started.elapsed().as_secs_f64() + trained.seconds_before(),
        metrics: trained.metrics.clone(),
        best: best.best(),
        best_metrics: best.metrics().to_vec(),
        rates,
    };
    write_eval_results(directory.path(), &tuned.to_json())?;
    trained.retire_checkpoints(&length, &directory)?;
    Ok(tuned)
}

/// Writes the model with its tokenizer. The weights come first: a failure to write another file does not cost them.
fn write_model(
    model: &mut Model,
    tokenizer: &Tokenizer,
    task: &Task,
    inputs: &InputSettings,
    directory: &Path,
) -> Result<()> {
    describe_head(model, task, inputs);
    model.use_default_names();
    model.save(directory)?;
    tokenizer.save_to(directory)?;
    Ok(())
}

/// Writes the predictions for the development and test splits, and returns notes about scores of chance. `evaluated` are
/// the answers to the development splits, if the training ended with an evaluation of the same weights.
fn write_predictions(
    task: &Task,
    model: &Model,
    masks: Option<&Masks>,
    data: &TaskData,
    settings: &TuneSettings,
    evaluated: Option<Vec<Answers>>,
    directory: &RunDir,
    watch: &mut Watch<'_>,
) -> Result<Vec<String>> {
    let dev = match evaluated {
        Some(answers) => answers,
        None => predict_all(model, masks, task, &data.dev, settings, watch)?,
    };
    let mut notes = Vec::new();
    for (answers, inputs) in dev.iter().zip(&data.dev) {
        notes.extend(answers.notes(task, inputs)?);
        write_files(directory.path(), answers.files(task, inputs)?)?;
    }
    let test = predict_all(model, masks, task, &data.test, settings, watch)?;
    for (answers, inputs) in test.iter().zip(&data.test) {
        let folder = create_folder(directory.path(), TEST_PREDICTIONS_DIR)?;
        write_files(&folder, answers.submission(task, inputs)?)?;
    }
    Ok(notes)
}

fn write_files(folder: &Path, files: Vec<(String, String)>) -> Result<()> {
    for (name, text) in files {
        atomic_write(&folder.join(name), |file| file.write_all(text.as_bytes()))?;
    }
    Ok(())
}
