//! The flags of `tamt pretrain`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgGroup;
use tamt::pretrain::Train;

use crate::args::common::Common;
use crate::args::training::TrainingArgs;
use crate::args::{choices, values};

const EXAMPLES: &str = "\
Examples:
  A new encoder of the shape in config.json:
    tamt pretrain --new config.json --tokenizer bert-base-uncased --corpus wiki.train.raw \\
      --max-steps 10000 --output-dir small-bert

  Only a head for an encoder that came without one:
    tamt pretrain --model my-encoder --train head --corpus wiki.train.raw --max-steps 2000 \\
      --output-dir with-head";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("start").args(["model", "new"]).required(true))]
pub(crate) struct PretrainArgs {
    /// Text to train on, one paragraph a line; its tokens are kept for later runs, see `tamt cache --help`
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) corpus: Vec<PathBuf>,

    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    /// Go on from this model: a directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<OsString>,

    /// Which weights are trained [default: all]
    #[arg(long, value_parser = choices::TRAINABLE_WEIGHTS, conflicts_with = "new")]
    pub(crate) train: Option<Train>,

    /// Start a new model with this configuration
    #[arg(long, value_name = "CONFIG.json", requires = "tokenizer")]
    pub(crate) new: Option<PathBuf>,

    /// The new model's tokenizer: a directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub(crate) tokenizer: Option<OsString>,

    /// Optimiser steps
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) max_steps: u64,

    #[command(flatten)]
    pub(crate) training: TrainingArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}
