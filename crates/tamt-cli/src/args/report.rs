//! The flags of `tamt report`.

use std::path::PathBuf;

use crate::args::common::Common;

const EXAMPLES: &str = "\
Examples:
  tamt report study
  tamt report runs/magnitude-0.7 runs/tamt-mlm-0.7 runs/cola-* --output-dir report
  tamt report docs/data/minilm.csv --output-dir report

Reads what find, tune and study wrote; directories of single runs and of many runs are both read. The report has
report.html (one file without network), report.md, runs.csv (a line for each run), tables/*.csv, tables/*.tex and
figures/*.svg. A run without a whole result is named with the reason, and no mean includes the run.
A file, alone, is the runs.csv of another report under any name. Its report lacks what other files of the runs have:
masks, operations, steps of fine-tuning, settings and commands.";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Directories of a study, of runs, or of many runs; or one file, the runs.csv of another report
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Directory for the report; files of an older report are replaced [default: `report` in the first PATH, or beside
    /// the file]
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) common: Common,
}
