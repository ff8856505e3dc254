//! TAMT: training masks over frozen weights on a pre-training objective.

use std::path::Path;

use super::{
    EvalText, Evaluation, GradKind, HeadWeights, Learner, Masks, Objective, Outcome, Plan, Provenance, Result,
};
use super::{Scores, Session, TICKET_FILE, TextBatches, Trainable, Wanted, ticket, train};
use crate::objective::{MaskedTokens, StepLoss};
use crate::train::{Method, Metrics, named};
use tamt_model::{Batch, Pass};

pub(super) fn run(plan: &mut Plan<'_>, session: &mut Session<'_>) -> Result<Outcome> {
    let settings = plan.settings;
    let model = &plan.base.model;
    let mut masks = plan.start_masks()?;
    // No pre-training objective reaches the pooler: it keeps the mask it starts from.
    let pooler = model.pooler.map(|p| p.weight);
    let trained: Vec<_> = plan.ids.iter().copied().filter(|&id| Some(id) != pooler).collect();
    let untouched = super::untouched(model, settings)?;
    for name in &untouched {
        session.observer.note(&format!("{name}: no objective reaches it, so it keeps the mask it starts from"));
    }
    let scores = Scores::new(model, &trained, &masks, settings.scores, plan.sparsity(), settings.scope, settings.seed);
    scores.binarize(model, 0, &mut masks);

    let mut trainable: Vec<Trainable> = trained.iter().map(|&id| Trainable { id, kind: GradKind::Score }).collect();
    let head = model.mlm_head.filter(|_| settings.objective.mlm && !settings.freeze_head);
    trainable
        .extend(head.into_iter().flat_map(|head| head.params()).map(|id| Trainable { id, kind: GradKind::Weight }));
    let base_head = head.map(|_| HeadWeights::of(model)).transpose()?;
    let wanted = settings.wanted(model);
    let mut method = MaskTraining {
        batches: plan.batches()?,
        objective: plan.objective(),
        rethreshold_every: settings.rethreshold_every,
        eval: plan.eval.clone(),
        wanted,
        base_head,
        provenance: plan.provenance(),
        batch: Batch::default(),
        masked: MaskedTokens::default(),
        last_evaluation: None,
    };
    let mut learner =
        Learner::new(&mut plan.base.model, Some(masks), Some(scores), &trainable, settings.train.optimizer)
            .with_kernel(settings.compute.kernels(), settings.compute.precision)
            .in_precision(settings.compute.precision);
    let trained = train(&mut method, &mut learner, &settings.train, settings.method.name(), session)?;
    if let Some(head) = &mut method.base_head {
        HeadWeights::write(learner.model, session.directory.path())?;
        head.swap(learner.model);
    }
    Ok(Outcome {
        masks: settled(&learner),
        steps: settings.train.max_steps,
        trained: Some(trained),
        evaluation: method.last_evaluation,
        untouched,
    })
}

struct MaskTraining {
    batches: TextBatches,
    objective: Objective,
    rethreshold_every: u64,
    eval: Option<EvalText>,
    wanted: Wanted,
    /// The head the run started from, where the head is trained.
    base_head: Option<HeadWeights>,
    provenance: Provenance,
    batch: Batch,
    masked: MaskedTokens,
    last_evaluation: Option<Evaluation>,
}

/// The learner's masks at exactly the wanted sparsity.
fn settled(learner: &Learner<'_>) -> Masks {
    let mut masks = learner.masks.clone().expect("mask training has masks");
    learner.scores.as_ref().expect("mask training has scores").settle(learner.model, &mut masks);
    masks
}

impl Method for MaskTraining {
    fn gradients(&mut self, learner: &mut Learner<'_>, step: u64) -> Result<StepLoss> {
        self.batches.fill(learner.model, step, &mut self.batch, &mut self.masked);
        let Learner { model, masks, sparse, grads, .. } = learner;
        let pass = Pass::new(masks.as_ref(), sparse.as_ref());
        self.objective.losses_and_gradients(model, pass, &self.batch, &self.masked, step, grads)
    }

    fn after_update(&mut self, learner: &mut Learner<'_>, done: u64) -> Result<()> {
        if self.rethreshold_every > 0 && done.is_multiple_of(self.rethreshold_every) {
            let Learner { model, scores, .. } = learner;
            scores.as_mut().expect("mask training has scores").reset_cuts(model);
        }
        learner.binarize(done);
        Ok(())
    }

    /// Evaluates the exact masks with the base model's head, and with the trained one where there is one: losses of
    /// different methods compare under the same head.
    fn evaluate(&mut self, learner: &mut Learner<'_>, _: u64) -> Result<Metrics> {
        let Some(text) = &self.eval else { return Ok(Vec::new()) };
        let masks = settled(learner);
        let model = &mut *learner.model;
        let mut head = self.base_head.clone();
        if let Some(head) = &mut head {
            head.swap(model);
        }
        let evaluation = text.evaluate(model, Some(&masks), self.wanted, head.as_mut(), |_| ());
        if let Some(head) = &mut head {
            head.swap(model);
        }
        let evaluation = evaluation?;
        self.last_evaluation = Some(evaluation);
        Ok(named(evaluation.metrics()))
    }

    fn save(&self, learner: &Learner<'_>, directory: &Path, done: u64) -> Result<()> {
        ticket(learner.model, &settled(learner), &self.provenance, done).write(&directory.join(TICKET_FILE))?;
        if self.base_head.is_some() {
            HeadWeights::write(learner.model, directory)?;
        }
        Ok(())
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches.batches_per_epoch()
    }
}
