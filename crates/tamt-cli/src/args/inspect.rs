//! The flags of `tamt inspect`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::common::Common;

const EXAMPLES: &str = "\
Examples:
  tamt inspect magnitude70
  tamt inspect mlm70/checkpoint-1000 mlm70 --against magnitude70
  tamt inspect mlm70 --json | jq .sparsity";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Ticket files, or directories holding ticket.safetensors
    #[arg(value_name = "TICKET", required = true)]
    pub(crate) tickets: Vec<PathBuf>,

    /// Ticket to compare with
    #[arg(long, value_name = "TICKET")]
    pub(crate) against: Option<PathBuf>,

    /// Check the tickets against this model: a directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<OsString>,

    #[command(flatten)]
    pub(crate) common: Common,
}
