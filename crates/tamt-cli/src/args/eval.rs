use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::Common;
use super::values::{self, EvalObjective};

const EXAMPLES: &str = "\
Examples:
  The dense model on text it has not seen:
    tamt eval --model bert-base-uncased --corpus wiki.valid.raw

  A ticket, also by how far its hidden states are from the dense model's:
    tamt eval --model bert-base-uncased --ticket omp70 --corpus wiki.valid.raw --objective all";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,

    /// Ticket file, or a directory holding ticket.safetensors [default: the dense model]
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<PathBuf>,

    /// Accept a ticket that was found in other weights
    #[arg(long, requires = "ticket")]
    pub(crate) allow_other_base: bool,

    /// Text to evaluate on, one paragraph a line
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) corpus: Vec<PathBuf>,

    /// What is measured
    #[arg(long, value_enum, default_value_t = EvalObjective::Mlm)]
    pub(crate) objective: EvalObjective,

    /// Sequences computed at a time; results do not depend on it
    #[arg(long, value_name = "N", default_value = "16")]
    pub(crate) batch_size: NonZeroUsize,

    /// Tokens per sequence, specials included [default: 512, or what the model holds if less]
    #[arg(long, value_name = "N")]
    pub(crate) block_size: Option<NonZeroUsize>,

    /// Share of tokens that masked language modelling predicts
    #[arg(long, value_name = "P", value_parser = values::open_probability, default_value = "0.15")]
    pub(crate) mlm_probability: f64,

    /// Seed of the masked positions
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) common: Common,
}
