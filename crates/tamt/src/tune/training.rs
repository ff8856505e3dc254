//! The steps and evaluations of a fine-tuning, for the training loop.

use std::path::Path;

use tamt_data::LengthSampler;
use tamt_data::tasks::Task;
use tamt_model::{Batch, Masks, Model, Trainable};

use crate::error::{Error, Result};
use crate::train::{Best, Learner, Metrics, Session, StepResult, TrainSettings, Trained, TrainingTask, Watch, train};
use crate::tune::answers::{Answers, predict_all};
use crate::tune::best::BestModel;
use crate::tune::inputs::Inputs;
use crate::tune::loss::TaskLoss;
use crate::tune::settings::{KeptModel, TuneSettings};
use crate::tune::teacher::Teacher;

/// A fine-tuning: data, settings, buffers and the best model so far.
pub(super) struct Tuning<'a> {
    task: &'a Task,
    train: &'a Inputs,
    dev: &'a [Inputs],
    settings: &'a TuneSettings,
    sampler: LengthSampler,
    loss: TaskLoss<'a>,
    batch: Batch,
    pub(super) best: BestModel,
    /// The number of steps at the last evaluation, and its answers.
    pub(super) last: Option<(u64, Vec<Answers>)>,
}

impl<'a> Tuning<'a> {
    pub(super) fn new(
        task: &'a Task,
        train: &'a Inputs,
        dev: &'a [Inputs],
        settings: &'a TuneSettings,
        teacher: Option<Teacher<'a>>,
    ) -> Result<Self> {
        Ok(Self {
            task,
            train,
            dev,
            settings,
            sampler: LengthSampler::new(train.lengths(), settings.batch_size, settings.seed)?,
            loss: TaskLoss::new(settings.seed, settings.dropout, settings.compute, teacher),
            batch: Batch::default(),
            best: BestModel::new(task.primary.key(), settings.keep == KeptModel::Best),
            last: None,
        })
    }

    /// The settings of the training loop.
    pub(super) fn length(&self) -> TrainSettings {
        self.settings.training(self.sampler.batches_per_epoch())
    }

    /// Trains all unpruned parameters of `model`, and gives the masks back.
    pub(super) fn train(
        &mut self,
        model: &mut Model,
        masks: Option<Masks>,
        session: &mut Session<'_>,
    ) -> Result<(Trained, Option<Masks>)> {
        let TuneSettings { compute, optimizer, .. } = *self.settings;
        let training = self.length();
        let trainable = Trainable::weights(model, masks.as_ref());
        let mut learner = match masks {
            Some(masks) => Learner::of_masked_weights(model, masks, &trainable, optimizer, compute),
            None => Learner::of_weights(model, &trainable, optimizer),
        };
        let stage = format!("tune {}", self.task.name);
        let trained = train(self, &mut learner, &training, &stage, session)?;
        Ok((trained, learner.mode.masks().cloned()))
    }
}

impl TrainingTask for Tuning<'_> {
    fn step(&mut self, learner: &mut Learner<'_>, step: u64, learning_rate: f64) -> Result<StepResult> {
        let chosen = self.sampler.batch(step);
        let Learner { model, mode, grads, .. } = &mut *learner;
        self.train.fill(&chosen, &model.config, &mut self.batch);
        let targets =
            self.train.targets(&chosen).ok_or_else(|| Error::setting("data", "the training set has no labels"))?;
        let loss = self.loss.loss_and_gradients(model, mode.pass(), &self.batch, &targets, step, grads);
        Ok(StepResult { loss, grad_norm: learner.update(learning_rate) })
    }

    fn evaluate(&mut self, learner: &mut Learner<'_>, done: u64, watch: &mut Watch<'_>) -> Result<Metrics> {
        let answers = predict_all(learner.model, learner.mode.masks(), self.task, self.dev, self.settings, watch)?;
        let mut metrics = Metrics::new();
        for (answers, inputs) in answers.iter().zip(self.dev) {
            metrics.extend(answers.metrics(self.task, inputs)?);
        }
        // Without a development set nothing is compared, and nothing ends the run early.
        if !self.dev.is_empty() {
            self.best.compare(done, &metrics, learner.model);
        }
        self.last = Some((done, answers));
        Ok(metrics)
    }

    fn best(&self) -> Option<Best> {
        self.best.best()
    }

    fn is_exhausted(&self) -> bool {
        self.settings.early_stopping.is_some_and(|patience| self.best.evaluations_since() >= patience)
    }

    fn save(&self, _: &Learner<'_>, directory: &Path, _: u64) -> Result<()> {
        self.best.write(directory)
    }

    fn restore(&mut self, learner: &Learner<'_>, directory: &Path) -> Result<()> {
        self.best.read(directory, learner.model)
    }

    fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch()
    }

    fn batch_size(&self) -> usize {
        self.settings.batch_size
    }
}
