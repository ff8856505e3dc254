//! Iterative magnitude pruning: trains all weights on masked language modelling, prunes a tenth of the original
//! weights, rewinds, and repeats (Frankle & Carbin 2019; Chen et al. 2020).
//!
//! The sparsities of the rounds are `s_0 < s_1 < ... < s_R`: every tenth below the ticket's, then the ticket's. With
//! the pre-trained weights `W_0` of a matrix of `n`:
//!
//! ```text
//! start              W = W_0,  B = [|W| > t]                 t: exactly floor(s_0 n) weights are dropped
//! round r: steps     W ← W - η Adam(clip(dL_mlm/dW))        as in mask training, but gradients of W, not of scores
//!          prune     B ← B ∘ [|W| > t]                       t: exactly floor(s_r n) weights are dropped
//!          rewind    W ← W_0; moments and schedule start anew
//! ```
//!
//! The ticket is `B` over `W_0`. Each round writes its own ticket, in `sparsity-<s_r>/`.

use std::path::{Path, PathBuf};

use tamt_model::{GradKind, Model, ParamId, Trainable};

use crate::error::Result;
use crate::evaluate::{EvalLosses, EvalText, Evaluation};
use crate::find::search::{FoundMasks, Search, ticket_after};
use crate::find::settings::Rewind;
use crate::magnitude::{magnitude, magnitude_of_survivors};
use crate::mlm_head::HeadWeights;
use crate::objective::Objective;
use crate::prune::{Scope, Sparsity};
use crate::run::create_folder;
use crate::text::{TextBatches, TextSource};
use crate::ticket::{Provenance, TICKET_FILE};
use crate::train::learner::Learner;
use crate::train::task::{Metrics, StepResult, TrainingTask, Watch, named};
use crate::train::{Session, train};

/// The sparsities `s_0, ..., s_R` of a run to sparsity `last`.
pub(crate) fn levels(last: Sparsity) -> Vec<Sparsity> {
    let tenths = (1..10).map(|i| f64::from(i) / 10.0).take_while(|&tenth| tenth < last.share() - 1e-9);
    tenths.filter_map(|share| Sparsity::new(share).ok()).chain([last]).collect()
}

/// The steps after which each of `rounds` rounds ends: lengths differ by one step at most, longer rounds first.
fn round_ends(max_steps: u64, rounds: u64) -> Vec<u64> {
    let end = |r| (u128::from(max_steps) * u128::from(r)).div_ceil(u128::from(rounds));
    (1..=rounds).map(|r| u64::try_from(end(r)).unwrap_or(max_steps)).collect()
}

/// Prunes the model of a search in rounds.
pub(crate) fn find(search: &mut Search<'_>, session: &mut Session<'_>) -> Result<FoundMasks> {
    let settings = search.settings;
    let max_steps = settings.train.max_steps;
    let levels = levels(settings.sparsity);
    let pretrained = search.base.model.clone();
    let masks = magnitude(&pretrained, &search.ids, levels[0], settings.scope);
    let trainable: Vec<Trainable> =
        pretrained.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
    let mut task = Imp {
        ends: round_ends(max_steps, levels.len() as u64 - 1),
        levels,
        objective: search.objective(),
        ids: search.ids.clone(),
        scope: settings.scope,
        rewind: settings.rewind,
        text: search.training_text()?,
        eval: search.eval.clone(),
        losses: settings.losses(&pretrained),
        pretrained,
        provenance: search.provenance(),
        directory: session.directory.path().to_owned(),
        last_evaluation: None,
    };
    let (model, optimizer) = (&mut search.base.model, settings.train.optimizer);
    let mut learner = Learner::of_masked_weights(model, masks, &trainable, optimizer, settings.compute);
    let trained = train(&mut task, &mut learner, &settings.train, settings.method.name(), session)?;
    let masks = learner.exact_masks();
    search.base.model = task.pretrained;
    Ok(FoundMasks { masks, steps: max_steps, trained: Some(trained), evaluation: task.last_evaluation })
}

struct Imp {
    levels: Vec<Sparsity>,
    /// `ends[r]`: the step after which level `r + 1` is reached.
    ends: Vec<u64>,
    objective: Objective,
    ids: Vec<ParamId>,
    scope: Scope,
    rewind: Rewind,
    text: TextBatches,
    eval: Option<EvalText>,
    losses: EvalLosses,
    pretrained: Model,
    provenance: Provenance,
    directory: PathBuf,
    last_evaluation: Option<Evaluation>,
}

