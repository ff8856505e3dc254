//! Pre-training objectives: what loss a batch has, and its gradients.
//!
//! Masked language modelling, distillation of the dense model's hidden states, or both (Liu et al. 2022, section 3.3).

mod kd;

pub use kd::{Distance, KdSettings, Relation, Representation, Span};

use serde::{Deserialize, Serialize};
use tamt_data::{Blocks, Corruption, Sampler, Specials};
use tamt_kernels::Precision;
use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::{Activations, Batch, DropoutPlan, Grads, HiddenGrads, MlmGrads, Model, Pass, Save, Workspace};

use crate::Result;
use kd::Distillation;

/// Which losses are minimised, and how.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ObjectiveSettings {
    /// Masked language modelling.
    pub mlm: bool,
    /// Distillation from the dense model.
    pub kd: Option<KdSettings>,
    /// Probability that a token is to be predicted.
    pub mlm_probability: f32,
    /// Dropout on embeddings, sub-layer outputs and attention probabilities; `None` takes the model's own rates.
    pub dropout: Option<f32>,
}

impl ObjectiveSettings {
    /// The name that tickets carry: `mlm`, `kd`, `mlm+kd`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.mlm, self.kd.is_some()) {
            (true, true) => "mlm+kd",
            (false, true) => "kd",
            (_, false) => "mlm",
        }
    }
}

/// Losses of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepLoss {
    /// What was minimised.
    pub total: f64,
    /// The loss against a task's labels.
    pub task: Option<f64>,
    /// Mean cross-entropy over masked tokens.
    pub mlm: Option<f64>,
    /// The distillation loss, before its weight.
    pub kd: Option<f64>,
    /// Tokens in the batch.
    pub tokens: u64,
}

/// The text of a training run, as batches that are functions of the step.
#[derive(Debug)]
pub struct TextBatches {
    blocks: Blocks,
    sampler: Sampler,
    specials: Specials,
    corruption: Option<Corruption>,
    seed: u64,
}

impl TextBatches {
    /// Batches of `batch_size` of the `blocks`; corrupted for MLM where `corruption` is given.
    ///
    /// # Errors
    /// If there are fewer blocks than a batch holds, or the corruption's rates are out of range.
    pub fn new(
        blocks: Blocks,
        batch_size: usize,
        specials: Specials,
        corruption: Option<Corruption>,
        seed: u64,
    ) -> Result<Self> {
        if let Some(corruption) = &corruption {
            corruption.validate()?;
        }
        let sampler = Sampler::new(blocks.len(), batch_size, seed)?;
        Ok(Self { blocks, sampler, specials, corruption, seed })
    }

    /// Batches in an epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch()
    }

    /// Fills `batch` with the text of `step`, and `masked` with the positions to predict and their tokens.
    pub fn fill(&self, model: &Model, step: u64, batch: &mut Batch, masked: &mut MaskedTokens) {
        batch.clear();
        masked.clear();
        for index in self.sampler.batch(step) {
            self.blocks.fill(index as usize, &mut batch.ids);
            batch.close_sequence(0);
        }
        if let Some(corruption) = &self.corruption {
            let stream = Stream::new(self.seed, Purpose::CORRUPTION, step);
            let vocab = model.config.vocab_size as u32;
            masked.extend(&corruption.corrupt(&mut batch.ids, &self.specials, vocab, stream, 0));
        }
        batch.locate(&model.config);
    }
}

/// Positions of a batch to predict, with the tokens that were there.
#[derive(Clone, Debug, Default)]
pub struct MaskedTokens {
    /// Rows of the packed batch.
    pub positions: Vec<u32>,
    /// The original tokens.
    pub labels: Vec<u32>,
}

impl MaskedTokens {
    /// Empties the lists and keeps their memory.
    pub fn clear(&mut self) {
        self.positions.clear();
        self.labels.clear();
    }

    /// Appends what a corruption chose.
    pub fn extend(&mut self, masked: &[tamt_data::Masked]) {
        self.positions.extend(masked.iter().map(|m| m.position));
        self.labels.extend(masked.iter().map(|m| m.label));
    }
}

/// An objective with its buffers.
#[derive(Debug)]
pub struct Objective {
    settings: ObjectiveSettings,
    seed: u64,
    student: Activations,
    distillation: Option<Distillation>,
    d_hidden: HiddenGrads,
    workspace: Workspace,
}

impl Objective {
    /// An objective; buffers grow at the first batch. `seed` decides the dropout, `precision` is that of its passes.
    #[must_use]
    pub fn new(settings: ObjectiveSettings, seed: u64, precision: Precision) -> Self {
        Self {
            settings,
            seed,
            student: Activations::new(match settings.kd {
                Some(kd) if kd.attention => Save::AllAndAttention,
                _ => Save::All,
            }),
            distillation: settings.kd.map(Distillation::new),
            d_hidden: HiddenGrads::default(),
            workspace: Workspace::new(precision),
        }
    }

    /// Losses of a batch, and their gradients in `grads`. `pass` says with which masks and kernels; its dropout is the
    /// objective's.
    ///
    /// # Errors
    /// If MLM is asked of a model without an MLM head.
    pub fn losses_and_gradients(
        &mut self,
        model: &Model,
        pass: Pass<'_>,
        batch: &Batch,
        masked: &MaskedTokens,
        step: u64,
        grads: &mut Grads,
    ) -> Result<StepLoss> {
        let dropout = DropoutPlan::for_step(&model.config, self.settings.dropout, self.seed, step);
        let pass = pass.with_dropout(dropout);
        grads.begin();
        model.forward(batch, pass, &mut self.student, &mut self.workspace);
        self.d_hidden.begin(&self.student);

        let mut loss = StepLoss { tokens: batch.tokens() as u64, ..StepLoss::default() };
        if self.settings.mlm {
            let count = masked.positions.len().max(1) as f64;
            let top = self.student.last_hidden();
            let d_top = self.d_hidden.hidden_mut(self.student.hidden_count() - 1, top.len());
            let back = MlmGrads { scale: (1.0 / count) as f32, hidden: d_top, grads };
            let outcome = model.mlm_loss(top, &masked.positions, &masked.labels, Some(back), &mut self.workspace)?;
            loss.mlm = Some(outcome.loss_sum / count);
        }
        let mut weight = 0.0;
        if let Some(distillation) = &mut self.distillation {
            loss.kd = Some(distillation.loss_and_gradients(
                model,
                batch,
                &self.student,
                &mut self.d_hidden,
                &mut self.workspace,
            ));
            weight = f64::from(distillation.weight());
        }
        model.backward(batch, pass, &self.student, &self.d_hidden, grads, &mut self.workspace);
        grads.finish();
        loss.total = loss.mlm.unwrap_or(0.0) + weight * loss.kd.unwrap_or(0.0);
        Ok(loss)
    }
}
