//! The flags of `tamt encode`.

use std::path::PathBuf;

use tamt::encode::Pool;

use crate::args::choices;
use crate::args::common::{Common, SubjectArgs};
use crate::args::values::TextSource;
use crate::args::vectors::VectorArgs;

const EXAMPLES: &str = "\
Examples:
  tamt encode --model bert-base-uncased --input texts.txt --output vectors.safetensors
  echo 'a text' | tamt encode --model bert-base-uncased --ticket magnitude70 --pool cls \\
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
    /// [default: as the model's sentence-transformers files say, else mean]
    #[arg(long, value_parser = choices::POOL)]
    pub(crate) pool: Option<Pool>,

    #[command(flatten)]
    pub(crate) vectors: VectorArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}
