//! Pre-training on masked language modelling: all weights from scratch or further, or only the MLM head of an encoder.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tamt_data::Tokenizer;
use tamt_model::{GradKind, Model, Trainable};

use crate::base::check_length;
use crate::compute::Compute;
use crate::error::{Error, Result};
use crate::evaluate::{EvalLosses, EvalText, Evaluation, result_json};
use crate::objective::{Objective, ObjectiveSettings};
use crate::run::write_eval_results;
use crate::sentence::copy_modules;
use crate::text::{TextBatches, TextSource, Texts};
use crate::train::learner::Learner;
use crate::train::optimizer::OptimizerSettings;
use crate::train::schedule::{Schedule, Shape};
use crate::train::task::{Metrics, StepResult, TrainingTask, Watch, named};
use crate::train::{DEFAULT_SEED, SAVE_MINUTES, Session, TrainSettings, train};

/// Which weights learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Train {
    /// The MLM head; the encoder is frozen, its word embeddings (the decoder) included.
    Head,
    /// Everything.
    #[default]
    All,
}

/// Everything that decides the result of a pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PretrainSettings {
    /// Which weights learn.
    pub part: Train,
    /// The seed of new weights, data order, corruption and dropout.
    pub seed: u64,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence, special tokens included.
    pub block_size: usize,
    /// The loss.
    pub objective: ObjectiveSettings,
    /// The loop.
    pub train: TrainSettings,
    /// Kernels and precision.
    #[serde(flatten)]
    pub compute: Compute,
}

impl PretrainSettings {
    /// AdamW with a learning rate of 5e-4, a tenth of the steps as warm-up, batches of 16 x 128 tokens.
    pub fn new(part: Train, max_steps: u64) -> Self {
        Self {
            part,
            seed: DEFAULT_SEED,
            batch_size: 16,
            block_size: 128,
            objective: ObjectiveSettings { mlm: true, kd: None, mlm_probability: 0.15, dropout: None },
            train: TrainSettings {
                max_steps,
                schedule: Schedule { shape: Shape::Linear, warmup_steps: max_steps / 10, horizon: max_steps },
                optimizer: OptimizerSettings::adamw(5e-4),
                eval_every: 0,
                save_every: 0,
                save_minutes: SAVE_MINUTES,
                logging_steps: 10,
            },
            compute: Compute::default(),
        }
    }
}

/// The result of a pre-training.
#[derive(Debug)]
pub struct Pretrained {
    /// The trained model.
    pub model: Model,
    /// Optimiser steps.
    pub steps: u64,
    /// Seconds.
    pub seconds: f64,
    /// The final evaluation, where there was text for one.
    pub evaluation: Option<Evaluation>,
}

impl Pretrained {
    /// The result as `--json` prints it and `eval_results.json` holds it.
    pub fn to_json(&self, directory: &Path) -> Map<String, Value> {
        result_json(directory, self.steps, self.seconds, self.evaluation)
    }
}

/// Pre-trains `model` and leaves it, with its tokenizer, in the run directory. `source` is the directory of the model that
/// training starts from: its sentence-transformers modules are written again.
///
/// # Errors
/// If settings do not fit the model or the text, the run is stopped, a loss is not finite, or a file cannot be written.
pub fn pretrain(
    model: Model,
    tokenizer: &Tokenizer,
    source: Option<&Path>,
    texts: &Texts,
    settings: &PretrainSettings,
    mut session: Session<'_>,
) -> Result<Pretrained> {
    let started = Instant::now();
    // A new head in place of a checkpoint's own would be a guess.
    if model.untied_decoder.is_some() {
        model.decoding_head()?;
    }
    let mut model = model.with_new_mlm_head(settings.seed);
    check_length("block-size", settings.block_size, &model)?;
    let corpus = texts.train.clone().ok_or_else(|| Error::setting("corpus", "pre-training needs one"))?;
    let PretrainSettings { block_size, batch_size, seed, objective, compute, .. } = *settings;
    let eval_text = |corpus| EvalText::new(corpus, tokenizer, block_size, objective.mlm_probability, compute);
    let mut task = Pretraining {
        text: TextBatches::new(corpus, tokenizer, block_size, batch_size, objective.corruption(), seed)?,
        objective: Objective::new(objective, seed, compute.precision),
        eval: texts.eval.clone().map(eval_text).transpose()?,
        last_evaluation: None,
    };
    if let Some(text) = &task.eval {
        session.observer.evaluates_on(text.tokens(), block_size);
    }
    let trainable: Vec<Trainable> = match settings.part {
        Train::Head => model.decoding_head()?.params().to_vec(),
        Train::All => model.params.ids().collect(),
    }
    .into_iter()
    .map(|id| Trainable { id, kind: GradKind::Weight })
    .collect();
    let mut learner = Learner::of_weights(&mut model, &trainable, settings.train.optimizer);
    let mut trained = train(&mut task, &mut learner, &settings.train, "pretrain", &mut session)?;
    let directory = &session.directory;
    // The weights come first: a failure to write another file does not cost them.
    model.save(directory.path())?;
    tokenizer.save_to(directory.path())?;
    if let Some(source) = source {
        copy_modules(source, directory.path())?;
    }
    trained.write_record(directory)?;
    let pretrained = Pretrained {
        model,
        steps: settings.train.max_steps,
        seconds: started.elapsed().as_secs_f64() + trained.seconds_before(),
        evaluation: task.last_evaluation,
    };
    write_eval_results(directory.path(), &pretrained.to_json(directory.path()))?;
    trained.retire_checkpoints(&settings.train, directory)?;
    Ok(pretrained)
}

struct Pretraining {
    text: TextBatches,
    objective: Objective,
    eval: Option<EvalText>,
    last_evaluation: Option<Evaluation>,
}

impl TrainingTask for Pretraining {
    fn step(&mut self, learner: &mut Learner<'_>, step: u64, learning_rate: f64) -> Result<StepResult> {
        let batch = self.text.corrupted(learner.model, step);
        let loss = learner.losses_and_gradients(&mut self.objective, batch, step)?;
        Ok(StepResult { loss, grad_norm: learner.update(learning_rate) })
    }

    fn evaluate(&mut self, learner: &mut Learner<'_>, _: u64, watch: &mut Watch<'_>) -> Result<Metrics> {
        let Some(text) = &self.eval else { return Ok(Vec::new()) };
        let losses = EvalLosses { mlm: true, kd: false };
        let progress = |done| watch(done, text.tokens());
        let evaluation = text.evaluate(learner.model, None, losses, None, progress)?;
        self.last_evaluation = Some(evaluation);
        Ok(named(evaluation.metrics()))
    }

    fn save(&self, _: &Learner<'_>, _: &Path, _: u64) -> Result<()> {
        Ok(())
    }

    fn batches_per_epoch(&self) -> u64 {
        self.text.batches_per_epoch()
    }

    fn batch_size(&self) -> usize {
        self.text.batch_size()
    }
}
