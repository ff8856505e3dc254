//! TAMT: trains which weights of a frozen model to keep, on a pre-training objective (Liu et al. 2022, section 3.2).
//!
//! Each pruned matrix `W` of `n` weights has scores `S` of its shape and a threshold `t`, which give its mask `B`. With
//! a sparsity `s` and a learning rate `η`, a step on a batch `x` of text is:
//!
//! ```text
//! corrupt              x' = corrupt(x)                    masked language modelling hides tokens
//! forward              H = f(x'; W ∘ B)                   hidden states and logits
//! loss                 L = L_mlm(H) + w L_kd(H, f(x'; W))
//! backward             dL/dS = dL/dB = dL/d(W ∘ B) ∘ W    straight-through: dB/dS counts as 1, also where B = 0
//! update scores        S ← S - η Adam(clip(dL/dS))        AdamW, for distillation alone BertAdam
//! re-set thresholds    t: exactly floor(s n) scores ≤ t   every `rethreshold_every` steps
//! binarise             B = [S > t]
//! ```
//!
//! [`MaskTraining::step`] is these lines. `W` never changes; the MLM head may learn beside the scores. Between two
//! re-settings of `t` the sparsity drifts; evaluations and tickets use masks of exactly sparsity `s`
//! ([`Learner::exact_masks`]).

use std::path::{Path, PathBuf};

use tamt_model::{Model, ParamId};

use crate::error::Result;
use crate::evaluate::{EvalLosses, EvalText, Evaluation};
use crate::find::initial_masks::initial_masks;
use crate::find::search::{FoundMasks, Search, ticket_after, untouched};
use crate::mlm_head::HeadWeights;
use crate::objective::Objective;
use crate::run::create_folder;
use crate::scores::Scores;
use crate::text::{TextBatches, TextSource};
use crate::ticket::{Provenance, TICKET_FILE};
use crate::train::learner::Learner;
use crate::train::task::{Metrics, StepResult, TrainingTask, Watch, named};
use crate::train::{Session, train};

/// The algorithm. The [`Learner`] of a step trains scores ([`Learner::of_scores`]).
#[derive(Debug)]
pub struct MaskTraining {
    /// The loss.
    pub objective: Objective,
    /// Steps between re-settings of the thresholds; 0 for never.
    pub rethreshold_every: u64,
}

impl MaskTraining {
    /// Step `step` (from 0) on the batch that `text` has for the step. The step's gradients are in `learner.grads`
    /// afterwards.
    ///
    /// # Errors
    /// If the objective has an MLM loss and the model no MLM head.
    pub fn step(
        &mut self,
        learner: &mut Learner<'_>,
        text: &mut impl TextSource,
        step: u64,
        learning_rate: f64,
    ) -> Result<StepResult> {
        let done = step + 1;
        // corrupt: x' = corrupt(x)
        let batch = text.corrupted(learner.model, step);
        // forward: H = f(x'; W ∘ B); loss: L = L_mlm(H) + w L_kd(H, f(x'; W)); backward: dL/dS = dL/d(W ∘ B) ∘ W
        let loss = learner.losses_and_gradients(&mut self.objective, batch, step)?;
        // update scores: S ← S - η Adam(clip(dL/dS))
        let grad_norm = learner.update(learning_rate);
        // re-set thresholds: exactly floor(s n) scores ≤ t
        if self.rethreshold_every > 0 && done.is_multiple_of(self.rethreshold_every) {
            learner.reset_thresholds();
        }
        // binarise: B = [S > t]
        learner.binarize(done);
        Ok(StepResult { loss, grad_norm })
    }
}

