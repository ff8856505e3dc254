//! From flags to settings of the library, with defaults that depend on the method, the preset, the model and the text.

use anyhow::{Result, bail};
use tamt::Compute;
use tamt::find::{FindSettings, Method, Preset, imp_rounds};
use tamt::objective::{KdSettings, ObjectiveSettings};
use tamt::pretrain::PretrainSettings;
use tamt::prune::Sparsity;
use tamt::train::{DEFAULT_SEED, OptimizerKind, OptimizerSettings, TrainSettings};
use tamt::tune::{DistillSettings, InputSettings, TrainingLength, TuneSettings};
use tamt_data::tasks::{Head, Task};

use crate::args::common::Common;
use crate::args::find::{DistillationArgs, FindArgs};
use crate::args::pretrain::PretrainArgs;
use crate::args::task::InputArgs;
use crate::args::training::{OptimizerArgs, RunArgs, TrainingArgs};
use crate::args::tune::TuneArgs;
use crate::exit::UsageError;

/// Replaces a setting where a flag was given.
fn set<T: Clone>(setting: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        setting.clone_from(value);
    }
}

/// As [`set`], for a flag in double precision and a setting in single precision.
fn set_single(setting: &mut f32, flag: Option<f64>) {
    if let Some(value) = flag {
        *setting = value as f32;
    }
}

/// The kernel and the precision of matrix products.
pub(crate) fn compute(common: &Common) -> Compute {
    Compute { kernel: common.kernel.unwrap_or_default(), precision: (common.precision)() }
}

/// The settings of a search that depend on neither the model nor the text.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) method: Method,
    pub(crate) sparsity: Sparsity,
    pub(crate) max_steps: u64,
    preset: Option<Preset>,
}

/// The method and its number of steps.
///
/// # Errors
/// [`UsageError`] for a method that trains if no flag gives the number of steps.
pub(crate) fn goal(args: &FindArgs) -> Result<Goal> {
    let method = args.method;
    let sparsity = Sparsity::new(args.sparsity)?;
    let preset = args.preset.map(|preset| preset(method, sparsity)).transpose()?;
    let in_rounds = match args.pruning.steps_per_round.filter(|_| method == Method::Imp) {
        Some(steps) => {
            let all = steps.checked_mul(imp_rounds(sparsity));
            Some(all.ok_or_else(|| UsageError("--steps-per-round: that is too many".to_owned()))?)
        }
        None => None,
    };
    let given = args.max_steps.or(in_rounds).or(preset.map(|preset| preset.max_steps));
    let max_steps = match given {
        _ if !method.trains() => 0,
        Some(steps) => steps,
        None => {
            let problem = format!("{} trains: give --max-steps N, or --preset short or paper", method.name());
            bail!(UsageError(problem));
        }
    };
    Ok(Goal { method, sparsity, max_steps, preset })
}

impl Goal {
    /// The settings without further flags.
    pub(crate) fn defaults(&self, max_length: usize) -> FindSettings {
        let mut settings = FindSettings::new(self.method, self.sparsity, self.max_steps);
        settings.block_size = settings.block_size.min(max_length);
        settings
    }

    /// Passes through the text in which the preset's learning rate reaches zero, where a preset and no flag decides.
    pub(crate) fn horizon_epochs(&self, args: &FindArgs) -> Option<u64> {
        let is_given = args.training.optimizer.lr_horizon_steps.is_some();
        self.preset.filter(|_| !is_given).and_then(|preset| preset.horizon_epochs)
    }

