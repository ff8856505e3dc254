//! The flags of `tamt find`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use tamt::find::{MaskInit, Method, Rewind};
use tamt::objective::{Distance, Relation, Representation, Span};
use tamt::prune::Scope;
use tamt::scores::{Binarizer, ScoreInit};

use crate::args::choices::{self, GetPreset};
use crate::args::common::Common;
use crate::args::training::TrainingArgs;
use crate::args::values;

const EXAMPLES: &str = "\
Examples:
  One-shot magnitude pruning, each matrix to 70 % zeros:
    tamt find --model bert-base-uncased --method magnitude --sparsity 0.7 --output-dir magnitude70

  Mask training on text, in minutes for a small encoder:
    tamt find --model minilm-mlm --method tamt-kd --preset short --sparsity 0.7 \\
      --corpus wiki.train.raw --eval-corpus wiki.valid.raw --output-dir kd70

  What the paper did, in hours or days:
    tamt find --model bert-base-uncased --method tamt-mlm --preset paper --sparsity 0.7 \\
      --corpus wiki.train.raw --eval-corpus wiki.valid.raw --output-dir mlm70

  Going on after Ctrl-C:
    tamt find ... --output-dir mlm70 --resume";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("lr_horizon_steps", |arg| arg
    .help("Step at which the learning rate reaches zero [default: the number of steps; with `--preset paper`, two \
           epochs of the text if they are longer]")))]
pub(crate) struct FindArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: OsString,

    /// How to choose the weights to keep
    #[arg(long, value_parser = choices::METHOD)]
    pub(crate) method: Method,

    /// Fraction of the prunable weights to drop, of each matrix or (--scope global) of all together
    #[arg(long, value_name = "FRACTION", value_parser = values::sparsity)]
    pub(crate) sparsity: f64,

    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    /// Text to train on, one paragraph a line; its tokens are kept for later runs, see `tamt cache --help`
    #[arg(long, value_name = "FILE", num_args = 1.., required_if_eq_any = [
        ("method", "imp"), ("method", "tamt-mlm"), ("method", "tamt-kd"), ("method", "tamt-mlm-kd"),
    ])]
    pub(crate) corpus: Vec<PathBuf>,

    /// Optimiser steps; methods that train need them, from here or from --preset
    #[arg(long, value_name = "N", value_parser = values::steps)]
    pub(crate) max_steps: Option<u64>,

    /// Start from settings that belong together; other flags still win
    #[arg(long, value_parser = choices::PRESET)]
    pub(crate) preset: Option<GetPreset>,

    /// Whether every matrix gets the same sparsity [default: local]
    #[arg(long, value_parser = choices::SCOPE)]
    pub(crate) scope: Option<Scope>,

    /// Encoder layers to prune, counted from 0 [default: all]; word embeddings and pooler are pruned in any case
    #[arg(long, value_name = "0,1,..", value_delimiter = ',', value_parser = values::index)]
    pub(crate) layers: Vec<usize>,

    /// Accept a ticket for --init that was found in other weights
    #[arg(long)]
    pub(crate) allow_other_base: bool,

    #[command(flatten)]
    pub(crate) masks: MaskArgs,

    #[command(flatten)]
    pub(crate) distillation: DistillationArgs,

    #[command(flatten)]
    pub(crate) pruning: PruningArgs,

    #[command(flatten)]
    pub(crate) training: TrainingArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// How masks are parametrised (methods tamt-*).
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Mask training")]
pub(crate) struct MaskArgs {
    /// Mask to start from: magnitude, random, or a ticket [default: magnitude]
    #[arg(long, value_name = "MASK", value_parser = OsStringValueParser::new().try_map(values::initial_mask))]
    pub(crate) init: Option<MaskInit>,

    /// How the first scores follow from that mask [default: two-level]
    ///
    /// The reference's `magnitude_and_uniform` has no name of its own: over the matrices of the encoder it is two-level.
    #[arg(long, value_parser = choices::SCORE_INIT)]
    pub(crate) score_init: Option<ScoreInit>,

    /// Half-width of the interval that scores are drawn from, with uniform scores and the sign binarizer [default: 0.02]
    #[arg(long, value_name = "X", value_parser = values::positive)]
    pub(crate) init_scale: Option<f64>,

    /// How a score becomes a bit [default: threshold]
    #[arg(long, value_parser = choices::BINARIZER)]
    pub(crate) binarizer: Option<Binarizer>,

    /// Score above which a weight is kept at the start [default: 0.01]
    #[arg(long, value_name = "X", value_parser = values::single_number)]
    pub(crate) threshold: Option<f64>,

    /// Re-set the thresholds to the exact sparsity every N steps (0: never) [default: 100]
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub(crate) rethreshold_every: Option<u64>,

    /// Also write the ticket after these steps, 0 being the first mask, into step-N in the run directory
    #[arg(long, value_name = "0,100,..", value_delimiter = ',', value_parser = values::whole)]
    pub(crate) ticket_steps: Vec<u64>,

    /// Do not train the MLM head
    #[arg(long)]
    pub(crate) freeze_head: bool,
}

/// What is distilled from the dense model (methods tamt-kd, tamt-mlm-kd).
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Distillation")]
pub(crate) struct DistillationArgs {
    /// Weight of distillation beside masked language modelling [default: 1]
    #[arg(long, value_name = "X", value_parser = values::positive)]
    pub(crate) kd_weight: Option<f64>,

    /// Which hidden states are compared [default: full]
    #[arg(long, value_parser = choices::KD_REPRESENTATION)]
    pub(crate) kd_representation: Option<Representation>,

    /// Distance between hidden states [default: cosine]
    #[arg(long, value_parser = choices::KD_DISTANCE)]
    pub(crate) kd_distance: Option<Distance>,

    /// Compare attention scores as well
    #[arg(long)]
    pub(crate) kd_attention: bool,

    /// Which relations between hidden states are compared [default: none]
    #[arg(long, value_parser = choices::KD_RELATION)]
    pub(crate) kd_relation: Option<Relation>,

    /// Layers whose relations are compared [default: full]
    #[arg(long, value_parser = choices::KD_RELATION_LAYERS)]
    pub(crate) kd_relation_layers: Option<Span>,
}

/// The rounds of iterative magnitude pruning (method imp).
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Iterative magnitude pruning")]
pub(crate) struct PruningArgs {
    /// What happens to the weights after each pruning [default: pretrained]
    #[arg(long, value_parser = choices::REWIND)]
    pub(crate) rewind: Option<Rewind>,

    /// Training steps per round, instead of --max-steps; each round prunes a tenth of the weights
    #[arg(long, value_name = "N", conflicts_with = "max_steps", value_parser = values::steps)]
    pub(crate) steps_per_round: Option<u64>,
}
