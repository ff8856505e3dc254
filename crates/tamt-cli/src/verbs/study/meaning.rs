//! The meaning of a run's flags for its identity: resolved settings and input files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tamt::base::check_length_up_to;
use tamt::evaluate::{EvalConditions, EvalLosses};
use tamt::find::MaskInit;
use tamt::ticket::Ticket;
use tamt_data::Tokenizer;
use tamt_data::tasks::{Split, Task, files_of};
use tamt_model::{Checkpoint, Config};
use tamt_study::commands::{Input, Resolved};

use crate::args::Verb;
use crate::args::eval::EvalArgs;
use crate::args::find::FindArgs;
use crate::args::tune::TuneArgs;
use crate::args::values::EvalHead;
use crate::messages::with_causes;
use crate::resolve;
use crate::verbs::task;

/// Settings that decide no number of a result.
const WITHOUT_EFFECT: [&str; 5] = ["allow-other-base", "logging-steps", "save-every", "save-minutes", "ticket-steps"];

/// The meaning of a parsed command line; `words` are its words.
pub(super) fn of(verb: &Verb, words: &[String], models: &Models) -> Result<Resolved, String> {
    let resolved = match verb {
        Verb::Find(args) => find(args, words, models),
        Verb::Eval(args) => eval(args, words, models),
        Verb::Tune(args) => tune(args, words, models),
        _ => Err(anyhow::anyhow!("a study runs find, eval and tune")),
    };
    resolved.map_err(|error| with_causes(&error, words))
}

/// Input files by what they are for.
#[derive(Default)]
struct Inputs(Vec<Input>);

impl Inputs {
    fn add(&mut self, role: &'static str, path: impl Into<PathBuf>) {
        self.0.push(Input { role, path: path.into() });
    }

    fn all(&mut self, role: &'static str, paths: &[PathBuf]) {
        paths.iter().for_each(|path| self.add(role, path));
    }

    /// The files of a model. Returns the tokens that the model has positions for.
    fn model(&mut self, role: &'static str, name: &OsStr, models: &Models) -> Result<usize> {
        let files = models.of(name)?;
        self.all(role, &files.weights);
        self.all("tokenizer", &files.tokenizer);
        Ok(files.longest)
    }
}

/// The files of models, each looked for once: the name may be the id of a model on a hub.
#[derive(Default)]
pub(super) struct Models(RefCell<BTreeMap<OsString, ModelFiles>>);

#[derive(Clone)]
pub(super) struct ModelFiles {
    /// The directory of all files.
    pub(super) directory: PathBuf,
    /// The configuration and the weights.
    pub(super) weights: Vec<PathBuf>,
    tokenizer: Vec<PathBuf>,
    /// Tokens that the model has positions for.
    pub(super) longest: usize,
}

impl Models {
    pub(super) fn of(&self, name: &OsStr) -> Result<ModelFiles> {
        if let Some(known) = self.0.borrow().get(name) {
            return Ok(known.clone());
        }
        let directory = tamt_model::hub::resolve(name)?;
        let config = directory.join("config.json");
        let longest = Config::read(&config)?.max_length();
        let checkpoint = Checkpoint::open(&directory)?;
        let weights = std::iter::once(config).chain(checkpoint.files().map(Path::to_owned)).collect();
        let files = ModelFiles { weights, tokenizer: Tokenizer::files_in(&directory), longest, directory };
        self.0.borrow_mut().insert(name.to_owned(), files.clone());
        Ok(files)
    }
}

fn find(args: &FindArgs, words: &[String], models: &Models) -> Result<Resolved> {
    let goal = resolve::goal(args)?;
    let mut inputs = Inputs::default();
    let longest = inputs.model("model", &args.model, models)?;
    let settings = goal.settings(args, longest, None);
    tamt::find::check(&settings)?;
    if goal.method.trains() {
        inputs.all("corpus", &args.corpus);
        check_length_up_to("block-size", settings.block_size, longest)?;
    }
    inputs.all("eval-corpus", &args.training.eval_corpus);
    let mut settings_json = decisive(&settings, words)?;
    if let MaskInit::Ticket(path) = &settings.start {
        inputs.add("start", Ticket::locate(path));
        settings_json.insert("start".to_owned(), json!("ticket"));
    }
    if let Some(epochs) = goal.horizon_epochs(args) {
        settings_json.insert("horizon-epochs".to_owned(), json!(epochs));
    }
    let steps = Some(settings.train.max_steps).filter(|_| goal.method.trains());
    Ok(Resolved { settings: settings_json.into(), inputs: inputs.0, steps })
}

