//! Fine-tuning a ticket (or the dense model) on a task, and measuring it as the benchmarks do.
//!
//! Pruned weights stay exactly zero; everything else trains: surviving weights, biases, layer norms, embeddings, the
//! head (Liu et al. 2022, section 4.2). A run is one seed; [`summary`] puts several together.

mod best;
mod inputs;
mod loss;
mod model;
mod score;
mod settings;
mod summary;

use std::path::{Path, PathBuf};
use std::time::Instant;

pub use inputs::Inputs;
pub(crate) use inputs::Targets;
pub(crate) use loss::TaskLoss;
pub use loss::check_teacher;
pub use model::{TaskModel, kind};
pub use score::Answers;
pub use settings::{DistillSettings, Duration, InputSettings, Keep, SpanSettings, TuneSettings};
pub use summary::{is_measured, summary};

use serde_json::{Map, Value, json};
use tamt_data::tasks::{Split, Task};
use tamt_data::{LengthSampler, Tokenizer};
use tamt_model::write::atomic_write;
use tamt_model::{Batch, Masks, Model, Pass, Trainable};

use crate::inspect::Rates;
use crate::objective::StepLoss;
use crate::run::{Observer, RunDir, Stop, write_eval_results};
use crate::ticket::Ticket;
use crate::train::{Best, Learner, Method, Metrics, Session, Trained, train};
use crate::{Error, Result};
use best::BestModel;
use loss::Teacher;

/// The folder of predictions for test splits, in a run directory.
pub const TEST_PREDICTIONS_DIR: &str = "test_predictions";

/// The splits of a task that a run works with.
#[derive(Clone, Debug)]
pub struct TaskData {
    /// To train on.
    pub train: Inputs,
    /// To evaluate on: one, or both of MNLI's.
    pub dev: Vec<Inputs>,
    /// To predict at the end, where wanted.
    pub test: Vec<Inputs>,
}

impl TaskData {
    /// Reads the splits from the task's directory.
    ///
    /// # Errors
    /// Those of [`Inputs::read`]; [`Error::Setting`] if more examples are to be trained on than there are.
    pub fn read(task: &Task, dir: &Path, tokenizer: &Tokenizer, settings: &TuneSettings) -> Result<Self> {
        let read = |split| Inputs::read(task, dir, split, tokenizer, &settings.inputs);
        let test =
            if settings.predict_test { task.test_splits().map(read).collect::<Result<_>>()? } else { Vec::new() };
        let train = read(Split::Train)?;
        if let Some(n) = settings.train_examples
            && n > train.examples()
        {
            let reason = format!("{n} are more than the {} of the training set", train.examples());
            return Err(Error::setting("train-examples", reason));
        }
        Ok(Self { train, dev: task.dev_splits().map(read).collect::<Result<_>>()?, test })
    }

    /// Everything that was read.
    pub fn all(&self) -> impl Iterator<Item = &Inputs> {
        std::iter::once(&self.train).chain(&self.dev).chain(&self.test)
    }
}

/// What a finished fine-tuning has to say.
#[derive(Clone, Debug)]
pub struct Tuned {
    output_dir: PathBuf,
    task: String,
    primary: &'static str,
    seed: u64,
    examples: usize,
    steps: u64,
    seconds: f64,
    metrics: Metrics,
    best: Option<Best>,
    best_metrics: Vec<(String, f64)>,
    rates: Option<Rates>,
}