impl Imp {
    /// Ends the round after which `level` is reached: prunes, rewinds, and writes the level's ticket.
    fn end_round(&self, learner: &mut Learner<'_>, level: usize, done: u64) -> Result<()> {
        let masks = learner.exact_masks();
        // B ← B ∘ [|W| > t]
        let pruned = magnitude_of_survivors(learner.model, &self.ids, &masks, self.levels[level], self.scope);
        // W ← W_0
        if self.rewind == Rewind::Pretrained {
            self.rewind(learner.model);
        }
        learner.set_masks(pruned);
        learner.follow_weights();
        learner.optimizer.reset();
        self.write_level(learner, level, done)
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

    /// Writes the ticket of a level into its own folder.
    fn write_level(&self, learner: &Learner<'_>, level: usize, done: u64) -> Result<()> {
        let folder = create_folder(&self.directory, &format!("sparsity-{}", self.levels[level].share()))?;
        self.write_ticket(learner, level, done, &folder)
    }

    fn write_ticket(&self, learner: &Learner<'_>, level: usize, done: u64, folder: &Path) -> Result<()> {
        let provenance = Provenance { sparsity: self.levels[level].share(), ..self.provenance.clone() };
        ticket_after(done, learner.model, &learner.exact_masks(), &provenance).write(&folder.join(TICKET_FILE))
    }
}

impl TrainingTask for Imp {
    fn step(&mut self, learner: &mut Learner<'_>, step: u64, learning_rate: f64) -> Result<StepResult> {
        // x' = corrupt(x)
        let batch = self.text.corrupted(learner.model, step);
        // L = L_mlm(f(x'; W ∘ B)),  dL/dW = dL/d(W ∘ B) ∘ B
        let loss = learner.losses_and_gradients(&mut self.objective, batch, step)?;
        // W ← W - η Adam(clip(dL/dW))
        let result = StepResult { loss, grad_norm: learner.update(learning_rate) };
        if step == 0 && result.non_finite().is_none() {
            // The masks of the first level, which the first step leaves as they are.
            self.write_level(learner, 0, 0)?;
        }
        let round = self.ends.iter().position(|&end| end == step + 1);
        if let (Some(round), None) = (round, result.non_finite()) {
            self.end_round(learner, round + 1, step + 1)?;
        }
        Ok(result)
    }

    /// The schedule begins anew in every round.
    fn scheduled_step(&self, step: u64) -> u64 {
        step - self.ends.iter().copied().filter(|&end| end <= step).max().unwrap_or(0)
    }

    /// Evaluates the ticket as it is used: masks over the pre-trained weights.
    fn evaluate(&mut self, learner: &mut Learner<'_>, _: u64, watch: &mut Watch<'_>) -> Result<Metrics> {
        let Some(text) = &self.eval else { return Ok(Vec::new()) };
        let progress = |done| watch(done, text.tokens());
        let evaluation = text.evaluate(&mut self.pretrained, learner.mode.masks(), self.losses, None, progress)?;
        self.last_evaluation = Some(evaluation);
        Ok(named(evaluation.metrics()))
    }

    fn save(&self, learner: &Learner<'_>, directory: &Path, done: u64) -> Result<()> {
        let reached = self.ends.iter().filter(|&&end| end <= done).count();
        self.write_ticket(learner, reached, done, directory)?;
        HeadWeights::write(learner.model, directory)
    }

    fn batches_per_epoch(&self) -> u64 {
        self.text.batches_per_epoch()
    }