    /// All settings of the run, for a model with room for `max_length` tokens and a text of so many `tokens`. Without the
    /// number of tokens, a preset in epochs leaves the horizon of the learning rate at the number of steps.
    pub(crate) fn settings(&self, args: &FindArgs, max_length: usize, tokens: Option<usize>) -> FindSettings {
        let mut settings = self.defaults(max_length);
        if let Some(preset) = self.preset {
            settings.batch_size = preset.batch_size;
            settings.block_size = preset.block_size.min(max_length);
            if self.method.trains_masks() {
                settings.rethreshold_every = preset.rethreshold_every;
            }
            settings.train.optimizer.learning_rate = preset.learning_rate;
        }
        settings.compute = compute(&args.common);
        set(&mut settings.scope, &args.scope);
        set(&mut settings.start, &args.masks.init);
        set(&mut settings.rewind, &args.pruning.rewind);
        settings.allow_other_base = args.allow_other_base;
        settings.layers = (!args.layers.is_empty()).then(|| args.layers.clone());
        let masks = &args.masks;
        set(&mut settings.rethreshold_every, &masks.rethreshold_every);
        set(&mut settings.scores.binarizer, &masks.binarizer);
        set(&mut settings.scores.init, &masks.score_init);
        set_single(&mut settings.scores.threshold, masks.threshold);
        set_single(&mut settings.scores.init_scale, masks.init_scale);
        settings.ticket_steps.clone_from(&masks.ticket_steps);
        settings.freeze_head |= masks.freeze_head;
        if let Some(kd) = &mut settings.objective.kd {
            distillation(kd, &args.distillation);
        }

        let training = &args.training;
        batches(training, &mut settings.seed, &mut settings.batch_size, &mut settings.block_size);
        objective(&mut settings.objective, training);
        let epochs = self.preset.and_then(|preset| preset.horizon_epochs);
        if let (Some(epochs), Some(tokens)) = (epochs, tokens) {
            let window = settings.block_size.saturating_sub(2).max(1);
            let batches = (tokens / window / settings.batch_size) as u64;
            let horizon = epochs.saturating_mul(batches);
            settings.train.schedule.horizon = horizon.max(self.max_steps);
        }
        loop_settings(&mut settings.train, training);
        settings
    }
}

/// The settings of a pre-training, and those without any flag, for a model with room for `max_length` tokens.
pub(crate) fn pretrain(args: &PretrainArgs, max_length: usize) -> (PretrainSettings, PretrainSettings) {
    let mut defaults = PretrainSettings::new(args.train.unwrap_or_default(), args.max_steps);
    defaults.block_size = defaults.block_size.min(max_length);
    let mut settings = defaults.clone();
    settings.compute = compute(&args.common);
    let training = &args.training;
    batches(training, &mut settings.seed, &mut settings.batch_size, &mut settings.block_size);
    objective(&mut settings.objective, training);
    loop_settings(&mut settings.train, training);
    (settings, defaults)
}

/// The settings of a fine-tuning, for a model with room for `longest` tokens.
pub(crate) fn tune(args: &TuneArgs, task: &Task, longest: usize) -> TuneSettings {
    let mut settings = TuneSettings::new(task);
    inputs(&mut settings.inputs, &args.task.inputs, longest);
    let fitting = &args.fitting;
    set(&mut settings.duration, &fitting.epochs.map(TrainingLength::Epochs));
    set(&mut settings.duration, &fitting.max_steps.map(TrainingLength::MaxSteps));
    settings.compute = compute(&args.common);
    settings.train_examples = fitting.train_examples.map(usize::from);
    set(&mut settings.batch_size, &fitting.batch_size.map(usize::from));
    // The runs of several seeds have records of their own.
    let only = if let [seed] = *fitting.seeds { Some(seed) } else { fitting.seed };
    set(&mut settings.seed, &only);
    settings.dropout = fitting.dropout.map(|p| p as f32);
    set(&mut settings.eval_every, &fitting.eval_every);
    saving(&mut settings.save_every, &mut settings.save_minutes, &fitting.run);
    set(&mut settings.logging_steps, &fitting.run.logging_steps);
    settings.early_stopping = fitting.early_stopping;
    set(&mut settings.keep, &fitting.keep);
    settings.predict_test = args.predict_test;
    settings.lr_horizon_steps = args.optimizer.lr_horizon_steps;
    set(&mut settings.lr_schedule, &args.optimizer.lr_schedule);
    set(&mut settings.warmup_steps, &args.optimizer.warmup_steps);
    optimizer(&mut settings.optimizer, &args.optimizer);
    if args.teacher.teacher.is_some() {
        let mut kd = DistillSettings::default();
        set_single(&mut kd.temperature, args.teacher.kd_temperature);
        set_single(&mut kd.logits_weight, args.teacher.kd_logits_weight);
        set_single(&mut kd.hidden_weight, args.teacher.kd_hidden_weight);
        settings.distillation = Some(kd);
    }
    settings
}

