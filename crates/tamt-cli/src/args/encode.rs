//! The flags of `tamt encode`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use tamt::encode::Pool;

use crate::args::choices;
use crate::args::common::{Common, SubjectArgs};
use crate::args::values::TextSource;

const EXAMPLES: &str = "\
Examples:
  tamt encode --model bert-base-uncased --input texts.txt --output vectors.safetensors
  echo 'a text' | tamt encode --model bert-base-uncased --ticket omp70 --pool cls \\
    --input - --output vector.safetensors";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EncodeArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,

    /// Texts, one a line; - is stdin
    #[arg(long, value_name = "FILE|-")]
    pub(crate) input: TextSource,

    /// File for the vectors
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) output: PathBuf,

    /// How token vectors are combined into the text's encoding
    #[arg(long, value_parser = choices::POOL, default_value = "mean")]
    pub(crate) pool: Pool,

    /// Cut texts to this many tokens, specials included [default: what the model holds]
    #[arg(long, value_name = "N")]
    pub(crate) max_length: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) common: Common,
}
