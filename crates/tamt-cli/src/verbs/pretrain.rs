//! `tamt pretrain`: trains a new encoder, or trains a given one further.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use tamt::base::{Base, check_vocabulary};
use tamt::pretrain::{PretrainSettings, Train, pretrain};
use tamt::run::RunDir;
use tamt::train::Session;
use tamt_data::Tokenizer;
use tamt_model::digest::sha256_file;
use tamt_model::{Config, Model, Parts, hub};

use crate::args::pretrain::PretrainArgs;
use crate::printer::Printer;
use crate::progress::Heartbeat;
use crate::record::Record;
use crate::recorded_path;
use crate::resolve;
use crate::signals::Signals;
use crate::verbs::shared;
use crate::watch::observer;

/// The model that training starts from.
struct Origin {
    model: Model,
    tokenizer: Tokenizer,
    /// The model's directory; `None` for a new model, whose weights are random.
    directory: Option<PathBuf>,
    /// The digest of the weights, or of the configuration file.
    sha256: String,
}

pub(super) fn run(args: &PretrainArgs, printer: Printer) -> Result<()> {
    let signals = Signals::listen(printer)?;
    signals.quietly(|| RunDir::check(&args.output_dir, args.training.run.resume))?;
    if let Some(name) = args.tokenizer.as_deref().or(args.model.as_deref()) {
        shared::note_hub_id(name, printer);
    }
    let heartbeat = Heartbeat::start(printer, "reading the model");
    let origin = Origin::of(args)?;
    drop(heartbeat);
    shared::notes(&origin.model, printer)?;
    let texts = shared::read_texts(&origin.tokenizer, &args.corpus, &args.training.eval_corpus, printer)?;
    let (settings, defaults) = resolve::pretrain(args, origin.model.config.max_length());

    let mut record = Record::new("pretrain", &settings, &defaults)?;
    match (&args.new, &args.model) {
        (Some(config), _) => record.new_model(config, &origin.sha256),
        (None, model) => record.model(model.as_deref().unwrap_or_default(), &origin.sha256),
    }
    record.tokenizer(&origin.tokenizer);
    record.texts(&texts, &args.corpus, &args.training.eval_corpus);
    if let Some(tokenizer) = &args.tokenizer {
        record.set("tokenizer", recorded_path::model(tokenizer));
    }
    let resume = args.training.run.resume;
    let directory = shared::open(&args.output_dir, record.table(), &record, resume, &signals, printer)?;
    if let Some(json) = shared::finished(&directory, |steps| settings.train.schedule.goes_on_after(steps), printer)? {
        return show(json, &args.output_dir, printer);
    }
    record.announce(printer, &headline(&settings, origin.directory.is_none()), &args.output_dir)?;
    shared::note_kernel(&args.common, printer)?;

    let mut progress = observer(printer);
    let session = Session { directory, observer: &mut *progress, stop: signals.stop() };
    let Origin { model, tokenizer, directory: source, .. } = origin;
    let trained = pretrain(model, &tokenizer, source.as_deref(), &texts, &settings, session)?;
    drop(progress);
    show(trained.to_json(&args.output_dir), &args.output_dir, printer)
}

impl Origin {
    fn of(args: &PretrainArgs) -> Result<Self> {
        match (&args.new, &args.tokenizer, &args.model) {
            (Some(path), Some(tokenizer), _) => Self::new(args, path, tokenizer),
            (_, _, Some(name)) => {
                let Base { model, tokenizer, directory, sha256, .. } = Base::load(name)?;
                Ok(Self { model, tokenizer, directory: Some(directory), sha256 })
            }
            _ => unreachable!("the command line requires --model, or --new with --tokenizer"),
        }
    }

    fn new(args: &PretrainArgs, path: &Path, tokenizer: &OsStr) -> Result<Self> {
        let config = Config::read(path)?;
        config.check_memory()?;
        let sha256 = sha256_file(path)?;
        let directory = match hub::resolve(tokenizer) {
            // A tokenizer needs no model beside it.
            Err(tamt_model::Error::NotAModel { path, .. }) if has_tokenizer(&path) => path,
            resolved => resolved?,
        };
        let tokenizer = Tokenizer::from_dir(&directory)?;
        let (settings, _) = resolve::pretrain(args, config.max_length());
        let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, settings.seed);
        check_vocabulary(&model, &tokenizer, &directory)?;
        Ok(Self { model, tokenizer, directory: None, sha256 })
    }
}

/// Whether a directory holds a tokenizer's vocabulary.
fn has_tokenizer(directory: &Path) -> bool {
    ["tokenizer.json", "vocab.txt", "vocab.json"].iter().any(|name| directory.join(name).is_file())
}

fn headline(settings: &PretrainSettings, is_new: bool) -> String {
    let what = match settings.part {
        _ if is_new => "a new model",
        Train::All => "all weights",
        Train::Head => "the MLM head",
    };
    let batch = shared::batch(settings.batch_size, settings.block_size);
    format!("pre-training {what}, {} steps of {batch}", settings.train.max_steps)
}

fn show(json: serde_json::Map<String, Value>, output_dir: &Path, printer: Printer) -> Result<()> {
    let mut text = shared::metrics_line(&json).map_or_else(String::new, |metrics| format!("{metrics}\n"));
    text.push_str(&shared::steps_line(&json));
    text.push_str(&format!("model: {}\n", output_dir.display()));
    printer.result(&Value::Object(json), &text)
}
