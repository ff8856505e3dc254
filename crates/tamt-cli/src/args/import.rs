//! The flags of `tamt import`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::common::Common;

const EXAMPLES: &str = "\
FILE is one of
  * a PyTorch file of masks, as the reference's and BERT-Tickets' programs save them: zeros and ones of any type under
    the names of the matrices, with or without .weight, _mask, bert. or module.
  * a state dict that torch.nn.utils.prune left (weight_orig and weight_mask), or a directory with such a checkpoint
  * an .npz or a .safetensors file of zeros and ones under such names
  * a checkpoint in compressed-tensors' format sparse-bitmask
Pickles are read by a reader that executes nothing. Matrices without a mask stay dense.

Examples:
  tamt import --model bert-base-uncased mask.pt --output-dir imported
  tamt import --model bert-base-uncased --zeros-of pruned-bert --output-dir imported";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// Masks to make a ticket of
    #[arg(value_name = "FILE", required_unless_present = "zeros_of", conflicts_with = "zeros_of")]
    pub(crate) file: Option<PathBuf>,

    /// The model that the masks belong to: a directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: OsString,

    /// Make the ticket of the zeros in this checkpoint
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) zeros_of: Option<PathBuf>,

    /// Directory of the ticket
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    #[command(flatten)]
    pub(crate) common: Common,
}
