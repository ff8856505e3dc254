//! Scores behind binary masks: their initial values, and the binarisers that turn them into masks.
//!
//! A mask is `B = [S > t]` with scores `S` and a threshold `t`; the gradient passes the comparison unchanged (Bengio et
//! al. 2013; Liu et al. 2022, section 3.2). [`Scores::reset_thresholds`] gives each matrix exactly its number of zeros.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tamt_kernels::masks::{BitMask, Cut, Key, smallest_k};
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Grads, Masks, Model, ParamId};

use crate::error::{Error, Result};
use crate::prune::{Scope, Sparsity, ranked_together};

/// How scores become a mask, and what their gradient is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binarizer {
    /// Keeps a weight where its score exceeds a threshold; straight-through gradient (the reference's `MaskedLinear1`).
    #[default]
    Threshold,
    /// Clamps scores to [-1, 1] and keeps those above a threshold, at first 0 for two-level scores; no gradient where the
    /// clamp holds (`MaskedLinear2`).
    Sign,
    /// Keeps with probability sigmoid(score), drawn in each step; straight-through gradient (`MaskedLinear3`).
    Bernoulli,
}

/// How the first scores follow from a mask, the sparsity `s` and the threshold `t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreInit {
    /// Twice the threshold where kept, 0 where dropped.
    #[default]
    TwoLevel,
    /// U(1.1 t, 1.5 t) where kept, U(0.5 t, 0.9 t) where dropped (`double_uniform`).
    DoubleUniform,
    /// U(-a, (a + t)/s - a) whatever the mask, so that a share s lies below t (no `controlled_init`).
    Uniform,
}

/// Settings of the scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScoreSettings {
    /// How scores become masks.
    pub binarizer: Binarizer,
    /// The initial scores.
    pub init: ScoreInit,
    /// The first threshold t.
    pub threshold: f32,
    /// The half-width a of [`ScoreInit::Uniform`] and of the initial scores of [`Binarizer::Sign`].
    pub init_scale: f32,
}

impl Default for ScoreSettings {
    fn default() -> Self {
        Self { binarizer: Binarizer::Threshold, init: ScoreInit::TwoLevel, threshold: 0.01, init_scale: 0.02 }
    }
}

impl ScoreSettings {
    /// Whether the first scores differ with the start mask.
    pub(crate) fn follow_the_mask(&self) -> bool {
        match (self.init, self.binarizer) {
            (ScoreInit::TwoLevel, Binarizer::Threshold | Binarizer::Sign) | (ScoreInit::DoubleUniform, _) => true,
            (ScoreInit::TwoLevel, Binarizer::Bernoulli) | (ScoreInit::Uniform, _) => false,
        }
    }

    /// Checks that the scores give the start mask.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        let from_threshold = match (self.binarizer, self.init) {
            (Binarizer::Threshold, ScoreInit::TwoLevel) | (_, ScoreInit::DoubleUniform) => true,
            (_, ScoreInit::TwoLevel | ScoreInit::Uniform) => false,
        };
        if from_threshold && (self.threshold <= 0.0 || self.threshold.is_nan()) {
            let reason = format!("{} is not above 0, so that its scores do not give the start mask", self.threshold);
            return Err(Error::setting("threshold", reason));
        }
        if self.binarizer == Binarizer::Bernoulli && self.init != ScoreInit::TwoLevel {
            let reason = "these scores are no probabilities of the sparsity; bernoulli starts from two-level ones";
            return Err(Error::setting("score-init", reason));
        }
        Ok(())
    }
}

/// The scores of all trained matrices in one buffer, with the thresholds that turn them into masks.
#[derive(Clone, Debug)]
pub struct Scores {
    /// The matrices, in the model's order.
    ids: Vec<ParamId>,
    /// All scores, matrix after matrix.
    pub(crate) values: Vec<f32>,
    /// The threshold of each matrix, with the index up to which an equal score counts as below.
    pub(crate) thresholds: Vec<Cut>,
    settings: ScoreSettings,
    sparsity: Sparsity,
    scope: Scope,
    /// Weights, and zeros among them, of matrices that count for the sparsity and are not trained (the pooler).
    untrained: (usize, u64),
    seed: u64,
}

