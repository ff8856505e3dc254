//! Finding a ticket: from a base model and text to `ticket.safetensors`.

pub(crate) mod initial_masks;
pub(crate) mod preset;
pub(crate) mod search;
pub(crate) mod settings;

use std::path::PathBuf;
use std::time::Instant;

pub use crate::text::Texts;
pub use preset::{Preset, paper, short};
pub use search::untouched;
pub use settings::{FindSettings, MaskInit, Method, Rewind};

use serde_json::{Map, Value, json};

use crate::base::Base;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, result_json};
use crate::find::search::{FoundMasks, Search, ticket_after};
use crate::inspect::Rates;
use crate::magnitude::magnitude;
use crate::prune::Sparsity;
use crate::random::random;
use crate::run::write_eval_results;
use crate::ticket::{Provenance, TICKET_FILE};
use crate::train::{Session, Trained};
use crate::{imp, mask_training};

/// The result of a search.
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
    /// The origin of the ticket.
    pub provenance: Provenance,
    /// The settings.
    pub settings: FindSettings,
    /// Matrices whose mask no objective reached: they have their initial mask.
    pub untouched: Vec<String>,
}

impl Found {
    /// The result as `--json` prints it and `eval_results.json` holds it.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = result_json(&self.output_dir, self.steps, self.seconds, self.evaluation);
        map.insert("sparsity".into(), json!(self.rates.sparsity));
        map.insert("encoder_sparsity".into(), json!(self.rates.encoder_sparsity));
        let Provenance { base_model, base_sha256, objective, corpus_sha256, .. } = &self.provenance;
        let FindSettings { method, sparsity, scope, seed, batch_size, block_size, .. } = &self.settings;
        let setting = [
            ("method", json!(method)),
            ("target_sparsity", json!(sparsity)),
            ("scope", json!(scope)),
            ("seed", json!(seed)),
            ("model", json!(base_model)),
            ("model_sha256", json!(base_sha256)),
        ];
        map.extend(setting.map(|(key, value)| (key.to_owned(), value)));
        if method.trains() {
            let train = [
                ("objective", json!(objective)),
                ("corpus_sha256", json!(corpus_sha256)),
                ("batch_size", json!(batch_size)),
                ("block_size", json!(block_size)),
                ("learning_rate", json!(self.settings.train.optimizer.learning_rate)),
            ];
            map.extend(train.map(|(key, value)| (key.to_owned(), value)));
        }
        map.insert("settings".into(), as_written(&self.settings));
        map
    }
}

