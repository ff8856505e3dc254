//! Whole steps of a random encoder, or of a given one, on random tokens.

use tamt_kernels::rng::{Purpose, Stream};
use tamt_model::model::MlmHead;
use tamt_model::{Activations, Batch, HeadStart, Masks, Model, Parts, Pass, Save, TaskKind, Trainable};

use crate::bench::timing::{BenchSettings, Subject, Timing, Work, seconds};
use crate::compute::{Compute, Kernel};
use crate::error::Result;
use crate::find::settings::Method;
use crate::magnitude::magnitude;
use crate::mask_training::MaskTraining;
use crate::objective::{Objective, ObjectiveSettings};
use crate::prune::{Scope, Sparsity, pruned_matrices};
use crate::scores::{ScoreSettings, Scores};
use crate::text::TextBatch;
use crate::ticket::BaseCheck;
use crate::train::learner::Learner;
use crate::train::optimizer::OptimizerSettings;
use crate::tune::{Targets, TaskLoss};

const SEED: u64 = 1;
const MLM_PROBABILITY: f32 = 0.15;

/// The times of steps of the settings' model.
pub(super) fn time(settings: &BenchSettings, work: Work, kernel: Kernel, sparsity: Sparsity) -> Result<Timing> {
    let mut model = model(settings, work)?;
    let masks = match settings.subject.as_ref().and_then(|subject| subject.ticket.as_ref()) {
        Some(ticket) => ticket.masks(&model, BaseCheck::NamesAndShapes)?,
        None => magnitude(&model, &pruned_matrices(&model, None)?, sparsity, Scope::Local),
    };
    let compute = Compute { kernel, precision: settings.precision };
    let (seconds, flop) = match work {
        Work::MaskTraining => mask_training(settings, &mut model, masks, sparsity, compute)?,
        Work::FineTuning => fine_tuning(settings, &mut model, masks, compute),
        Work::Inference => inference(settings, &model, &masks, compute),
    };
    let sparsity = Some(sparsity.share());
    Ok(Timing { name: work.name().to_owned(), kernel: Some(kernel), sparsity, flop: Some(flop), seconds })
}

/// The model with the head that a kind of step needs.
fn model(settings: &BenchSettings, work: Work) -> Result<Model> {
    let task = TaskKind::Sequence { outputs: 2 };
    Ok(match (&settings.subject, work) {
        (None, work) => {
            let (mlm_head, task) = (work == Work::MaskTraining, (work == Work::FineTuning).then_some(task));
            Model::random(settings.config.clone(), Parts { pooler: false, mlm_head, task }, SEED)
        }
        (Some(Subject { directory, .. }), Work::FineTuning) => {
            Model::load_for_task(directory, task, HeadStart::Fresh(SEED))?
        }
        (Some(Subject { directory, .. }), Work::MaskTraining) => Model::load(directory)?.with_new_mlm_head(SEED),
        (Some(Subject { directory, .. }), Work::Inference) => Model::load(directory)?,
    })
}

/// The times of steps, without the warm-up steps.
fn run(settings: &BenchSettings, mut step: impl FnMut(u64) -> f64) -> Vec<f64> {
    let times: Vec<f64> = (0..settings.warmup + settings.steps).map(&mut step).collect();
    times[settings.warmup as usize..].to_vec()
}

fn mask_training(
    settings: &BenchSettings,
    model: &mut Model,
    masks: Masks,
    sparsity: Sparsity,
    compute: Compute,
) -> Result<(Vec<f64>, f64)> {
    // No pre-training objective reaches the pooler, so its mask is not trained.
    let pooler = model.pooler.map(|pooler| pooler.weight);
    let ids: Vec<_> = masks.iter().map(|(id, _)| id).filter(|&id| Some(id) != pooler).collect();
    let scores = Scores::new(model, &ids, &masks, ScoreSettings::default(), sparsity, Scope::Local, SEED);
    let head: Vec<_> = model.mlm_head.iter().flat_map(MlmHead::params).collect();
    let mut learner = Learner::of_scores(model, masks, scores, &head, OptimizerSettings::adamw(5e-5), compute);
    let objective = ObjectiveSettings {
        mlm_probability: MLM_PROBABILITY,
        dropout: Some(settings.dropout),
        ..Method::TamtMlm.objective()
    };
    let objective = Objective::new(objective, SEED, compute.precision);
    let mut training = MaskTraining { objective, rethreshold_every: 0 };
    let (mut text, mut result) = (TextBatch::default(), Ok(()));
    let times = run(settings, |step| {
        random_batch(settings, step, learner.model, &mut text.tokens);
        mask_tokens(step, learner.model, &mut text);
        seconds(|| {
            if let Err(error) = training.step(&mut learner, &mut text, step, 5e-5) {
                result = Err(error);
            }
        })
    });
    result?;
    // Three products for each linear layer and the head's transform; two (no weight gradient) for the frozen decoder.
    let config = &settings.config;
    let head = text.masked.positions.len() as f64 * config.hidden_size as f64;
    let head = head * (6.0 * config.hidden_size as f64 + 4.0 * config.vocab_size as f64);
    Ok((times, encoder_flop(settings, 3.0) + head))
}

