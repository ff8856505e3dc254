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

  Going on after Ctrl-C or a kill is the same command. More sparsities, methods or seeds:
    edit tamt-demo/plan.toml, and again
    tamt demo";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("precision", |arg| arg
    .help("Precision of the operands of dense products; in f32 processors with AVX-512 give the same numbers")
    .default_value("f32")))]
pub(crate) struct DemoArgs {
    /// Directory of the language, the model, the plan, its runs and the report
    #[arg(long, value_name = "DIR", default_value = "tamt-demo")]
    pub(crate) output_dir: PathBuf,

    /// Only write the language's tokenizer, corpora and task files, into this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output_dir", "resume"])]
    pub(crate) data_only: Option<PathBuf>,

    /// Seed of the language, of its texts and tasks, and of the model [default: 42]
    #[arg(long, value_name = "N", value_parser = values::whole)]
    pub(crate) seed: Option<u64>,

    /// Go on with the demonstration in the output directory, as the same command does without this flag
    #[arg(long)]
    pub(crate) resume: bool,

    /// A demonstration of seconds, which shows nothing: for tests
    #[arg(long, hide = true)]
    pub(crate) tiny: bool,

    #[command(flatten)]
    pub(crate) common: Common,
}
