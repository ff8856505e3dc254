//! The time and the disk space of runs, from a short measurement of this machine.
//!
//! A run's time is the number of its tokens times the time of a token, which `tamt bench` measures in a batch of about a
//! thousand tokens at about the run's length. Texts are not tokenized for an estimate: a token is taken for 4.4 bytes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tamt::Compute;
use tamt::bench::{BenchSettings, Subject, Work, bench};
use tamt::evaluate::EvalConditions;
use tamt::find::{FindSettings, Method};
use tamt::prune::Sparsity;
use tamt::tune::{KeptModel, TuneSettings};
use tamt_data::squad::Dataset;
use tamt_data::tasks::{Head, Split, Task, read};
use tamt_model::Config;
use tamt_study::run::Run;

use crate::args::Verb;
use crate::args::eval::EvalArgs;
use crate::args::find::FindArgs;
use crate::args::tune::TuneArgs;
use crate::printer::Printer;
use crate::resolve;
use crate::verbs::study::flags::parse;
use crate::verbs::study::meaning::{ModelFiles, Models};
use crate::verbs::task;

/// Bytes of text in a token, on the average of English.
const BYTES_PER_TOKEN: f64 = 4.4;

/// Tokens in a measured batch.
const MEASURED_TOKENS: usize = 1024;

/// Seconds of a run beside its steps: reading, writing.
const OVERHEAD: f64 = 1.0;

/// What a run needs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Estimate {
    /// Seconds.
    pub(super) seconds: f64,
    /// Bytes of the result.
    pub(super) bytes: f64,
    /// Bytes of checkpoints while it runs.
    pub(super) transient: f64,
}

/// Estimates, with the measurements that they share.
pub(super) struct Estimator {
    models: Models,
    printer: Printer,
    /// Seconds of a token.
    measured: RefCell<BTreeMap<Conditions, f64>>,
    /// Examples and tokens of an example, by directory, task and split.
    tasks: RefCell<BTreeMap<(PathBuf, String, &'static str), Size>>,
}

/// Model, kind of work, length, and kernel with precision.
type Conditions = (PathBuf, &'static str, usize, String);

/// The size of a split.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    sequences: f64,
    tokens: f64,
}

impl Estimator {
    pub(super) fn new(printer: Printer) -> Self {
        let (models, measured, tasks) = (Models::default(), RefCell::default(), RefCell::default());
        Self { models, printer, measured, tasks }
    }

    /// What a run needs on this machine.
    pub(super) fn of(&self, run: &Run) -> Result<Estimate> {
        let estimate = match parse(&run.command).map_err(anyhow::Error::msg)? {
            Verb::Find(args) => self.find(&args, run)?,
            Verb::Eval(args) => self.eval(&args, run.ticket.is_some())?,
            Verb::Tune(args) => self.tune(&args)?,
            _ => Estimate::default(),
        };
        Ok(Estimate { seconds: estimate.seconds + OVERHEAD, ..estimate })
    }

    fn find(&self, args: &FindArgs, run: &Run) -> Result<Estimate> {
        let goal = resolve::goal(args)?;
        let model = self.models.of(&args.model)?;
        let settings: FindSettings = goal.settings(args, model.longest, None);
        let weights = weights(&model);
        let tickets = 1.0 + (run.ticket_steps.len() + run.levels.len()) as f64;
        let bytes = tickets * weights / 8.0;
        if !settings.method.trains() {
            return Ok(Estimate { seconds: 0.0, bytes, transient: 0.0 });
        }
        let steps = settings.train.max_steps as f64;
        let tokens = steps * settings.batch_size as f64 * settings.block_size as f64;
        let token = |work| self.token(&model, work, settings.block_size, settings.compute);
        let mut seconds = tokens * token(Work::MaskTraining)?;
        if matches!(settings.method, Method::TamtKd | Method::TamtMlmKd) {
            // The teacher's forward pass.
            seconds += tokens * token(Work::Inference)?;
        }
        if !args.training.eval_corpus.is_empty() {
            let evaluations =
                1.0 + if settings.train.eval_every > 0 { steps / settings.train.eval_every as f64 } else { 0.0 };
            let text = text_tokens(&args.training.eval_corpus)?;
            seconds += 3.0 * evaluations * text * token(Work::Inference)?;
        }
        // Two checkpoints of scores and two moments.
        Ok(Estimate { seconds, bytes, transient: 2.0 * 12.0 * weights })
    }

    fn eval(&self, args: &EvalArgs, has_ticket: bool) -> Result<Estimate> {
        let model = self.models.of(&args.subject.model)?;
        let length = args.block_size.map_or(EvalConditions::default().block_size.min(model.longest), usize::from);
        let limit = args.max_tokens.map_or(f64::INFINITY, |limit| limit.get() as f64);
        let tokens = text_tokens(&args.corpus)?.min(limit);
        let asked = args.objective.map_or((true, true), |losses| (losses.mlm, losses.kd));
        let passes = f64::from(u8::from(asked.0)) + if asked.1 && has_ticket { 2.0 } else { 0.0 };
        let compute = resolve::compute(&args.common);
        let seconds = passes * tokens * self.token(&model, Work::Inference, length, compute)?;
        Ok(Estimate { seconds, bytes: 4096.0, transient: 0.0 })
    }

