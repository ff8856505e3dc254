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
struct Origin {
    model: Model,
    tokenizer: Tokenizer,
    /// Whether the model was made for this run.
    is_new: bool,
    /// The model's name, or the file of its configuration.
    name: String,
    /// The digest of its weights, or of that file.
    sha256: String,
}

pub(super) fn run(args: &PretrainArgs, printer: Printer) -> Result<()> {
    RunDir::check(&args.output_dir, args.training.run.resume)?;
    let origin = Origin::of(args)?;
    let texts = shared::read_texts(&origin.tokenizer, &args.corpus, &args.training.eval_corpus, printer)?;
    let (settings, defaults) = resolve::pretrain(args, origin.model.config.max_length());

    let mut record = Record::new("pretrain", &settings, &defaults)?;
    record.model(if origin.is_new { "new" } else { "model" }, &origin.name, &origin.sha256);
    record.tokenizer(&origin.tokenizer)?;
    record.texts(&texts, &args.corpus, &args.training.eval_corpus);
    let directory = RunDir::create(&args.output_dir, record.table(), args.training.run.resume)?;
    if directory.finished() {
        printer.info("this run has finished; its result was:")?;
        let json = read_eval_results(&args.output_dir)?;
        return show(json, &args.output_dir, printer);
    }
    record.announce(printer, &headline(&settings, origin.is_new), &args.output_dir)?;

    let stop = signals::stop_on_signals(printer)?;
    let mut progress = Progress::new(printer);
    let trained = pretrain(origin.model, &origin.tokenizer, &texts, &settings, directory, &mut progress, stop)?;
    drop(progress);
    show(trained.to_json(&args.output_dir), &args.output_dir, printer)
}

impl Origin {
    fn of(args: &PretrainArgs) -> Result<Self> {
        match (&args.new, &args.tokenizer, &args.model) {
            (Some(path), Some(tokenizer), _) => Self::new(args, path, tokenizer),
            (_, _, Some(name)) => {
                let Base { model, tokenizer, name, sha256, .. } = Base::load(name)?;
                Ok(Self { model, tokenizer, is_new: false, name, sha256 })
            }
            _ => unreachable!("the command line requires --model, or --new with --tokenizer"),
        }
    }

    fn new(args: &PretrainArgs, path: &Path, tokenizer: &str) -> Result<Self> {
        let config = Config::read(path).map_err(tamt::Error::from)?;
        let sha256 = sha256_file(path).map_err(tamt::Error::from)?;
        let directory = hub::resolve(tokenizer).map_err(tamt::Error::from)?;
        let tokenizer = Tokenizer::from_dir(&directory).map_err(tamt::Error::from)?;
        let (settings, _) = resolve::pretrain(args, config.max_length());
        let model = Model::random(config, Parts { pooler: true, mlm_head: true, task: None }, settings.seed);
        check_vocabulary(&model, &tokenizer, &directory)?;
        Ok(Self { model, tokenizer, is_new: true, name: path.display().to_string(), sha256 })
    }
}

fn headline(settings: &PretrainSettings, is_new: bool) -> String {
    let what = match settings.part {
        _ if is_new => "a new model",
        Train::All => "all weights",
        Train::Head => "the MLM head",
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
