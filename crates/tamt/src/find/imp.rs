//! Iterative magnitude pruning: train all weights on MLM, prune a tenth of the original weights, rewind, repeat
//! (Frankle & Carbin 2019; Chen et al. 2020).

use std::path::{Path, PathBuf};

use super::{EvalText, GradKind, HeadWeights, Learner, Masks, Objective, Outcome, ParamId, Plan, Provenance, Result};
use super::{Rewind, Session, Sparsity, TICKET_FILE, TextBatches, Trainable, Wanted, prune, ticket, train};
use crate::objective::{MaskedTokens, StepLoss};
use crate::prune::Scope;
use crate::train::{Method, Metrics, named};
use tamt_model::{Batch, Model, Pass};

/// The sparsities of a run: every tenth below the wanted one, then that one. Training lies between two of them.
pub(super) fn levels(wanted: Sparsity) -> Vec<Sparsity> {
    let tenths = (1..10).map(|i| f64::from(i) / 10.0).take_while(|&tenth| tenth < wanted.share() - 1e-9);
    tenths.map(|share| Sparsity::new(share).expect("a tenth is a share")).chain([wanted]).collect()
}

pub(super) fn run(plan: &mut Plan<'_>, session: &mut Session<'_>) -> Result<Outcome> {
    let settings = plan.settings;
    let pretrained = plan.base.model.clone();
    let levels = levels(plan.sparsity());
    let masks = prune::magnitude(&pretrained, &plan.ids, levels[0], settings.scope);
    let trainable: Vec<Trainable> =
        pretrained.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
    let wanted = settings.wanted(&pretrained);
    let max_steps = settings.train.max_steps;
    let mut method = Imp {
        ends: round_ends(max_steps, levels.len() as u64 - 1),
        batches: plan.batches()?,
        objective: plan.objective(),
        levels,
        pretrained,
        ids: plan.ids.clone(),
        scope: settings.scope,
        rewind: settings.rewind,
        eval: plan.eval.clone(),
        wanted,
        provenance: plan.provenance(),
        directory: session.directory.path().to_owned(),
        batch: Batch::default(),
        masked: MaskedTokens::default(),
    };
    let mut learner = Learner::new(&mut plan.base.model, Some(masks), None, &trainable, settings.train.optimizer)
        .with_kernel(settings.compute.kernels(), settings.compute.precision);
    method.write_level(&learner, 0, 0)?;
    let trained = train(&mut method, &mut learner, &settings.train, settings.method.name(), session)?;
    let masks = learner.masks.take().expect("pruning has masks");
    plan.base.model = method.pretrained;
    Ok(Outcome { masks, steps: max_steps, trained: Some(trained), evaluation: None, untouched: Vec::new() })
}

/// The steps after which each of `rounds` rounds ends: as equal as can be, longer ones first.
fn round_ends(max_steps: u64, rounds: u64) -> Vec<u64> {
    (1..=rounds).map(|r| (max_steps * r).div_ceil(rounds)).collect()
}

struct Imp {
    levels: Vec<Sparsity>,
    /// `ends[r]`: the step after which level `r + 1` is reached.
    ends: Vec<u64>,
    batches: TextBatches,
    objective: Objective,
    pretrained: Model,
    ids: Vec<ParamId>,
    scope: Scope,
    rewind: Rewind,
    eval: Option<EvalText>,
    wanted: Wanted,
    provenance: Provenance,
    directory: PathBuf,
    batch: Batch,
    masked: MaskedTokens,
}

impl Imp {
    /// One ticket for every level on the way, in a folder of its own.
    fn write_level(&self, learner: &Learner<'_>, level: usize, done: u64) -> Result<()> {
        let share = self.levels[level].share();
        let folder = self.directory.join(format!("sparsity-{share}"));
        std::fs::create_dir_all(&folder).map_err(crate::Error::io("create", &folder))?;
        let provenance = Provenance { sparsity: share, ..self.provenance.clone() };
        let masks = learner.masks.as_ref().expect("pruning has masks");
        ticket(learner.model, masks, &provenance, done).write(&folder.join(TICKET_FILE))
    }

    /// The encoder goes back to its pre-trained weights; the MLM head stays as trained, as in the reference.
    fn rewind(&self, model: &mut Model) {
        let head = model.mlm_head.map(|head| head.params());
        for id in model.params.ids() {
            if !head.is_some_and(|head| head.contains(&id)) {
                model.params.get_mut(id).copy_from_slice(&self.pretrained.params.get(id));
            }
        }
    }
}

impl Method for Imp {
    fn gradients(&mut self, learner: &mut Learner<'_>, step: u64) -> Result<StepLoss> {
        self.batches.fill(learner.model, step, &mut self.batch, &mut self.masked);
        let Learner { model, masks, sparse, grads, .. } = learner;
        let pass = Pass::new(masks.as_ref(), sparse.as_ref());
        self.objective.losses_and_gradients(model, pass, &self.batch, &self.masked, step, grads)
    }

    /// The schedule begins anew in every round.
    fn scheduled_step(&self, step: u64) -> u64 {
        step - self.ends.iter().copied().filter(|&end| end <= step).max().unwrap_or(0)
    }

    fn after_update(&mut self, learner: &mut Learner<'_>, done: u64) -> Result<()> {
        let Some(round) = self.ends.iter().position(|&end| end == done) else { return Ok(()) };
        let level = round + 1;
        let masks = learner.masks.as_ref().expect("pruning has masks");
        let next = prune::magnitude_of_survivors(learner.model, &self.ids, masks, self.levels[level], self.scope);
        learner.masks = Some(next);
        if self.rewind == Rewind::Pretrained {
            self.rewind(learner.model);
        }
        learner.follow_masks();
        learner.follow_weights();
        learner.optimizer.reset();
        self.write_level(learner, level, done)
    }

    /// The ticket as it would be used: masks over the pre-trained weights.
    fn evaluate(&mut self, learner: &mut Learner<'_>, _: u64) -> Result<Metrics> {
        let Some(text) = &self.eval else { return Ok(Vec::new()) };
        let masks: Option<&Masks> = learner.masks.as_ref();
        Ok(named(text.evaluate(&mut self.pretrained, masks, self.wanted, None, |_| ())?.metrics()))
    }

    fn save(&self, learner: &Learner<'_>, directory: &Path, done: u64) -> Result<()> {
        let reached = self.ends.iter().filter(|&&end| end <= done).count();
        let provenance = Provenance { sparsity: self.levels[reached].share(), ..self.provenance.clone() };
        let masks = learner.masks.as_ref().expect("pruning has masks");
        ticket(learner.model, masks, &provenance, done).write(&directory.join(TICKET_FILE))?;
        HeadWeights::write(learner.model, directory)
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches.batches_per_epoch()
    }
}