fn eval(args: &EvalArgs, words: &[String], models: &Models) -> Result<Resolved> {
    let mut inputs = Inputs::default();
    let longest = inputs.model("model", &args.subject.model, models)?;
    inputs.all("corpus", &args.corpus);
    let head = match &args.mlm_head {
        EvalHead::Pretrained => "pretrained",
        EvalHead::Ticket => "ticket",
        EvalHead::File(path) => {
            inputs.add("mlm-head", path);
            "file"
        }
    };
    let usual = EvalConditions::default();
    let block_size = args.block_size.map_or(usual.block_size.min(longest), usize::from);
    check_length_up_to("block-size", block_size, longest)?;
    let compute = decisive(&resolve::compute(&args.common), words)?;
    let mut settings = compute;
    settings.extend([
        ("objective".to_owned(), json!(args.objective.map(|EvalLosses { mlm, kd }| [mlm, kd]))),
        ("mlm-head".to_owned(), json!(head)),
        ("max-tokens".to_owned(), json!(args.max_tokens)),
        ("block-size".to_owned(), json!(block_size)),
        ("mlm-probability".to_owned(), json!(args.mlm_probability.unwrap_or(usual.mlm_probability))),
        ("seed".to_owned(), json!(args.seed.unwrap_or(usual.seed))),
    ]);
    Ok(Resolved { settings: settings.into(), inputs: inputs.0, steps: None })
}

fn tune(args: &TuneArgs, words: &[String], models: &Models) -> Result<Resolved> {
    let declared = task::declaration(&args.task)?;
    let mut inputs = Inputs::default();
    let longest = inputs.model("model", &args.subject.model, models)?;
    let settings = resolve::tune(args, &declared, longest);
    settings.validate(longest)?;
    inputs.all("task-file", args.task.task_file.as_slice());
    task_files(&declared, task::directory(&args.task), settings.predict_test, &mut inputs)?;
    if let Some(teacher) = &args.teacher.teacher {
        inputs.model("teacher", teacher, models)?;
    }
    let mut settings = decisive(&settings, words)?;
    settings.insert("new-head".to_owned(), json!(args.new_head));
    settings.insert("labels".to_owned(), json!(task::labels(&args.task)));
    // Left out where it is off: a new key would change the identity of each run, and with it its place in a store.
    if args.dense_pooler {
        settings.insert("dense-pooler".to_owned(), json!(true));
    }
    Ok(Resolved { settings: settings.into(), inputs: inputs.0, steps: None })
}

/// The files of a task's splits that a run reads.
fn task_files(task: &Task, directory: &Path, predict_test: bool, inputs: &mut Inputs) -> Result<()> {
    if !directory.is_dir() {
        bail!("--data: there is no directory {}", directory.display());
    }
    let tests = task.test_splits().filter(|_| predict_test);
    let dev = task.dev_splits().filter(|&split| task.has(split));
    for split in std::iter::once(Split::Train).chain(dev).chain(tests) {
        inputs.all(split.name(), &files_of(task, directory, split)?);
    }
    Ok(())
}

/// Settings as JSON, but for those without effect. The precision is the one that the words name: a study may run on
/// machines of several kinds.
fn decisive<S: Serialize>(settings: &S, words: &[String]) -> Result<Map<String, Value>> {
    let text = serde_json::to_string(settings).context("the settings have no JSON form")?;
    let mut settings: Map<String, Value> = serde_json::from_str(&text)?;
    strip(&mut settings);
    let precision = words.iter().find_map(|word| word.strip_prefix("--precision="));
    settings.insert("precision".to_owned(), json!(precision.unwrap_or("auto")));
    Ok(settings)
}

fn strip(settings: &mut Map<String, Value>) {
    settings.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()));
    settings.values_mut().filter_map(Value::as_object_mut).for_each(strip);
}