    fn batch_size(&self) -> usize {
        self.text.batch_size()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tamt_data::{Corpus, Corruption, Tokenizer};
    use tamt_kernels::Precision;
    use tamt_model::{Activations, Batch, Pass, Save, Workspace};

    use super::*;
    use crate::compute::{Compute, Kernel};
    use crate::objective::ObjectiveSettings;
    use crate::prune::pruned_matrices;
    use crate::testing::tiny_model;
    use crate::train::{OptimizerSettings, Schedule, Shape};

    /// Two rounds of three steps, to half of the weights.
    fn imp(pretrained: &Model, rewind: Rewind, directory: &Path) -> Imp {
        let pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).into_iter();
        let vocabulary: Vec<String> = pieces.chain((5..50).map(|i| format!("w{i}"))).collect();
        std::fs::write(directory.join("vocab.txt"), vocabulary.join("\n")).unwrap();
        std::fs::write(directory.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
        let tokenizer = Tokenizer::from_dir(directory).unwrap();
        let tokens = (0..400).map(|i| 5 + i * 17 % 45).collect();
        let corpus = Arc::new(Corpus { tokens, digest: String::new(), lines: 1, cut_lines: 0 });
        let settings = ObjectiveSettings { mlm: true, kd: None, mlm_probability: 0.3, dropout: Some(0.1) };
        Imp {
            levels: [0.2, 0.4, 0.5].map(|share| Sparsity::new(share).unwrap()).to_vec(),
            ends: round_ends(6, 2),
            objective: Objective::new(settings, 7, Precision::F32),
            ids: pruned_matrices(pretrained, None).unwrap(),
            scope: Scope::Local,
            rewind,
            text: TextBatches::new(corpus, &tokenizer, 16, 4, Some(Corruption::default()), 7).unwrap(),
            eval: None,
            losses: EvalLosses { mlm: true, kd: false },
            pretrained: pretrained.clone(),
            provenance: provenance(),
            directory: directory.to_owned(),
            last_evaluation: None,
        }
    }

    fn provenance() -> Provenance {
        Provenance {
            base_model: "tiny".to_owned(),
            base_sha256: String::new(),
            pruned_sha256: None,
            pooler_sha256: None,
            method: "imp".to_owned(),
            objective: Some("mlm".to_owned()),
            sparsity: 0.5,
            scope: Scope::Local,
            seed: 7,
            steps: 0,
            corpus_sha256: None,
            evaluation: None,
            imported: None,
            tool_version: String::new(),
        }
    }

    /// Calls `check` after every step, with the number of steps done.
    fn run(rewind: Rewind, mut check: impl FnMut(&Imp, &Learner<'_>, u64)) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = tiny_model();
        let mut imp = imp(&model, rewind, directory.path());
        let masks = magnitude(&model, &imp.ids, imp.levels[0], imp.scope);
        let trainable: Vec<Trainable> = model.params.ids().map(|id| Trainable { id, kind: GradKind::Weight }).collect();
        let optimizer = OptimizerSettings::adamw(1e-2);
        let compute = Compute { kernel: Kernel::Sparse, precision: Precision::F32 };
        let mut learner = Learner::of_masked_weights(&mut model, masks, &trainable, optimizer, compute);
        let schedule = Schedule { shape: Shape::Linear, warmup_steps: 0, horizon: 6 };
        for step in 0..6 {
            let rate = optimizer.learning_rate * schedule.factor(imp.scheduled_step(step));
            imp.step(&mut learner, step, rate).unwrap();
            check(&imp, &learner, step + 1);
        }
    }

    fn states(model: &Model, pass: Pass<'_>) -> Vec<f32> {
        let (mut batch, mut activations) = (Batch::default(), Activations::new(Save::Last));
        batch.push(&[2, 7, 19, 31, 8, 3]);
        batch.locate(&model.config);
        model.forward(&batch, pass, &mut activations, &mut Workspace::default());
        activations.last_hidden().to_vec()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn a_round_ends_with_the_weights_of_pre_training_moments_of_zero_and_a_schedule_that_starts_anew() {
        run(Rewind::Pretrained, |imp, learner, done| {
            let ends_round = done % 3 == 0;
            let (model, optimizer) = (&learner.model, &learner.optimizer);
            let head = model.mlm_head.unwrap().params();
            let is_changed = |id: &ParamId| bits(&model.params.get(*id)) != bits(&imp.pretrained.params.get(*id));
            let changed = model.params.ids().filter(|id| !head.contains(id)).filter(is_changed).count();
            let moments = optimizer.m.iter().chain(&optimizer.v).filter(|moment| **moment != 0.0).count();
            if ends_round {
                assert_eq!((changed, moments, optimizer.updates), (0, 0, 0), "after {done} steps");
                assert!(head.iter().all(is_changed), "the head stays as trained");
            } else {
                // The pooler, which no MLM loss reaches, has two tensors without a gradient.
                assert_eq!(changed, model.params.ids().count() - head.len() - 2, "after {done} steps");
                assert!(moments > 1000, "{moments} moments after {done} steps");
                assert_eq!(optimizer.updates, done % 3);
            }
            assert_eq!(imp.scheduled_step(done), done % 3, "the learning rate of the next step");
            let own = states(model, learner.mode.pass());
            assert_eq!(own, states(model, Pass::new(learner.mode.masks(), None)), "kernels read the rewound weights");
        });
    }

    #[test]
    fn without_rewinding_weights_stay_and_moments_start_anew() {
        run(Rewind::None, |imp, learner, done| {
            let id = learner.model.layer_matrices().next().unwrap();
            assert_ne!(bits(&learner.model.params.get(id)), bits(&imp.pretrained.params.get(id)), "after {done} steps");
            assert_eq!(learner.optimizer.updates, done % 3);
        });
    }

    #[test]
    fn each_level_drops_its_share_and_keeps_what_was_dropped_before() {
        let mut before = None;
        run(Rewind::Pretrained, |imp, learner, done| {
            let masks = learner.exact_masks();
            let level = imp.levels[(done / 3) as usize];
            for (id, mask) in masks.iter() {
                assert_eq!((mask.len() - mask.count_ones()) as u64, level.zeros(mask.len()));
                let revived = |before: &tamt_model::Masks| {
                    let before = before.get(id).unwrap();
                    (0..mask.rows())
                        .flat_map(|r| (0..mask.cols()).map(move |c| (r, c)))
                        .filter(|&(r, c)| mask.get(r, c) && !before.get(r, c))
                        .count()
                };
                assert_eq!(before.as_ref().map_or(0, revived), 0, "{id:?} after {done} steps");
            }
            before = Some(masks);
        });
    }
}