/// Trains the masks of a search.
pub(crate) fn find(search: &mut Search<'_>, session: &mut Session<'_>) -> Result<FoundMasks> {
    let settings = search.settings;
    let masks = initial_masks(search)?;
    let model = &search.base.model;
    for name in untouched(model, settings)? {
        session.observer.note(&format!("{name}: no objective reaches it, so it keeps the mask it starts from"));
    }
    if !settings.scores.follow_the_mask() {
        session.observer.note("these first scores are the same for every start mask");
    }
    let pooler = model.pooler.map(|pooler| pooler.weight);
    let ids: Vec<ParamId> = search.ids.iter().copied().filter(|&id| Some(id) != pooler).collect();
    let scores = Scores::new(model, &ids, &masks, settings.scores, settings.sparsity, settings.scope, settings.seed);
    let head = model.mlm_head.filter(|_| settings.objective.mlm && !settings.freeze_head);
    let mut task = Task {
        training: MaskTraining { objective: search.objective(), rethreshold_every: settings.rethreshold_every },
        text: search.training_text()?,
        eval: search.eval.clone(),
        losses: settings.losses(model),
        base_head: head.map(|_| HeadWeights::of(model)).transpose()?,
        provenance: search.provenance(),
        directory: session.directory.path().to_owned(),
        ticket_steps: settings.ticket_steps.clone(),
        last_evaluation: None,
    };
    let head: Vec<ParamId> = head.into_iter().flat_map(|head| head.params()).collect();
    let (model, optimizer) = (&mut search.base.model, settings.train.optimizer);
    let mut learner = Learner::of_scores(model, masks, scores, &head, optimizer, settings.compute);
    let trained = train(&mut task, &mut learner, &settings.train, settings.method.name(), session)?;
    let masks = learner.exact_masks();
    if let Some(base_head) = &mut task.base_head {
        HeadWeights::write(learner.model, session.directory.path())?;
        base_head.swap(learner.model);
    }
    Ok(FoundMasks { masks, steps: settings.train.max_steps, trained: Some(trained), evaluation: task.last_evaluation })
}

/// Mask training with the text, the evaluations and the tickets of a run.
struct Task {
    training: MaskTraining,
    text: TextBatches,
    eval: Option<EvalText>,
    losses: EvalLosses,
    /// The head of the base model, where the head is trained.
    base_head: Option<HeadWeights>,
    provenance: Provenance,
    directory: PathBuf,
    /// Steps after which the ticket is written.
    ticket_steps: Vec<u64>,
    last_evaluation: Option<Evaluation>,
}

impl Task {
    /// Writes the ticket after `done` steps into its own folder, if the settings ask for one.
    fn write_if_asked(&self, learner: &Learner<'_>, done: u64) -> Result<()> {
        if !self.ticket_steps.contains(&done) {
            return Ok(());
        }
        let folder = create_folder(&self.directory, &format!("step-{done}"))?;
        self.save(learner, &folder, done)
    }
}

impl TrainingTask for Task {
    fn step(&mut self, learner: &mut Learner<'_>, step: u64, learning_rate: f64) -> Result<StepResult> {
        if step == 0 {
            self.write_if_asked(learner, 0)?;
        }
        let result = self.training.step(learner, &mut self.text, step, learning_rate)?;
        if result.non_finite().is_none() {
            self.write_if_asked(learner, step + 1)?;
        }
        Ok(result)
    }

    /// Evaluates the exact masks with the base model's head, under which losses of all methods compare, and with the
    /// trained head where there is one.
    fn evaluate(&mut self, learner: &mut Learner<'_>, _: u64, watch: &mut Watch<'_>) -> Result<Metrics> {
        let Some(text) = &self.eval else { return Ok(Vec::new()) };
        let masks = learner.exact_masks();
        let mut trained_head = self.base_head.clone();
        swap(&mut trained_head, learner.model);
        let progress = |done| watch(done, text.tokens());
        let evaluation = text.evaluate(learner.model, Some(&masks), self.losses, trained_head.as_mut(), progress);
        swap(&mut trained_head, learner.model);
        let evaluation = evaluation?;
        self.last_evaluation = Some(evaluation);
        Ok(named(evaluation.metrics()))
    }

    fn save(&self, learner: &Learner<'_>, directory: &Path, done: u64) -> Result<()> {
        let ticket = ticket_after(done, learner.model, &learner.exact_masks(), &self.provenance);
        ticket.write(&directory.join(TICKET_FILE))?;
        if self.base_head.is_some() {
            HeadWeights::write(learner.model, directory)?;
        }
        Ok(())
    }

    fn batches_per_epoch(&self) -> u64 {
        self.text.batches_per_epoch()
    }

    fn batch_size(&self) -> usize {
        self.text.batch_size()
    }
}

/// Exchanges a head, where there is one, with the model's.
fn swap(head: &mut Option<HeadWeights>, model: &mut Model) {
    if let Some(head) = head {
        head.swap(model);
    }
}
