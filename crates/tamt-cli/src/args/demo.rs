//! The flags of `tamt demo`.

use std::path::PathBuf;

use crate::args::common::Common;
use crate::args::values;

const EXAMPLES: &str = "\
Examples:
  tamt demo
  tamt demo --seed 7 --output-dir demo-7

  Its corpora and its tasks, for your own runs:
    tamt demo --data-only language
    tamt tune --model tamt-demo/model --task rte --data language/tasks --output-dir rte

  Going on after Ctrl-C:
    tamt demo --resume";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Directory of the texts, the model, the tickets and the results
    #[arg(long, value_name = "DIR", default_value = "tamt-demo")]
    pub(crate) output_dir: PathBuf,

    /// Only write the language's tokenizer, corpora and task files, into this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output_dir", "resume"])]
    pub(crate) data_only: Option<PathBuf>,

    /// Seed of everything random, the language included [default: 42]
    #[arg(long, value_name = "N", value_parser = values::seed)]
    pub(crate) seed: Option<u64>,

    /// Go on with the demonstration in the output directory; an empty directory starts a new one
    #[arg(long)]
    pub(crate) resume: bool,

    #[command(flatten)]
    pub(crate) common: Common,
}
