//! Finding a ticket: settings, start masks, and the run from a base model to `ticket.safetensors`.

mod imp;
mod mask_training;
mod preset;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use preset::{Preset, paper};
pub use settings::{FindSettings, Method, Rewind, Start};

use serde_json::{Map, Value, json};
use tamt_data::{Blocks, Corpus, Corruption, ReadOptions, Tail};
use tamt_model::{GradKind, Masks, Model, ParamId, Trainable};

use crate::base::Base;
use crate::evaluate::{EvalText, Evaluation, Wanted};
use crate::inspect::Rates;
use crate::mlm_head::HeadWeights;
use crate::objective::{Objective, TextBatches};
use crate::prune::{self, Sparsity};
use crate::run::{Observer, RunDir, Stop, write_eval_results};
use crate::scores::Scores;
use crate::ticket::{Provenance, TICKET_FILE, Ticket};
use crate::train::{Learner, Session, Trained, train};
use crate::{Error, Result};

/// Texts of a run.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// What is trained on.
    pub train: Option<Arc<Corpus>>,
    /// What is evaluated on.
    pub eval: Option<Arc<Corpus>>,
}

impl Texts {
    /// Reads the corpora of a run; the same files are read once.
    ///
    /// # Errors
    /// If a file is missing, empty or not text.
    pub fn read(base: &Base, train: &[PathBuf], eval: &[PathBuf]) -> Result<Self> {
        let read = |files: &[PathBuf]| -> Result<Option<Arc<Corpus>>> {
            if files.is_empty() {
                return Ok(None);
            }
            Ok(Some(Arc::new(Corpus::read(files, &base.tokenizer, ReadOptions::default())?)))
        };
        let train_text = read(train)?;
        let eval = if eval == train { train_text.clone() } else { read(eval)? };
        Ok(Self { train: train_text, eval })
    }
}

/// What a finished find has to say.
#[derive(Clone, Debug)]
pub struct Found {
    /// The run directory.
    pub output_dir: PathBuf,
    /// Optimiser steps.
    pub steps: u64,
    /// Seconds.
    pub seconds: f64,
    /// The final evaluation, where there was text for one.
    pub evaluation: Option<Evaluation>,
    /// The achieved rates.
    pub rates: Rates,
    /// Matrices whose mask no objective reached: they keep the mask they started from.
    pub untouched: Vec<String>,
}

impl Found {
    /// The result as `--json` prints it and `eval_results.json` holds it.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("output_dir".into(), json!(self.output_dir));
        map.insert("steps".into(), json!(self.steps));
        map.insert("seconds".into(), json!(self.seconds));
        if let Some(evaluation) = &self.evaluation {
            for (name, value) in evaluation.metrics() {
                map.insert(name.into(), json!(value));
            }
        }
        map.insert("sparsity".into(), json!(self.rates.sparsity));
        map.insert("encoder_sparsity".into(), json!(self.rates.encoder_sparsity));
        map
    }
}

/// Finds a ticket of `base` and leaves it in the run directory.
///
/// # Errors
/// If settings do not fit the model or the text, the run is stopped, a loss is not finite, or a file cannot be written.
pub fn find(
    base: Base,
    texts: &Texts,
    settings: &FindSettings,
    directory: RunDir,
    observer: &mut dyn Observer,
    stop: Stop,
) -> Result<Found> {
    let started = Instant::now();
    settings.validate(&base, texts)?;
    let ids = prune::pruned_matrices(&base.model, settings.layers.as_deref())?;
    let mut plan = Plan { eval: eval_text(&base, texts, settings)?, ids, base, texts, settings };
    let mut session = Session { directory, observer, stop };

    let outcome = match settings.method {
        Method::Random | Method::Magnitude => plan.one_shot()?,
        Method::Imp => imp::run(&mut plan, &mut session)?,
        Method::TamtMlm | Method::TamtKd | Method::TamtMlmKd => mask_training::run(&mut plan, &mut session)?,
    };

    let Session { directory, observer, .. } = session;
    let evaluation = outcome.evaluation(&mut plan, observer)?;
    let ticket = plan.ticket(&outcome.masks, outcome.steps);
    let found = Found {
        output_dir: directory.path().to_owned(),
        steps: outcome.steps,
        seconds: started.elapsed().as_secs_f64(),
        evaluation,
        rates: Rates::of(&ticket, Some(&plan.base.model)),
        untouched: outcome.untouched,
    };
    if let Some(trained) = &outcome.trained {
        trained.state.write(directory.path())?;
    }
    ticket.write(&directory.file(TICKET_FILE))?;
    write_eval_results(directory.path(), &found.to_json())?;
    directory.discard_training_state_before(u64::MAX)?;
    Ok(found)
}

/// Rounds of training that iterative pruning takes to a sparsity, one before each pruning but the first.
#[must_use]
pub fn imp_rounds(sparsity: Sparsity) -> u64 {
    imp::levels(sparsity).len() as u64 - 1
}

/// The pruned matrices whose mask a run does not train, by the checkpoint's names: no pre-training objective reaches
/// the pooler, so it keeps the mask it starts from.
///
/// # Errors
/// [`Error::Setting`] if a layer number is not the model's.
pub fn untouched(model: &Model, settings: &FindSettings) -> Result<Vec<String>> {
    if !settings.method.trains_masks() {
        return Ok(Vec::new());
    }
    let pruned = prune::pruned_matrices(model, settings.layers.as_deref())?;
    let pooler = model.pooler.map(|pooler| pooler.weight).filter(|id| pruned.contains(id));
    Ok(pooler.map(|id| model.params.spec(id).checkpoint_name.clone()).into_iter().collect())
}