    fn tune(&self, args: &TuneArgs) -> Result<Estimate> {
        let declared = task::declaration(&args.task)?;
        let model = self.models.of(&args.subject.model)?;
        let settings: TuneSettings = resolve::tune(args, &declared, model.longest);
        let directory = task::directory(&args.task);
        let size = |split| self.size(&declared, directory, split, &settings);
        let mut train = size(Split::Train)?;
        if let Some(examples) = settings.train_examples {
            train.sequences = train.sequences.min(examples as f64);
        }
        let dev = declared.dev_splits().map(size).collect::<Result<Vec<_>>>()?;
        let batches = (train.sequences / settings.batch_size as f64).ceil().max(1.0);
        let steps = settings.duration.steps(batches as u64) as f64;
        let tokens = steps * settings.batch_size as f64 * train.tokens;
        let token = |work, length: f64| self.token(&model, work, length as usize, settings.compute);
        let mut seconds = tokens * token(Work::FineTuning, train.tokens)?;
        let evaluations =
            1.0 + if settings.eval_every > 0 { (steps / settings.eval_every as f64).floor() } else { 0.0 };
        for split in &dev {
            let tokens = evaluations * split.sequences * split.tokens;
            seconds += tokens * token(Work::Inference, split.tokens)?;
        }
        let predictions: f64 = dev.iter().map(|split| 40.0 * split.sequences).sum();
        let weights = weights(&model);
        let kept = if settings.keep == KeptModel::None { 0.0 } else { 4.0 * weights };
        Ok(Estimate { seconds, bytes: kept + predictions + 4096.0, transient: 2.0 * 16.0 * weights })
    }

    /// Seconds of a token in a kind of work, at about a length.
    fn token(&self, model: &ModelFiles, work: Work, length: usize, compute: Compute) -> Result<f64> {
        let length = length.next_power_of_two().clamp(16, 512).min(model.longest);
        let key = (model.directory.clone(), work.name(), length, format!("{compute:?}"));
        if let Some(&known) = self.measured.borrow().get(&key) {
            return Ok(known);
        }
        let config = Config::read(model.directory.join("config.json"))?;
        let batch_size = (MEASURED_TOKENS / length).max(1);
        let name = model.directory.display().to_string();
        let settings = BenchSettings {
            config,
            subject: Some(Subject { name, directory: model.directory.clone(), ticket: None }),
            batch_size,
            length,
            dropout: 0.1,
            sparsities: vec![Sparsity::new(0.7)?],
            kernels: vec![compute.kernel],
            work: vec![work],
            operations: false,
            warmup: 1,
            steps: 3,
            precision: compute.precision,
        };
        let report =
            bench(&settings, |_| self.printer.progress(&format!("measuring {} at {length} tokens", work.name())))?;
        let seconds = report.steps.first().map_or(0.0, tamt::bench::Timing::median);
        let token = seconds / (batch_size * length) as f64;
        self.measured.borrow_mut().insert(key, token);
        Ok(token)
    }

    /// The size of a split of a task.
    fn size(&self, task: &Task, directory: &Path, split: Split, settings: &TuneSettings) -> Result<Size> {
        let key = (directory.to_owned(), task.name.clone(), split.name());
        let longest = settings.inputs.max_length as f64;
        let capped = |size: Size| Size { tokens: size.tokens.min(longest), ..size };
        if let Some(&known) = self.tasks.borrow().get(&key) {
            return Ok(capped(known));
        }
        let (count, bytes) = match task.head {
            Head::Span { .. } => {
                let dataset = Dataset::read(task, directory, split)?;
                let context = |at: usize| dataset.contexts.get(at).map_or(0, String::len);
                let bytes =
                    dataset.questions.iter().map(|asked| context(asked.context) + asked.text.len()).sum::<usize>();
                (dataset.questions.len(), bytes)
            }
            _ => {
                let examples = read(task, directory, split)?.items;
                let bytes = |e: &tamt_data::tasks::Example| e.first.len() + e.second.as_ref().map_or(0, String::len);
                (examples.len(), examples.iter().map(bytes).sum())
            }
        };
        let sequences = count.max(1) as f64;
        let size = Size { sequences, tokens: bytes as f64 / BYTES_PER_TOKEN / sequences + 3.0 };
        self.tasks.borrow_mut().insert(key, size);
        Ok(capped(size))
    }
}

/// Weights of a model, from the size of its files in single precision.
fn weights(model: &ModelFiles) -> f64 {
    model.weights.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len() as f64).sum::<f64>() / 4.0
}

fn text_tokens(files: &[PathBuf]) -> Result<f64> {
    let bytes = files.iter().map(|path| Ok(fs::metadata(path)?.len() as f64)).sum::<Result<f64>>()?;
    Ok(bytes / BYTES_PER_TOKEN)
}
