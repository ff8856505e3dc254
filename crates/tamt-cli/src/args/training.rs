//! Flags of the verbs that train.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use tamt::train::{Clip, OptimizerKind, Shape};

use crate::args::{choices, values};

/// The flags of the training loop, for the verbs that train.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct TrainingArgs {
    /// Text to evaluate on while training, one paragraph a line
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) eval_corpus: Vec<PathBuf>,

    /// Sequences per step [default: 16]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) batch_size: Option<NonZeroUsize>,

    /// Tokens per sequence, specials included [default: 512, in pretrain 128, or what the model holds if less]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) block_size: Option<NonZeroUsize>,

    /// Share of tokens that masked language modelling predicts [default: 0.15]
    #[arg(long, value_name = "P", value_parser = values::open_probability)]
    pub(crate) mlm_probability: Option<f64>,

    /// Dropout rate in training [default: the model's own]
    #[arg(long, value_name = "P", value_parser = values::dropout)]
    pub(crate) dropout: Option<f64>,

    /// Seed of everything random [default: 42]
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub(crate) seed: Option<u64>,

    /// Evaluate every N steps [default: only at the end]
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) eval_every: Option<u64>,

    #[command(flatten)]
    pub(crate) run: RunArgs,

    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,
}

/// The checkpoints and the log of a run that trains.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct RunArgs {
    /// Save a checkpoint every N steps too; 0 saves only on a signal and ahead of the last evaluation
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub(crate) save_every: Option<u64>,

    /// Save a checkpoint every X minutes; 0 for none at fixed times [default: 10, with --save-every 0 none]
    #[arg(long, value_name = "X", value_parser = values::not_negative)]
    pub(crate) save_minutes: Option<f64>,

    /// Log every N steps [default: 10]
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) logging_steps: Option<u64>,

    /// Go on with the run in the output directory, with its settings; an empty directory starts a new one
    ///
    /// No other flag is needed. A flag that is given must agree with the run's, but for paths, saving, logging and threads,
    /// and for a larger number of steps where the learning rates do not depend on it.
    #[arg(long)]
    pub(crate) resume: bool,
}

/// The optimiser and its schedule. Defaults depend on the method.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Optimiser")]
pub(crate) struct OptimizerArgs {
    /// Which optimiser
    #[arg(long, value_parser = choices::OPTIMIZER)]
    pub(crate) optimizer: Option<OptimizerKind>,

    /// Peak learning rate
    #[arg(long, value_name = "X", value_parser = values::positive)]
    pub(crate) learning_rate: Option<f64>,

    /// Course of the learning rate after the warm-up
    #[arg(long, value_parser = choices::LR_SCHEDULE)]
    pub(crate) lr_schedule: Option<Shape>,

    /// Step at which the learning rate reaches zero [default: the number of steps]
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) lr_horizon_steps: Option<u64>,

    /// Steps in which the learning rate rises from zero
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub(crate) warmup_steps: Option<u64>,

    /// Weight decay
    #[arg(long, value_name = "X", value_parser = values::not_negative)]
    pub(crate) weight_decay: Option<f64>,

    /// Added to the root of the second moment
    #[arg(long, value_name = "X", value_parser = values::positive)]
    pub(crate) adam_epsilon: Option<f64>,

    /// What gradient clipping limits: the norm of all gradients, of each tensor's, or nothing
    #[arg(long, value_parser = choices::CLIP)]
    pub(crate) clip: Option<Clip>,

    /// Maximum gradient norm
    #[arg(long, value_name = "X", value_parser = values::positive)]
    pub(crate) max_grad_norm: Option<f64>,
}