/// The settings of a task's tokens, for a model with room for `longest` tokens.
pub(crate) fn inputs(settings: &mut InputSettings, args: &InputArgs, longest: usize) {
    settings.max_length = args.max_length.map_or(settings.max_length.min(longest), usize::from);
    if let Some(spans) = &mut settings.spans {
        set(&mut spans.doc_stride, &args.doc_stride.map(usize::from));
        set(&mut spans.max_query_length, &args.max_query_length.map(usize::from));
        set(&mut spans.n_best, &args.n_best.map(usize::from));
        set(&mut spans.max_answer_length, &args.max_answer_length.map(usize::from));
        set(&mut spans.null_threshold, &args.null_threshold);
    }
}

/// The seeds of a fine-tuning: at least one.
///
/// # Errors
/// [`UsageError`] if a seed is given twice.
pub(crate) fn seeds(args: &TuneArgs) -> Result<Vec<u64>> {
    let seeds = &args.fitting.seeds;
    if let Some(twice) = seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)) {
        bail!(UsageError(format!("--seeds: {} is given twice", twice.1)));
    }
    Ok(if seeds.is_empty() { vec![args.fitting.seed.unwrap_or(DEFAULT_SEED)] } else { seeds.clone() })
}

fn batches(args: &TrainingArgs, seed: &mut u64, batch_size: &mut usize, block_size: &mut usize) {
    set(seed, &args.seed);
    set(batch_size, &args.batch_size.map(usize::from));
    set(block_size, &args.block_size.map(usize::from));
}

fn objective(objective: &mut ObjectiveSettings, args: &TrainingArgs) {
    set_single(&mut objective.mlm_probability, args.mlm_probability);
    objective.dropout = args.dropout.map(|p| p as f32);
}

fn loop_settings(train: &mut TrainSettings, args: &TrainingArgs) {
    set(&mut train.eval_every, &args.eval_every);
    saving(&mut train.save_every, &mut train.save_minutes, &args.run);
    set(&mut train.logging_steps, &args.run.logging_steps);
    let OptimizerArgs { lr_schedule, lr_horizon_steps, warmup_steps, .. } = &args.optimizer;
    set(&mut train.schedule.shape, lr_schedule);
    set(&mut train.schedule.horizon, lr_horizon_steps);
    set(&mut train.schedule.warmup_steps, warmup_steps);
    optimizer(&mut train.optimizer, &args.optimizer);
}

/// Without checkpoints at fixed steps on request, there are none at fixed times either.
fn saving(save_every: &mut u64, save_minutes: &mut f64, args: &RunArgs) {
    set(save_every, &args.save_every);
    if args.save_every == Some(0) {
        *save_minutes = 0.0;
    }
    set(save_minutes, &args.save_minutes);
}

/// Another optimiser has its own default constants and keeps the learning rate.
fn optimizer(settings: &mut OptimizerSettings, args: &OptimizerArgs) {
    set(&mut settings.learning_rate, &args.learning_rate);
    match args.optimizer {
        Some(kind) if kind == settings.kind => {}
        Some(OptimizerKind::AdamW) => *settings = OptimizerSettings::adamw(settings.learning_rate),
        Some(OptimizerKind::BertAdam) => *settings = OptimizerSettings::bert_adam(settings.learning_rate),
        None => {}
    }
    set(&mut settings.epsilon, &args.adam_epsilon);
    set(&mut settings.weight_decay, &args.weight_decay);
    set(&mut settings.max_grad_norm, &args.max_grad_norm);
    set(&mut settings.clip, &args.clip);
}

fn distillation(kd: &mut KdSettings, args: &DistillationArgs) {
    set_single(&mut kd.weight, args.kd_weight);
    set(&mut kd.representation, &args.kd_representation);
    set(&mut kd.distance, &args.kd_distance);
    set(&mut kd.relation, &args.kd_relation);
    set(&mut kd.relation_span, &args.kd_relation_layers);
    kd.attention |= args.kd_attention;
}

/// Given flags without effect on the task.
pub(crate) fn without_effect_on_task(args: &InputArgs, task: &Task) -> Vec<&'static str> {
    let flags = [
        ("--doc-stride", args.doc_stride.is_some()),
        ("--max-query-length", args.max_query_length.is_some()),
        ("--n-best", args.n_best.is_some()),
        ("--max-answer-length", args.max_answer_length.is_some()),
        ("--null-threshold", args.null_threshold.is_some()),
    ];
    let has_spans = matches!(task.head, Head::Span { .. });
    flags.into_iter().filter(|(_, given)| *given && !has_spans).map(|(name, _)| name).collect()
}