impl Scores {
    /// Scores of `trained` that give the masks `initial`. In global scope the zeros of the other matrices of `initial`
    /// count towards the whole.
    ///
    /// # Panics
    /// If a trained matrix has no initial mask.
    pub fn new(
        model: &Model,
        trained: &[ParamId],
        initial: &Masks,
        settings: ScoreSettings,
        sparsity: Sparsity,
        scope: Scope,
        seed: u64,
    ) -> Self {
        let untrained = initial
            .iter()
            .filter(|(id, _)| !trained.contains(id))
            .fold((0, 0), |(n, zeros), (_, mask)| (n + mask.len(), zeros + (mask.len() - mask.count_ones()) as u64));
        let mut values = Vec::with_capacity(trained.iter().map(|&id| model.params.spec(id).elements()).sum());
        for &id in trained {
            let mask = initial.get(id).expect("every trained matrix has an initial mask");
            let stream = Stream::new(seed, Purpose::SCORE_INIT, id.index() as u64);
            values.extend(initial_scores(mask, settings, sparsity, stream));
        }
        let first = match (settings.binarizer, settings.init) {
            // The scores of kept and of dropped weights lie on the two sides of the threshold.
            (Binarizer::Threshold, _) | (Binarizer::Sign, ScoreInit::DoubleUniform | ScoreInit::Uniform) => {
                Cut::strict(settings.threshold)
            }
            (Binarizer::Sign, ScoreInit::TwoLevel) | (Binarizer::Bernoulli, _) => Cut::strict(0.0),
        };
        let thresholds = vec![first; trained.len()];
        Self { ids: trained.to_vec(), values, thresholds, settings, sparsity, scope, untrained, seed }
    }

    /// The trained matrices.
    pub fn ids(&self) -> &[ParamId] {
        &self.ids
    }

    /// The scores of a matrix, row-major, if it is trained.
    pub fn of<'a>(&'a self, model: &'a Model, id: ParamId) -> Option<&'a [f32]> {
        self.matrices(model).find(|(other, _)| *other == id).map(|(_, scores)| scores)
    }

    /// Each trained matrix with its scores.
    fn matrices<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = (ParamId, &'a [f32])> {
        let mut rest = self.values.as_slice();
        self.ids.iter().map(move |&id| {
            let (scores, tail) = rest.split_at(model.params.spec(id).elements());
            rest = tail;
            (id, scores)
        })
    }

    /// Re-sets the thresholds so that `floor(n s)` of the `n` scores of a matrix (of all matrices in global scope) are
    /// not above them; of equal scores the lower index counts as below.
    pub fn reset_thresholds(&mut self, model: &Model) {
        self.thresholds = self.exact_thresholds(model);
    }

    fn exact_thresholds(&self, model: &Model) -> Vec<Cut> {
        let scores: Vec<&[f32]> = self.matrices(model).map(|(_, scores)| scores).collect();
        let mut thresholds = Vec::with_capacity(scores.len());
        for group in ranked_together(&self.ids, self.scope) {
            let tensors = &scores[thresholds.len()..][..group.len()];
            let n: usize = tensors.iter().map(|t| t.len()).sum();
            let (others, other_zeros) = if self.scope == Scope::Global { self.untrained } else { (0, 0) };
            let zeros = self.sparsity.zeros(n + others).saturating_sub(other_zeros).min(n as u64);
            thresholds.extend(vec![smallest_k(tensors, zeros, Key::Value); tensors.len()]);
        }
        thresholds
    }

    /// Writes the masks that the scores give with the present thresholds, as training uses them in step `step`:
    ///
    /// ```text
    /// threshold, sign    B = [S > t]
    /// Bernoulli          B = [U < sigmoid(S)]     U: uniform numbers, other ones in each step
    /// ```
    ///
    /// # Panics
    /// If a trained matrix has no mask.
    pub fn binarize(&self, model: &Model, step: u64, masks: &mut Masks) {
        if self.settings.binarizer != Binarizer::Bernoulli {
            return self.compare(model, &self.thresholds, masks);
        }
        for (id, scores) in self.matrices(model) {
            let stream = Stream::new(self.seed, Purpose::BERNOULLI_MASK, step).fork(id.index() as u32);
            let mask = masks.get_mut(id).expect("every trained matrix has a mask");
            let cols = mask.cols();
            for (i, &score) in scores.iter().enumerate() {
                let keep = 1.0 / (1.0 + (-score).exp());
                mask.set(i / cols, i % cols, stream.uniform_at(i as u64) < keep);
            }
        }
    }

    /// Writes the masks of exactly the target sparsity. Does not change scores or thresholds, so evaluating or saving
    /// does not affect training.
    ///
    /// # Panics
    /// If a trained matrix has no mask.
    pub fn binarize_exactly(&self, model: &Model, masks: &mut Masks) {
        self.compare(model, &self.exact_thresholds(model), masks);
    }

    /// Writes `[S > t]`. In global scope the index that breaks ties runs on from matrix to matrix.
    fn compare(&self, model: &Model, thresholds: &[Cut], masks: &mut Masks) {
        let mut first = 0;
        for ((id, scores), &threshold) in self.matrices(model).zip(thresholds) {
            let mask = masks.get_mut(id).expect("every trained matrix has a mask");
            mask.keep_above_at(scores, threshold, Key::Value, first);
            if self.scope == Scope::Global {
                first += scores.len() as u64;
            }
        }
    }