impl Tuned {
    /// The result as `--json` prints it and `eval_results.json` holds it: the final evaluation by name, the best one
    /// with `best_` before each name.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("output_dir".into(), json!(self.output_dir));
        map.insert("task".into(), json!(self.task));
        map.insert("seed".into(), json!(self.seed));
        map.insert("train_examples".into(), json!(self.examples));
        map.insert("steps".into(), json!(self.steps));
        map.insert("seconds".into(), json!(self.seconds));
        map.insert("primary_metric".into(), json!(self.primary));
        for (name, value) in &self.metrics {
            map.insert(name.to_string(), json!(value));
        }
        map.insert("best_step".into(), json!(self.best.map(|best| best.step)));
        for (name, value) in &self.best_metrics {
            map.insert(format!("best_{name}"), json!(value));
        }
        map.insert("sparsity".into(), json!(self.rates.as_ref().map_or(0.0, |rates| rates.sparsity)));
        map.insert("encoder_sparsity".into(), json!(self.rates.as_ref().map_or(0.0, |rates| rates.encoder_sparsity)));
        map
    }
}

/// Fine-tunes `base` on `task` with the ticket's zeros, and leaves a directory that `transformers` loads, with results
/// and predictions, in the run directory.
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
    directory: RunDir,
    observer: &mut dyn Observer,
    stop: Stop,
) -> Result<Tuned> {
    let started = Instant::now();
    settings.validate(base.model.config.max_length())?;
    let TaskModel { mut model, tokenizer, .. } = base;
    let (rates, masks) = match ticket {
        Some((ticket, masks)) => (Some(Rates::of(ticket, Some(&model))), Some(masks)),
        None => (None, None),
    };
    for (id, mask) in masks.iter().flat_map(Masks::iter) {
        mask.mask_in_place(model.params.get_mut(id));
    }
    let teacher = match (teacher, settings.distillation) {
        (Some(teacher), Some(distill)) => Some(Teacher::new(teacher, &model, distill, settings.compute)?),
        _ => None,
    };
    let subset = match settings.train_examples {
        Some(n) => Some(data.train.subset(task, n, settings.seed, &tokenizer, &settings.inputs)?),
        None => None,
    };
    let train_inputs = subset.as_ref().unwrap_or(&data.train);
    let sampler = LengthSampler::new(train_inputs.lengths(), settings.batch_size, settings.seed)?;
    let training = settings.training(sampler.batches_per_epoch());

    let trainable = Trainable::weights(&model, masks.as_ref());
    let mut learner = Learner::new(&mut model, masks, None, &trainable, settings.optimizer);
    if learner.masks.is_some() {
        learner = learner.with_kernel(settings.compute.kernels(), settings.compute.precision);
    }
    let mut method = Tuning {
        task,
        train: train_inputs,
        dev: &data.dev,
        settings,
        sampler,
        loss: TaskLoss::new(settings.seed, settings.dropout, settings.compute, teacher),
        batch: Batch::default(),
        best: BestModel::new(task.primary.key(), settings.keep == Keep::Best),
        last: None,
    };
    let mut session = Session { directory, observer, stop };
    let stage = format!("tune {}", task.name);
    let trained = train(&mut method, &mut learner, &training, &stage, &mut session)?;
    let Tuning { best, last, .. } = method;
    let masks = learner.masks.take();

    let kept_step = if settings.keep == Keep::Best {
        best.put_into(&mut model);
        best.best().map_or(trained.steps, |best| best.step)
    } else {
        trained.steps
    };
    let directory = session.directory;
    let answers = match last {
        // The kept model is the last one that was evaluated.
        Some((step, answers)) if step == kept_step => answers,
        _ => evaluate_all(&model, masks.as_ref(), task, &data.dev, settings)?,
    };
    write_predictions(task, &answers, &data.dev, &directory)?;
    let test = evaluate_all(&model, masks.as_ref(), task, &data.test, settings)?;
    write_submissions(task, &test, &data.test, &directory)?;

    let Trained { metrics, steps, mut state, .. } = trained;
    state.train_batch_size = Some(settings.batch_size as u64);
    state.write(directory.path())?;
    if settings.keep != Keep::None {
        model::describe_head(&mut model, task);
        model.use_default_names();
        tokenizer.save_to(directory.path())?;
        model.save(directory.path())?;
    }
    let tuned = Tuned {
        output_dir: directory.path().to_owned(),
        task: task.name.clone(),
        primary: task.primary.key(),
        seed: settings.seed,
        examples: train_inputs.examples(),
        steps,
        seconds: started.elapsed().as_secs_f64(),
        metrics,
        best: best.best(),
        best_metrics: best.metrics().to_vec(),
        rates,
    };
    write_eval_results(directory.path(), &tuned.to_json())?;
    directory.discard_training_state_before(u64::MAX)?;
    Ok(tuned)
}

