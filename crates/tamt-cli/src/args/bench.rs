//! The flags of `tamt bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use tamt::bench::Work;

use crate::args::common::Common;
use crate::args::{choices, values};

const EXAMPLES: &str = "\
Examples:
  Everything at the default shape, a 6-layer encoder of width 384 on 16 x 128 tokens:
    tamt bench

  BERT-base, inference of 8 x 64 tokens, a ticket at 70 %:
    tamt bench --layers 12 --hidden 768 --heads 12 --batch-size 8 --length 64 --work inference --sparsity 0.7

  A ticket of a model on this machine, beside the dense model:
    tamt bench --model bert-base-uncased --ticket magnitude70 --batch-size 8 --length 64

  Mask training as a run would do it, for a script:
    tamt bench --work mask-training --sparsity 0.7 --kernel auto --no-operations --json";

/// The flags that describe a random model.
const SHAPE: [&str; 5] = ["layers", "hidden", "heads", "ffn", "vocab"];

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Measure whole steps of this model, a directory in Hugging Face layout or a hub id [default: a random model of the
    /// shape below, and single operations]
    #[arg(long, value_name = "MODEL", conflicts_with_all = SHAPE)]
    pub(crate) model: Option<String>,

    /// Ticket of the model [default: masks of the model's largest weights, for each sparsity]
    #[arg(long, value_name = "TICKET", requires = "model", conflicts_with = "sparsity")]
    pub(crate) ticket: Option<PathBuf>,

    /// Accept a ticket that was found in other weights
    #[arg(long, requires = "ticket")]
    pub(crate) allow_other_base: bool,

    /// Transformer layers
    #[arg(long, value_name = "N", default_value = "6", value_parser = values::count)]
    pub(crate) layers: NonZeroUsize,

    /// Width of a token's hidden state
    #[arg(long, value_name = "N", default_value = "384", value_parser = values::count)]
    pub(crate) hidden: NonZeroUsize,

    /// Attention heads; divides the width
    #[arg(long, value_name = "N", default_value = "12", value_parser = values::count)]
    pub(crate) heads: NonZeroUsize,

    /// Width of the feed-forward network's inner layer [default: 4 times the width]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) ffn: Option<NonZeroUsize>,

    /// Tokens of the vocabulary
    #[arg(long, value_name = "N", default_value = "30522", value_parser = values::count)]
    pub(crate) vocab: NonZeroUsize,

    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value = "16", value_parser = values::count)]
    pub(crate) batch_size: NonZeroUsize,

    /// Tokens in a sequence [default: 128, or what the model holds if less]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) length: Option<NonZeroUsize>,

    /// Dropout rate in training
    #[arg(long, value_name = "P", default_value = "0.1", value_parser = values::dropout)]
    pub(crate) dropout: f64,

    /// Kinds of steps
    #[arg(long, value_parser = choices::BENCH_WORK, value_delimiter = ',', default_value = "mask-training,fine-tuning,inference")]
    pub(crate) work: Vec<Work>,

    /// Shares of dropped weights
    #[arg(long, value_name = "0.5,..", value_delimiter = ',', default_value = "0.5,0.7,0.8,0.9,0.95",
          value_parser = values::sparsity)]
    pub(crate) sparsity: Vec<f64>,

    /// Leave single operations out
    #[arg(long)]
    pub(crate) no_operations: bool,

    /// Steps before the clock runs
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::whole)]
    pub(crate) warmup: u64,

    /// Steps that are timed
    #[arg(long, value_name = "N", default_value = "3", value_parser = values::steps)]
    pub(crate) steps: u64,

    #[command(flatten)]
    pub(crate) common: Common,
}
