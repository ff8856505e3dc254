//! A search for a ticket: its inputs, the records and texts made of them, and the masks it ends with.

use tamt_model::{Masks, Model, ParamId};

use crate::base::Base;
use crate::error::{Error, Result};
use crate::evaluate::{EvalText, Evaluation};
use crate::find::settings::FindSettings;
use crate::matrix_digest::MatrixDigests;
use crate::objective::Objective;
use crate::prune::pruned_matrices;
use crate::run::{Observer, RunDir, Stop};
use crate::text::{TextBatches, Texts};
use crate::ticket::{EvalRecord, Provenance, Ticket};
use crate::train::{Trained, watch};

/// The inputs of a search.
pub(crate) struct Search<'a> {
    pub(crate) base: Base,
    pub(crate) settings: &'a FindSettings,
    /// The pruned matrices.
    pub(crate) ids: Vec<ParamId>,
    /// Their digests.
    digests: MatrixDigests,
    /// The held-out text.
    pub(crate) eval: Option<EvalText>,
    texts: &'a Texts,
}

/// The masks of a finished search.
pub(crate) struct FoundMasks {
    pub(crate) masks: Masks,
    /// Optimiser steps.
    pub(crate) steps: u64,
    pub(crate) trained: Option<Trained>,
    /// The last evaluation, if it measured these masks on the base model.
    pub(crate) evaluation: Option<Evaluation>,
}

impl FoundMasks {
    /// Masks that took no training.
    pub(crate) fn one_shot(masks: Masks) -> Self {
        Self { masks, steps: 0, trained: None, evaluation: None }
    }
}

impl<'a> Search<'a> {
    pub(crate) fn new(base: Base, texts: &'a Texts, settings: &'a FindSettings) -> Result<Self> {
        let eval_text = |corpus| {
            let probability = settings.objective.mlm_probability;
            EvalText::new(corpus, &base.tokenizer, settings.block_size, probability, settings.compute)
        };
        let eval = texts.eval.clone().map(eval_text).transpose()?;
        let ids = pruned_matrices(&base.model, settings.layers.as_deref())?;
        let digests = MatrixDigests::of(&base.model, &ids);
        Ok(Self { base, settings, ids, digests, eval, texts })
    }

    /// The batches of training text.
    pub(crate) fn training_text(&self) -> Result<TextBatches> {
        let s = self.settings;
        let corpus = self.texts.train.clone().ok_or_else(|| Error::setting("corpus", "this method needs one"))?;
        TextBatches::new(corpus, &self.base.tokenizer, s.block_size, s.batch_size, s.objective.corruption(), s.seed)
    }

    pub(crate) fn objective(&self) -> Objective {
        Objective::new(self.settings.objective, self.settings.seed, self.settings.compute.precision)
    }

    /// The origin of the ticket, but for the number of steps.
    pub(crate) fn provenance(&self) -> Provenance {
        let s = self.settings;
        let corpus = self.texts.train.as_ref().filter(|_| s.method.trains());
        Provenance {
            base_model: self.base.name.clone(),
            base_sha256: self.base.sha256.clone(),
            pruned_sha256: Some(self.digests.pruned.clone()),
            pooler_sha256: self.digests.pooler.clone(),
            method: s.method.name().to_owned(),
            objective: s.method.trains().then(|| s.objective.name().to_owned()),
            sparsity: s.sparsity.share(),
            scope: s.scope,
            seed: s.seed,
            steps: 0,
            corpus_sha256: corpus.map(|corpus| corpus.digest.clone()),
            evaluation: self.eval.as_ref().map(|text| EvalRecord {
                conditions: text.conditions(),
                tokens: text.tokens(),
                corpus_sha256: text.corpus().digest.clone(),
            }),
            imported: None,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The losses of the found masks over the base model: the last evaluation of the training, or a new one.
    pub(crate) fn evaluate(
        &mut self,
        found: &FoundMasks,
        directory: &RunDir,
        observer: &mut dyn Observer,
        stop: &Stop,
    ) -> Result<Option<Evaluation>> {
        let (None, Some(text)) = (found.evaluation, &self.eval) else { return Ok(found.evaluation) };
        observer.note("evaluating the ticket");
        let losses = self.settings.losses(&self.base.model);
        let total = text.tokens();
        let mut watch = watch(directory, observer, stop, found.steps);
        let progress = |done| watch(done, total);
        Ok(Some(text.evaluate(&mut self.base.model, Some(&found.masks), losses, None, progress)?))
    }
}

/// The ticket of `masks` after so many steps.
pub(crate) fn ticket_after(steps: u64, model: &Model, masks: &Masks, provenance: &Provenance) -> Ticket {
    Ticket::new(model, masks, Provenance { steps, ..provenance.clone() })
}

/// The pruned matrices whose mask a run does not train, by canonical names: no pre-training objective reaches
/// the pooler, so it keeps its initial mask.
///
/// # Errors
/// [`Error::Setting`] if the model has no layer of a chosen number.
pub fn untouched(model: &Model, settings: &FindSettings) -> Result<Vec<String>> {
    if !settings.method.trains_masks() {
        return Ok(Vec::new());
    }
    let pruned = pruned_matrices(model, settings.layers.as_deref())?;
    let pooler = model.pooler.map(|pooler| pooler.weight).filter(|id| pruned.contains(id));
    Ok(pooler.map(|id| model.params.spec(id).name.clone()).into_iter().collect())
}