    /// Applies the binariser's own factor of the gradient: for [`Binarizer::Sign`], zero where `|S| >= 1`.
    pub(crate) fn shape_gradient(&self, model: &Model, grads: &mut Grads) {
        if self.settings.binarizer == Binarizer::Sign {
            for (id, scores) in self.matrices(model) {
                grads.zero_where(id, |i| scores[i].abs() >= 1.0);
            }
        }
    }

    /// Clamps updated scores to [-1, 1] for [`Binarizer::Sign`]; no effect for the others.
    pub(crate) fn shape_values(&mut self) {
        if self.settings.binarizer == Binarizer::Sign {
            for s in &mut self.values {
                *s = s.clamp(-1.0, 1.0);
            }
        }
    }
}

/// The first scores of a matrix, by the formulas of [`ScoreInit`].
fn initial_scores(mask: &BitMask, settings: ScoreSettings, sparsity: Sparsity, stream: Stream) -> Vec<f32> {
    let t = settings.threshold;
    let uniform = |i: usize, low: f32, high: f32| low + (high - low) * stream.uniform_at(i as u64);
    let from_mask = |score: &(dyn Fn(usize, bool) -> f32 + Sync)| {
        let cols = mask.cols();
        let mut scores = vec![0.0; mask.len()];
        scores.par_chunks_mut(cols.max(1)).enumerate().for_each(|(row, scores)| {
            let bits = mask.row(row);
            let kept = |col: usize| bits[col / 8] >> (col % 8) & 1 == 1;
            scores.iter_mut().enumerate().for_each(|(col, value)| *value = score(row * cols + col, kept(col)));
        });
        scores
    };
    match (settings.binarizer, settings.init) {
        (Binarizer::Threshold, ScoreInit::TwoLevel) => from_mask(&|_, kept| if kept { 2.0 * t } else { 0.0 }),
        (_, ScoreInit::DoubleUniform) => {
            from_mask(&|i, kept| if kept { uniform(i, 1.1 * t, 1.5 * t) } else { uniform(i, 0.5 * t, 0.9 * t) })
        }
        (_, ScoreInit::Uniform) => {
            let a = settings.init_scale;
            let high = (f64::from(a) + f64::from(t)) / sparsity.share() - f64::from(a);
            from_mask(&|i, _| uniform(i, -a, high as f32))
        }
        // Unlike in the reference, the initial mask decides the sign of the random scores.
        (Binarizer::Sign, ScoreInit::TwoLevel) => {
            let a = settings.init_scale;
            from_mask(&|i, kept| if kept { uniform(i, 0.0, a) } else { -uniform(i, 0.0, a) })
        }
        // log(p / (1 - p)) with p = 1 - s: the sigmoid keeps each weight with probability p.
        (Binarizer::Bernoulli, ScoreInit::TwoLevel) => {
            let keep = 1.0 - sparsity.share();
            vec![(keep / (1.0 - keep)).ln() as f32; mask.len()]
        }
    }
}

#[cfg(test)]
mod tests {
    use tamt_kernels::Precision;
    use tamt_model::{Activations, Batch, GradKind, HiddenGrads, Pass, Save, Trainable, Workspace};

    use super::*;
    use crate::magnitude::magnitude;
    use crate::prune::pruned_matrices;
    use crate::testing::tiny_model;

    fn scores_with(settings: ScoreSettings, share: f64, scope: Scope) -> (Model, Masks, Scores) {
        let model = tiny_model();
        let ids = pruned_matrices(&model, None).unwrap();
        let sparsity = Sparsity::new(share).unwrap();
        let masks = magnitude(&model, &ids, sparsity, scope);
        let pooler = model.pooler.map(|p| p.weight);
        let trained: Vec<_> = ids.into_iter().filter(|&id| Some(id) != pooler).collect();
        let scores = Scores::new(&model, &trained, &masks, settings, sparsity, scope, 5);
        (model, masks, scores)
    }

    fn dropped(masks: &Masks) -> u64 {
        masks.iter().map(|(_, m)| (m.len() - m.count_ones()) as u64).sum()
    }

    #[test]
    fn two_level_scores_give_the_mask_they_came_from() {
        for scope in [Scope::Local, Scope::Global] {
            let (model, start, scores) = scores_with(ScoreSettings::default(), 0.7, scope);
            let mut masks = start.clone();
            scores.binarize(&model, 0, &mut masks);
            assert_eq!(masks, start);
            scores.binarize_exactly(&model, &mut masks);
            assert_eq!(masks, start);
        }
    }

