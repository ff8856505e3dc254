use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::values::{Pool, TextSource};
use super::{Common, SubjectArgs};

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

    /// Where the vectors are written
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) output: PathBuf,

    /// What becomes of the vectors of a text's tokens
    #[arg(long, value_enum, default_value_t = Pool::Mean)]
    pub(crate) pool: Pool,

    /// Cut texts to this many tokens, specials included [default: what the model holds]
    #[arg(long, value_name = "N")]
    pub(crate) max_length: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) common: Common,
}
