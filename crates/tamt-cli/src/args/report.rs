//! The flags of `tamt report`.

use std::path::PathBuf;

use crate::args::common::Common;

const EXAMPLES: &str = "\
Examples:
  tamt report study
  tamt report runs/magnitude-0.7 runs/tamt-mlm-0.7 runs/cola-* --output-dir report

Reads what find, tune and study wrote; directories of single runs and of many runs are both read. The report has
report.html (one file without network), report.md, runs.csv (a line for each run), tables/*.csv, tables/*.tex and
figures/*.svg. A run without a whole result is named with the reason, and no mean includes the run.";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Directories of a study, of runs, or of many runs
    #[arg(value_name = "DIR", required = true)]
    pub(crate) directories: Vec<PathBuf>,

    /// Directory for the report; files of an older report are replaced [default: `report` in the first DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) common: Common,
}