    #[test]
    fn exact_masks_have_the_asked_zeros_under_every_initialisation_and_binarizer() {
        for scope in [Scope::Local, Scope::Global] {
            for binarizer in [Binarizer::Threshold, Binarizer::Sign, Binarizer::Bernoulli] {
                for init in [ScoreInit::TwoLevel, ScoreInit::DoubleUniform, ScoreInit::Uniform] {
                    let settings = ScoreSettings { binarizer, init, ..ScoreSettings::default() };
                    let (model, start, mut scores) = scores_with(settings, 0.7, scope);
                    for (i, v) in scores.values.iter_mut().enumerate() {
                        *v += 0.001 * ((i * 7919) % 13) as f32;
                    }
                    let mut masks = start.clone();
                    scores.binarize_exactly(&model, &mut masks);
                    assert_eq!(dropped(&masks), dropped(&start), "{scope:?} {binarizer:?} {init:?}");
                }
            }
        }
    }

    #[test]
    fn exact_masks_leave_training_as_it_was() {
        let (model, start, mut scores) = scores_with(ScoreSettings::default(), 0.5, Scope::Local);
        scores.values.iter_mut().step_by(3).for_each(|v| *v += 0.03);
        let (before, thresholds) = (scores.values.clone(), scores.thresholds.clone());
        scores.binarize_exactly(&model, &mut start.clone());
        assert_eq!((scores.values, scores.thresholds), (before, thresholds));
    }

    #[test]
    fn uniform_scores_fall_below_the_threshold_with_the_wanted_share() {
        let settings = ScoreSettings { init: ScoreInit::Uniform, ..ScoreSettings::default() };
        let (model, start, scores) = scores_with(settings, 0.7, Scope::Local);
        let mut masks = start;
        scores.binarize(&model, 0, &mut masks);
        let below = scores.values.iter().filter(|&&v| v <= 0.01).count() as f64 / scores.values.len() as f64;
        assert!((below - 0.7).abs() < 0.02, "{below}");
    }

    #[test]
    fn bernoulli_masks_are_drawn_anew_each_step_with_the_wanted_share() {
        let settings = ScoreSettings { binarizer: Binarizer::Bernoulli, ..ScoreSettings::default() };
        let (model, start, scores) = scores_with(settings, 0.7, Scope::Local);
        let draw = |step| {
            let mut masks = start.clone();
            scores.binarize(&model, step, &mut masks);
            masks
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let (n, zeros) = scores
            .ids()
            .iter()
            .map(|&id| draw(1).get(id).map(|m| (m.len(), m.len() - m.count_ones())).unwrap())
            .fold((0, 0), |sum, m| (sum.0 + m.0, sum.1 + m.1));
        assert!((zeros as f64 / n as f64 - 0.7).abs() < 0.02);
    }

    #[test]
    fn the_sign_passes_no_gradient_where_its_clamp_holds() {
        let settings = ScoreSettings { binarizer: Binarizer::Sign, ..ScoreSettings::default() };
        let (model, masks, mut scores) = scores_with(settings, 0.5, Scope::Local);
        let trainable: Vec<Trainable> = scores.ids.iter().map(|&id| Trainable { id, kind: GradKind::Score }).collect();
        let mut batch = Batch::default();
        batch.push(&[3, 1, 4, 1, 5]);
        batch.locate(&model.config);
        for precision in [Precision::F32, Precision::Bf16] {
            scores.values.iter_mut().enumerate().for_each(|(i, s)| *s = [0.5, 1.0, -1.5][i % 3]);
            let (mut activations, mut workspace) = (Activations::new(Save::All), Workspace::new(precision));
            let mut grads = Grads::new(&model, &trainable).in_precision(&model, precision);
            let (pass, mut d) = (Pass::new(Some(&masks), None), HiddenGrads::default());
            model.forward(&batch, pass, &mut activations, &mut workspace);
            d.begin(&activations);
            let top = d.hidden_mut(model.layers.len(), activations.last_hidden().len());
            top.iter_mut().enumerate().for_each(|(i, d)| *d = 1.0 + (i % 3) as f32);
            model.backward(&batch, pass, &activations, &d, &mut grads, &mut workspace);

            let gradient = |grads: &Grads, id| grads.get(id, &model.params).unwrap();
            let all = |grads: &Grads| scores.ids.iter().flat_map(|&id| gradient(grads, id)).collect::<Vec<f32>>();
            let before = all(&grads);
            scores.shape_gradient(&model, &mut grads);
            for (i, (before, after)) in before.iter().zip(all(&grads)).enumerate() {
                assert_eq!(after, if i % 3 == 0 { *before } else { 0.0 }, "{precision:?}, {i}");
            }
            let moving = |which: usize| before.iter().skip(which).step_by(3).any(|g| *g != 0.0);
            assert!((0..3).all(moving), "there were gradients to stop and to pass");
        }
        scores.values[..2].copy_from_slice(&[1.0, -1.5]);
        scores.shape_values();
        assert_eq!(scores.values[..2], [1.0, -1.0]);
    }
}
