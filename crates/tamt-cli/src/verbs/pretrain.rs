//! `tamt pretrain`: a new encoder, or more training for a given one.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tamt::base::{Base, check_vocabulary};
use tamt::pretrain::{PretrainSettings, Train, pretrain};
use tamt::run::{RunDir, read_eval_results};
use tamt_data::Tokenizer;
use tamt_model::digest::sha256_file;
use tamt_model::{Config, Model, Parts, hub};

use super::shared;
use crate::args::PretrainArgs;
use crate::printer::Printer;
use crate::progress::{Progress, duration};
use crate::record::Record;
use crate::{resolve, signals};

/// What training starts from.
enum Origin<'a> {
    /// A model that there is.
    Given(Box<Base>),
    /// A model to be made.
    New { path: &'a Path, config: Config, tokenizer: Tokenizer, sha256: String },
}

pub(super) fn run(args: &PretrainArgs, printer: Printer) -> Result<()> {
    RunDir::check(&args.output_dir, args.training.resume)?;
    let origin = origin(args)?;
    let (tokenizer, config) = match &origin {
        Origin::Given(base) => (&base.tokenizer, &base.model.config),
        Origin::New { tokenizer, config, .. } => (tokenizer, config),
    };
    let texts = shared::read_texts(tokenizer, &args.corpus, &args.training.eval_corpus, printer)?;
    let (settings, defaults) = resolve::pretrain(args, config.max_length());

    let mut record = Record::new("pretrain", &settings, &defaults)?;
    match &origin {
        Origin::Given(base) => record.model("model", &base.name, &base.sha256),
        Origin::New { path, sha256, .. } => record.model("new", &path.display().to_string(), sha256),
    }
    record.tokenizer(tokenizer)?;
    record.texts(&texts, &args.corpus, &args.training.eval_corpus);
    let directory = RunDir::create(&args.output_dir, record.table(), args.training.resume)?;
    if directory.finished() {
        printer.info("this run has finished; its result was:")?;
        let json = read_eval_results(&args.output_dir)?;
        return show(json, &args.output_dir, printer);
    }
    record.announce(printer, &headline(&settings, &origin), &args.output_dir)?;

    let stop = signals::stop_on_signals(printer)?;
    let (model, tokenizer) = match origin {
        Origin::Given(base) => (base.model, base.tokenizer),
        Origin::New { path, config, tokenizer, .. } => {
            let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, settings.seed);
            check_vocabulary(&model, &tokenizer, path)?;
            (model, tokenizer)
        }
    };
    let mut progress = Progress::new(printer);
    let trained = pretrain(model, &tokenizer, &texts, &settings, directory, &mut progress, stop)?;
    drop(progress);
    show(trained.to_json(&args.output_dir), &args.output_dir, printer)
}

fn origin(args: &PretrainArgs) -> Result<Origin<'_>> {
    match (&args.new, &args.tokenizer, &args.model) {
        (Some(path), Some(tokenizer), _) => {
            let config = Config::read(path).map_err(tamt::Error::from)?;
            let sha256 = sha256_file(path).map_err(tamt::Error::from)?;
            let directory = hub::resolve(tokenizer).map_err(tamt::Error::from)?;
            let tokenizer = Tokenizer::from_dir(&directory).map_err(tamt::Error::from)?;
            Ok(Origin::New { path, config, tokenizer, sha256 })
        }
        (_, _, Some(model)) => Ok(Origin::Given(Box::new(Base::load(model)?))),
        _ => unreachable!("the command line requires --model, or --new with --tokenizer"),
    }
}

fn headline(settings: &PretrainSettings, origin: &Origin<'_>) -> String {
    let what = match (settings.part, origin) {
        (_, Origin::New { .. }) => "a new model",
        (Train::All, _) => "all weights",
        (Train::Head, _) => "the MLM head",
    };
    format!("pre-training {what}, {} steps", settings.train.max_steps)
}

fn show(json: serde_json::Map<String, Value>, output_dir: &Path, printer: Printer) -> Result<()> {
    let number = |key: &str| json.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let mut text = shared::metrics_line(&json).map_or_else(String::new, |metrics| format!("{metrics}\n"));
    text.push_str(&format!("{} steps in {}\n", number("steps"), duration(number("seconds"))));
    text.push_str(&format!("model: {}\n", output_dir.display()));
    printer.result(&Value::Object(json), &text)
}