/// Settings as JSON with the decimals that were given: a 32-bit 0.15 is 0.15 and not 0.15000000596046448.
fn as_written(settings: &FindSettings) -> Value {
    let text = serde_json::to_string(settings).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Finds a ticket of `base` and leaves it in the run directory.
///
/// # Errors
/// If settings do not fit the model or the text, the run is stopped, a loss is not finite, or a file cannot be written.
pub fn find(base: Base, texts: &Texts, settings: &FindSettings, mut session: Session<'_>) -> Result<Found> {
    let started = Instant::now();
    validate(settings, &base, texts)?;
    let mut search = Search::new(base, texts, settings)?;
    if let Some(text) = &search.eval {
        session.observer.evaluates_on(text.tokens(), text.conditions().block_size);
    }

    let FindSettings { sparsity, scope, seed, .. } = *settings;
    let (model, ids) = (&search.base.model, &search.ids);
    let mut found = match settings.method {
        Method::Random => FoundMasks::one_shot(random(model, ids, sparsity, scope, seed)),
        Method::Magnitude => FoundMasks::one_shot(magnitude(model, ids, sparsity, scope)),
        Method::Imp => imp::find(&mut search, &mut session)?,
        Method::TamtMlm | Method::TamtKd | Method::TamtMlmKd => mask_training::find(&mut search, &mut session)?,
    };

    let Session { directory, observer, stop } = session;
    let stopped = |signal| Error::Stopped { signal, step: 0, checkpoint: None };
    let _hold = if found.trained.is_none() { Some(stop.hold().map_err(stopped)?) } else { None };
    // The ticket comes first: whatever happens to the evaluation, the masks are safe.
    let ticket = ticket_after(found.steps, &search.base.model, &found.masks, &search.provenance());
    ticket.write(&directory.file(TICKET_FILE))?;
    if let Some(trained) = &mut found.trained {
        trained.write_record(&directory)?;
    }
    let evaluation = search.evaluate(&found, &directory, observer, &stop)?;
    let model = &search.base.model;
    let result = Found {
        output_dir: directory.path().to_owned(),
        steps: found.steps,
        seconds: started.elapsed().as_secs_f64() + found.trained.as_ref().map_or(0.0, Trained::seconds_before),
        evaluation,
        rates: Rates::of(&ticket, Some(model)),
        provenance: ticket.provenance.clone(),
        settings: settings.clone(),
        untouched: untouched(model, settings)?,
    };
    write_eval_results(directory.path(), &result.to_json())?;
    if let Some(trained) = &found.trained {
        trained.retire_checkpoints(&settings.train, &directory)?;
    }
    if settings.method == Method::Imp {
        // The number of steps decides the rounds, so no longer run goes on from the last checkpoint.
        directory.retire_checkpoints_before(u64::MAX, settings.train.save_every)?;
    }
    Ok(result)
}

/// Rounds of training that iterative pruning takes to a sparsity, one before each pruning but the first.
pub fn imp_rounds(sparsity: Sparsity) -> u64 {
    imp::levels(sparsity).len() as u64 - 1
}

/// Checks settings against the model and the texts.
fn validate(settings: &FindSettings, base: &Base, texts: &Texts) -> Result<()> {
    if settings.method.trains() || texts.eval.is_some() {
        base.check_block_size(settings.block_size)?;
    }
    if settings.method.trains() && texts.train.is_none() {
        let reason = format!("{} trains on text, and there is none", settings.method.name());
        return Err(Error::setting("corpus", reason));
    }
    if settings.objective.mlm && settings.method.trains() {
        base.model.decoding_head()?;
    }
    check(settings)
}

/// Checks settings as far as neither model nor text is needed.
///
/// # Errors
/// [`Error::Setting`].
pub fn check(settings: &FindSettings) -> Result<()> {
    let needs = |what: &'static str, reason: String| Err(Error::setting(what, reason));
    let name = settings.method.name();
    if !settings.ticket_steps.is_empty() && !settings.method.trains_masks() {
        return needs("ticket-steps", format!("{name} trains no masks, so there are no tickets on the way"));
    }
    if let Some(late) = settings.ticket_steps.iter().find(|&&step| step >= settings.train.max_steps) {
        return needs("ticket-steps", format!("step {late} is not ahead of the last of {}", settings.train.max_steps));
    }
    if !settings.method.trains() {
        return Ok(());
    }
    if settings.train.max_steps == 0 {
        return needs("max-steps", format!("{name} takes at least one step"));
    }
    if settings.method.trains_masks() {
        settings.scores.check()?;
    }
    if settings.objective.kd.is_some_and(|kd| kd.is_of_nothing()) {
        let reason = "with `none`, --kd-attention or --kd-relation must say what is distilled";
        return needs("kd-representation", reason.to_owned());
    }
    let rounds = imp_rounds(settings.sparsity);
    if settings.method == Method::Imp && rounds == 0 {
        let reason = "imp prunes its first tenth before it trains, so here it would be magnitude; give that method";
        return needs("sparsity", reason.to_owned());
    }
    if settings.method == Method::Imp && settings.train.max_steps < rounds {
        return needs("max-steps", format!("{rounds} rounds of pruning need at least {rounds} steps"));
    }
    Ok(())
}
