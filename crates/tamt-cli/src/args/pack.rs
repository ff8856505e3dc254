//! The flags of `tamt pack` and `tamt unpack`.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::choices;
use crate::args::common::{Common, SubjectArgs};

const PACK_EXAMPLES: &str = "\
A pruned matrix takes a bit for each weight and the values of the kept weights. Without --ticket,
the zeros of the model are what is pruned: those of a tuned ticket, say. Task heads, tokenizer and
sentence-transformers files come along. Every verb takes the directory as --model; encode, predict
and eval never hold its dense matrices.

Examples:
  tamt pack --model bert-base-uncased --ticket magnitude70 --output-dir bert-70
  tamt pack --model runs/cola --precision f32 --output-dir cola-packed
  tamt encode --model bert-70 --input texts.txt --output vectors.safetensors";

const UNPACK_EXAMPLES: &str = "\
The checkpoint is that of `tamt apply --dtype` with the precision of the packed values.

Examples:
  tamt unpack --model bert-70 --output-dir bert-70-dense";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = PACK_EXAMPLES)]
#[command(mut_arg("precision", |arg| arg
    .help("Precision of the stored values, of all tensors of the model")
    .default_value("bf16")
    .value_parser(choices::PACKED_PRECISION)
    .help_heading(None::<&str>)))]
#[command(mut_arg("ticket", |arg| arg
    .help("Ticket file, or a directory holding ticket.safetensors [default: the zeros of the model]")))]
pub(crate) struct PackArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,

    /// Directory of the packed model
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = UNPACK_EXAMPLES)]
pub(crate) struct UnpackArgs {
    /// Directory of a packed model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: OsString,

    /// Directory of the dense checkpoint
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    #[command(flatten)]
    pub(crate) common: Common,
}
