use std::path::PathBuf;

use super::Common;

const EXAMPLES: &str = "\
Examples:
  tamt demo
  tamt demo --seed 7 --output-dir demo-7";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Where the runs are written [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,

    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    #[command(flatten)]
    pub(crate) common: Common,
}