fn evaluate_all(
    model: &Model,
    masks: Option<&Masks>,
    task: &Task,
    splits: &[Inputs],
    settings: &TuneSettings,
) -> Result<Vec<Answers>> {
    splits
        .iter()
        .map(|inputs| Answers::of(model, masks, settings.compute, task, inputs, &settings.inputs, |_| ()))
        .collect()
}

fn write_predictions(task: &Task, answers: &[Answers], splits: &[Inputs], directory: &RunDir) -> Result<()> {
    for (answers, inputs) in answers.iter().zip(splits) {
        for (name, text) in answers.files(task, inputs)? {
            atomic_write(&directory.file(&name), |file| file.write_all(text.as_bytes()))?;
        }
    }
    Ok(())
}

fn write_submissions(task: &Task, answers: &[Answers], splits: &[Inputs], directory: &RunDir) -> Result<()> {
    let folder = directory.file(TEST_PREDICTIONS_DIR);
    for (answers, inputs) in answers.iter().zip(splits) {
        std::fs::create_dir_all(&folder).map_err(Error::io("create directory", &folder))?;
        for (name, text) in answers.submission(task, inputs)? {
            atomic_write(&folder.join(name), |file| file.write_all(text.as_bytes()))?;
        }
    }
    Ok(())
}

struct Tuning<'a> {
    task: &'a Task,
    train: &'a Inputs,
    dev: &'a [Inputs],
    settings: &'a TuneSettings,
    sampler: LengthSampler,
    loss: TaskLoss<'a>,
    batch: Batch,
    best: BestModel,
    /// The last evaluation: after so many steps.
    last: Option<(u64, Vec<Answers>)>,
}

impl Method for Tuning<'_> {
    fn gradients(&mut self, learner: &mut Learner<'_>, step: u64) -> Result<StepLoss> {
        let chosen = self.sampler.batch(step);
        let Learner { model, masks, sparse, grads, .. } = learner;
        self.train.fill(&chosen, &model.config, &mut self.batch);
        let targets =
            self.train.targets(&chosen).ok_or_else(|| Error::setting("data", "the training set has no labels"))?;
        let pass = Pass::new(masks.as_ref(), sparse.as_ref());
        Ok(self.loss.loss_and_gradients(model, pass, &self.batch, &targets, step, grads))
    }

    fn evaluate(&mut self, learner: &mut Learner<'_>, done: u64) -> Result<Metrics> {
        let answers = evaluate_all(learner.model, learner.masks.as_ref(), self.task, self.dev, self.settings)?;
        let mut metrics = Metrics::new();
        for (answers, inputs) in answers.iter().zip(self.dev) {
            metrics.extend(answers.metrics(self.task, inputs)?);
        }
        self.best.see(done, &metrics, learner.model);
        self.last = Some((done, answers));
        Ok(metrics)
    }

    fn best(&self) -> Option<Best> {
        self.best.best()
    }

    fn is_exhausted(&self) -> bool {
        self.settings.early_stopping.is_some_and(|patience| self.best.since() >= patience)
    }

    fn save(&self, _: &Learner<'_>, directory: &Path, _: u64) -> Result<()> {
        self.best.write(directory)
    }

    fn restore(&mut self, learner: &Learner<'_>, directory: &Path) -> Result<()> {
        self.best.read(directory, learner.model)
    }

    fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch()
    }
}