/// What a run works with.
struct Plan<'a> {
    base: Base,
    texts: &'a Texts,
    settings: &'a FindSettings,
    /// The pruned matrices.
    ids: Vec<ParamId>,
    eval: Option<EvalText>,
}

/// Masks and how they came about.
struct Outcome {
    masks: Masks,
    steps: u64,
    trained: Option<Trained>,
    /// The last evaluation of training, where it was of these very masks over the base model.
    evaluation: Option<Evaluation>,
    untouched: Vec<String>,
}

impl Outcome {
    fn evaluation(&self, plan: &mut Plan<'_>, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        if self.evaluation.is_some() {
            return Ok(self.evaluation);
        }
        let Some(text) = &plan.eval else { return Ok(None) };
        observer.note("evaluating the ticket");
        let wanted = plan.settings.wanted(&plan.base.model);
        Ok(Some(text.evaluate(&mut plan.base.model, Some(&self.masks), wanted, None, |_| ())?))
    }
}

impl Plan<'_> {
    fn sparsity(&self) -> Sparsity {
        self.settings.sparsity
    }

    /// The masks that the settings start from.
    fn start_masks(&self) -> Result<Masks> {
        let FindSettings { sparsity, scope, seed, .. } = *self.settings;
        let model = &self.base.model;
        match &self.settings.start {
            Start::Magnitude => Ok(prune::magnitude(model, &self.ids, sparsity, scope)),
            Start::Random => Ok(prune::random(model, &self.ids, sparsity, scope, seed)),
            Start::Ticket(path) => {
                let ticket = Ticket::read(path)?;
                let masks = self.base.masks_of(&ticket, self.settings.allow_other_base)?;
                self.fit_start(path, &masks)
            }
        }
    }

    /// A ticket that drops less than is wanted starts with its smallest survivors dropped too.
    fn fit_start(&self, path: &Path, masks: &Masks) -> Result<Masks> {
        let FindSettings { sparsity, scope, .. } = *self.settings;
        let model = &self.base.model;
        let fitted = prune::magnitude_of_survivors(model, &self.ids, masks, sparsity, scope);
        for (id, mask) in masks.iter() {
            let kept = fitted.get(id).ok_or_else(|| {
                let name = &model.params.spec(id).checkpoint_name;
                Error::setting("init", format!("{} masks {name}, which this run does not prune", path.display()))
            })?;
            if kept.intersection_count(mask) != kept.count_ones() {
                let reason = format!("{} is already sparser than {}", path.display(), sparsity.share());
                return Err(Error::setting("init", reason));
            }
        }
        Ok(fitted)
    }

    fn one_shot(&self) -> Result<Outcome> {
        let FindSettings { sparsity, scope, seed, .. } = *self.settings;
        let model = &self.base.model;
        let masks = match self.settings.method {
            Method::Random => prune::random(model, &self.ids, sparsity, scope, seed),
            _ => prune::magnitude(model, &self.ids, sparsity, scope),
        };
        Ok(Outcome { masks, steps: 0, trained: None, evaluation: None, untouched: Vec::new() })
    }

    fn ticket(&self, masks: &Masks, steps: u64) -> Ticket {
        ticket(&self.base.model, masks, &self.provenance(), steps)
    }

    fn provenance(&self) -> Provenance {
        let s = self.settings;
        Provenance {
            base_model: self.base.name.clone(),
            base_sha256: self.base.sha256.clone(),
            method: s.method.name().to_owned(),
            objective: s.method.trains().then(|| s.objective.name().to_owned()),
            sparsity: s.sparsity.share(),
            scope: s.scope,
            seed: s.seed,
            steps: 0,
            corpus_sha256: self.texts.train.as_ref().filter(|_| s.method.trains()).map(|c| c.digest.clone()),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The batches of training text.
    fn batches(&self) -> Result<TextBatches> {
        let s = self.settings;
        let corpus = self.texts.train.clone().ok_or_else(|| Error::setting("corpus", "this method needs one"))?;
        let specials = self.base.tokenizer.specials();
        let blocks = Blocks::new(corpus, s.block_size, Tail::Drop, specials)?;
        let corruption =
            s.objective.mlm.then(|| Corruption { probability: s.objective.mlm_probability, ..Corruption::default() });
        TextBatches::new(blocks, s.batch_size, *specials, corruption, s.seed)
    }

    fn objective(&self) -> Objective {
        Objective::new(self.settings.objective, self.settings.seed, self.settings.compute.precision)
    }
}

fn ticket(model: &Model, masks: &Masks, provenance: &Provenance, steps: u64) -> Ticket {
    Ticket::new(model, masks, Provenance { steps, ..provenance.clone() })
}

fn eval_text(base: &Base, texts: &Texts, settings: &FindSettings) -> Result<Option<EvalText>> {
    let Some(corpus) = texts.eval.clone() else { return Ok(None) };
    let specials = base.tokenizer.specials();
    let blocks = Blocks::new(corpus, settings.block_size, Tail::Keep, specials)?;
    let probability = settings.objective.mlm_probability;
    Ok(Some(EvalText::new(blocks, *specials, probability, crate::EVAL_SEED).with_compute(settings.compute)))
}
