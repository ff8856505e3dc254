//! Pre-training on masked language modelling: all weights from scratch or further, or only the MLM head of an encoder.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tamt_data::{Blocks, Corruption, Tail, Tokenizer};
use tamt_model::{Batch, GradKind, Model, Pass, Trainable};

use crate::evaluate::{EvalText, Evaluation, Wanted};
use crate::find::Texts;
use crate::objective::{MaskedTokens, Objective, ObjectiveSettings, StepLoss, TextBatches};
use crate::run::{Observer, RunDir, Stop, write_eval_results};
use crate::train::{
    Learner, Method, Metrics, OptimizerSettings, Schedule, Session, Shape, TrainSettings, named, train,
};
use crate::{Compute, Error, Result};

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
    /// Decides the start weights, data order, corruption and dropout.
    pub seed: u64,
    /// Sequences in a batch.
    pub batch_size: usize,
    /// Tokens in a sequence, special tokens included.
    pub block_size: usize,
    /// The loss.
    pub objective: ObjectiveSettings,
    /// The loop.
    pub train: TrainSettings,
    /// How products are computed.
    #[serde(flatten)]
    pub compute: Compute,
}

impl PretrainSettings {
    /// AdamW with a learning rate of 5e-4, a tenth of the steps as warm-up, batches of 16 x 128 tokens.
    #[must_use]
    pub fn new(part: Train, max_steps: u64) -> Self {
        Self {
            part,
            seed: 42,
            batch_size: 16,
            block_size: 128,
            objective: ObjectiveSettings { mlm: true, kd: None, mlm_probability: 0.15, dropout: None },
            train: TrainSettings {
                max_steps,
                schedule: Schedule { shape: Shape::Linear, warmup_steps: max_steps / 10, horizon: max_steps },
                optimizer: OptimizerSettings::adamw(5e-4),
                eval_every: 0,
                save_every: 0,
                logging_steps: 10,
            },
            compute: Compute::default(),
        }
    }
}

/// What a finished pre-training has to say.
#[derive(Debug)]
pub struct Pretrained {
    /// The model, trained.
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
    #[must_use]
    pub fn to_json(&self, directory: &Path) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("output_dir".into(), json!(directory));
        map.insert("steps".into(), json!(self.steps));
        map.insert("seconds".into(), json!(self.seconds));
        for (name, value) in self.evaluation.iter().flat_map(Evaluation::metrics) {
            map.insert(name.into(), json!(value));
        }
        map
    }
}

/// Pre-trains `model` and leaves it, with its tokenizer, in the run directory.
///
/// # Errors
/// If settings do not fit the model or the text, the run is stopped, a loss is not finite, or a file cannot be written.
pub fn pretrain(
    model: Model,
    tokenizer: &Tokenizer,
    texts: &Texts,
    settings: &PretrainSettings,
    directory: RunDir,
    observer: &mut dyn Observer,
    stop: Stop,
) -> Result<Pretrained> {
    let started = Instant::now();
    let mut model = model.with_new_mlm_head(settings.seed);
    let longest = model.config.max_length();
    if settings.block_size > longest {
        let reason = format!("{} tokens do not fit the model, which has {longest} positions", settings.block_size);
        return Err(Error::setting("block-size", reason));
    }
    let corpus = texts.train.clone().ok_or_else(|| Error::setting("corpus", "pre-training needs one"))?;
    let specials = tokenizer.specials();
    let corruption = Corruption { probability: settings.objective.mlm_probability, ..Corruption::default() };
    let blocks = Blocks::new(corpus, settings.block_size, Tail::Drop, specials)?;
    let eval = match texts.eval.clone() {
        None => None,
        Some(corpus) => {
            let blocks = Blocks::new(corpus, settings.block_size, Tail::Keep, specials)?;
            let text = EvalText::new(blocks, *specials, settings.objective.mlm_probability, crate::EVAL_SEED);
            Some(text.with_compute(settings.compute))
        }
    };
    let head = model.mlm_head.expect("a head was added where there was none");
    let trainable: Vec<Trainable> = match settings.part {
        Train::Head => head.params().to_vec(),
        Train::All => model.params.ids().collect(),
    }
    .into_iter()
    .map(|id| Trainable { id, kind: GradKind::Weight })
    .collect();
    let mut learner = Learner::new(&mut model, None, None, &trainable, settings.train.optimizer);
    let mut method = Pretraining {
        batches: TextBatches::new(blocks, settings.batch_size, *specials, Some(corruption), settings.seed)?,
        objective: Objective::new(settings.objective, settings.seed, settings.compute.precision),
        eval,
        batch: Batch::default(),
        masked: MaskedTokens::default(),
        last_evaluation: None,
    };
    let mut session = Session { directory, observer, stop };
    let trained = train(&mut method, &mut learner, &settings.train, "pretrain", &mut session)?;
    let directory = &session.directory;
    trained.state.write(directory.path())?;
    tokenizer.save_to(directory.path())?;
    model.save(directory.path())?;
    let pretrained = Pretrained {
        model,
        steps: settings.train.max_steps,
        seconds: started.elapsed().as_secs_f64(),
        evaluation: method.last_evaluation,
    };
    write_eval_results(directory.path(), &pretrained.to_json(directory.path()))?;
    directory.discard_training_state_before(u64::MAX)?;
    Ok(pretrained)
}

struct Pretraining {
    batches: TextBatches,
    objective: Objective,
    eval: Option<EvalText>,
    batch: Batch,
    masked: MaskedTokens,
    last_evaluation: Option<Evaluation>,
}

impl Method for Pretraining {
    fn gradients(&mut self, learner: &mut Learner<'_>, step: u64) -> Result<StepLoss> {
        self.batches.fill(learner.model, step, &mut self.batch, &mut self.masked);
        let Learner { model, grads, .. } = learner;
        self.objective.losses_and_gradients(model, Pass::default(), &self.batch, &self.masked, step, grads)
    }

    fn evaluate(&mut self, learner: &mut Learner<'_>, _: u64) -> Result<Metrics> {
        let Some(text) = &self.eval else { return Ok(Vec::new()) };
        let wanted = Wanted { mlm: true, kd: false };
        let evaluation = text.evaluate(learner.model, None, wanted, None, |_| ())?;
        self.last_evaluation = Some(evaluation);
        Ok(named(evaluation.metrics()))
    }

    fn save(&self, _: &Learner<'_>, _: &Path, _: u64) -> Result<()> {
        Ok(())
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches.batches_per_epoch()
    }
}