fn fine_tuning(settings: &BenchSettings, model: &mut Model, masks: Masks, compute: Compute) -> (Vec<f64>, f64) {
    for (id, mask) in masks.iter() {
        mask.mask_in_place(model.params.get_mut(id));
    }
    let trainable = Trainable::weights(model, Some(&masks));
    let optimizer = OptimizerSettings::adamw(2e-5);
    let mut learner = Learner::of_masked_weights(model, masks, &trainable, optimizer, compute);
    let mut loss = TaskLoss::new(SEED, Some(settings.dropout), compute, None);
    let targets = Targets::Classes((0..settings.batch_size as u32).map(|i| i % 2).collect());
    let mut batch = Batch::default();
    let times = run(settings, |step| {
        random_batch(settings, step, learner.model, &mut batch);
        seconds(|| {
            let Learner { model, mode, grads, .. } = &mut learner;
            loss.loss_and_gradients(model, mode.pass(), &batch, &targets, step, grads);
            learner.update(2e-5);
        })
    });
    (times, encoder_flop(settings, 3.0))
}

fn inference(settings: &BenchSettings, model: &Model, masks: &Masks, compute: Compute) -> (Vec<f64>, f64) {
    let prepared = compute.prepare(model, Some(masks));
    let (mut activations, mut workspace) = (Activations::new(Save::Last), compute.workspace());
    let mut batch = Batch::default();
    let times = run(settings, |step| {
        random_batch(settings, step, model, &mut batch);
        seconds(|| model.forward(&batch, Pass::new(Some(masks), Some(&prepared)), &mut activations, &mut workspace))
    });
    (times, encoder_flop(settings, 1.0))
}

/// Floating-point operations of all linear layers and of attention, `products` times those of the forward pass. A
/// backward pass computes the attention scores again, so attention counts 3.5 for 3.
fn encoder_flop(settings: &BenchSettings, products: f64) -> f64 {
    let config = &settings.config;
    let tokens = (settings.batch_size * settings.length) as f64;
    let (hidden, ffn, layers) =
        (config.hidden_size as f64, config.intermediate_size as f64, config.num_hidden_layers as f64);
    let linear = 2.0 * (4.0 * hidden * hidden + 2.0 * hidden * ffn);
    let attention = 4.0 * hidden * settings.length as f64;
    let again = if products > 1.0 { 0.5 } else { 0.0 };
    tokens * layers * (products * linear + (products + again) * attention)
}

fn random_batch(settings: &BenchSettings, step: u64, model: &Model, batch: &mut Batch) {
    let stream = Stream::new(SEED, Purpose::SHUFFLE, step);
    batch.clear();
    for sequence in 0..settings.batch_size {
        let first = (sequence * settings.length) as u64;
        let ids = (first..first + settings.length as u64).map(|at| stream.below_at(at, model.config.vocab_size as u32));
        batch.ids.extend(ids);
        batch.close_sequence(0);
    }
    batch.locate(&model.config);
}

fn mask_tokens(step: u64, model: &Model, text: &mut TextBatch) {
    let stream = Stream::new(SEED, Purpose::CORRUPTION, step);
    let TextBatch { tokens, masked } = text;
    masked.clear();
    for at in 0..tokens.tokens() as u64 {
        if stream.uniform_at(2 * at) < MLM_PROBABILITY {
            masked.positions.push(at as u32);
            masked.labels.push(stream.below_at(2 * at + 1, model.config.vocab_size as u32));
        }
    }
}
