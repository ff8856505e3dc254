//! The flags of `tamt tune`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ArgGroup;
use tamt::tune::KeptModel;

use crate::args::common::{Common, SubjectArgs};
use crate::args::task::TaskArgs;
use crate::args::training::{OptimizerArgs, RunArgs};
use crate::args::{choices, values};

const EXAMPLES: &str = "\
Examples:
  A ticket on a GLUE task, with the benchmark's settings:
    tamt tune --model bert-base-uncased --ticket mlm70 --task mrpc --data glue/MRPC --output-dir mrpc70

  Three seeds, mean and standard deviation:
    tamt tune --model bert-base-uncased --ticket mlm70 --task rte --data glue --seeds 1,2,3 --output-dir rte70

  Little data: the same 1,000 examples for every method:
    tamt tune --model bert-base-uncased --ticket mlm70 --task mnli --data glue --train-examples 1000 \\
      --epochs 8 --output-dir mnli70-1k

  Your own task:
    tamt tune --model bert-base-uncased --task-file reviews.toml --data reviews --output-dir reviews-dense";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").args(["task", "task_file"]).required(true))]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,

    #[command(flatten)]
    pub(crate) task: TaskArgs,

    /// Run directory; with several seeds, the parent of a run directory for each seed
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    /// Start with a new head although the model has one
    #[arg(long)]
    pub(crate) new_head: bool,

    /// Leave the pooler dense although the ticket masks it; no pre-training loss trains that mask
    #[arg(long)]
    pub(crate) dense_pooler: bool,

    /// Write predictions for the test splits too, in the form of the GLUE server
    #[arg(long)]
    pub(crate) predict_test: bool,

    #[command(flatten)]
    pub(crate) fitting: FittingArgs,

    #[command(flatten)]
    pub(crate) teacher: TeacherArgs,

    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// The length and the data of a fine-tuning. Defaults are the task's.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct FittingArgs {
    /// Times through the training set
    #[arg(long, value_name = "X", value_parser = values::positive)]
    pub(crate) epochs: Option<f64>,

    /// Optimiser steps, instead of --epochs
    #[arg(long, value_name = "N", conflicts_with = "epochs", value_parser = values::steps)]
    pub(crate) max_steps: Option<u64>,

    /// Train on N examples only (questions, for spans), the same ones for every method
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) train_examples: Option<NonZeroUsize>,

    /// Examples (windows, for spans) per step
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) batch_size: Option<NonZeroUsize>,

    /// Seed of head, data order, subset and dropout [default: 42]
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub(crate) seed: Option<u64>,

    /// Several seeds, one run each; the result is their mean and standard deviation
    #[arg(long, value_name = "1,2,..", value_delimiter = ',', conflicts_with = "seed", value_parser = values::whole)]
    pub(crate) seeds: Vec<u64>,

    /// Dropout rate in training [default: the model's own]
    #[arg(long, value_name = "P", value_parser = values::dropout)]
    pub(crate) dropout: Option<f64>,

    /// Evaluate every N steps [default: the task's]
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) eval_every: Option<u64>,

    /// Stop after N evaluations without a better score
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) early_stopping: Option<u64>,

    /// Which model is written [default: best]
    #[arg(long, value_parser = choices::KEPT_MODEL)]
    pub(crate) keep: Option<KeptModel>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Distillation from a dense model that was tuned on the same task.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Distillation")]
pub(crate) struct TeacherArgs {
    /// Teacher: a model that `tamt tune` wrote for the same task
    #[arg(long, value_name = "MODEL")]
    pub(crate) teacher: Option<OsString>,

    /// Temperature that divides the logits of model and teacher [default: 2]
    #[arg(long, value_name = "X", requires = "teacher", value_parser = values::positive)]
    pub(crate) kd_temperature: Option<f64>,

    /// Weight of the teacher's outputs beside the labels [default: 1]
    #[arg(long, value_name = "X", requires = "teacher", value_parser = values::not_negative)]
    pub(crate) kd_logits_weight: Option<f64>,

    /// Weight of the teacher's hidden states [default: 1]
    #[arg(long, value_name = "X", requires = "teacher", value_parser = values::not_negative)]
    pub(crate) kd_hidden_weight: Option<f64>,
}
