//! The flags of `tamt apply`.

use std::ffi::OsString;
use std::path::PathBuf;

use tamt_model::Dtype;

use crate::args::choices;
use crate::args::common::Common;

const EXAMPLES: &str = "\
All tensors of the model are written, task heads included, with its configuration, its tokenizer and its
sentence-transformers files. An MLM decoder that is tied to the word embeddings gets their zeros too: transformers
stores the two as one matrix, whereas find, eval and tune decode with the dense one.

Examples:
  tamt apply --model bert-base-uncased --ticket magnitude70 --output-dir bert-70

  In Python then:
    transformers.AutoModel.from_pretrained(\"bert-70\")";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ApplyArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: OsString,

    /// Ticket file, or a directory holding ticket.safetensors
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: PathBuf,

    /// Accept a ticket that was found in other weights
    #[arg(long)]
    pub(crate) allow_other_base: bool,

    /// Directory of the checkpoint
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    /// What weights are rounded to; zeros stay zeros [default: what each tensor of the model is]
    #[arg(long, value_parser = choices::DTYPE)]
    pub(crate) dtype: Option<Dtype>,

    #[command(flatten)]
    pub(crate) common: Common,
}
