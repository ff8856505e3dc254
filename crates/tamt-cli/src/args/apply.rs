//! The flags of `tamt apply`.

use std::path::PathBuf;

use crate::args::common::Common;

const EXAMPLES: &str = "\
Examples:
  tamt apply --model bert-base-uncased --ticket omp70 --output-dir bert-omp70

  In Python then:
    transformers.AutoModel.from_pretrained(\"bert-omp70\")";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ApplyArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,

    /// Ticket file, or a directory holding ticket.safetensors
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: PathBuf,

    /// Accept a ticket that was found in other weights
    #[arg(long)]
    pub(crate) allow_other_base: bool,

    /// Directory of the checkpoint
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    #[command(flatten)]
    pub(crate) common: Common,
}
