//! The flags of `tamt study`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use tamt::Kernel;
use tamt_kernels::Precision;

use crate::args::choices::GetPrecision;
use crate::args::common::Common;
use crate::args::values;

const EXAMPLES: &str = "\
Examples:
  What would run, what is done, how long the rest takes:
    tamt study plan.toml --output-dir results --dry-run

  All runs of the plan, and the same command after a kill or with a longer plan:
    tamt study plan.toml --output-dir results

  Two at a time, each with half of the cores:
    tamt study plan.toml --output-dir results --jobs 2

  One more worker, on any machine that sees the directory:
    tamt study plan.toml --output-dir results --worker

  Eight workers on a cluster with Slurm; --dry-run shows the script:
    tamt study plan.toml --output-dir results --slurm \"--array=0-7 --cpus-per-task=4 --time=24:00:00\"

docs/study.md describes plans.";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("precision", |flag| flag.hide(true).value_parser(|value: &str| of_the_plan::<GetPrecision>(value, Precision::native))))]
#[command(mut_arg("kernel", |flag| flag.hide(true).value_parser(|value: &str| of_the_plan(value, Kernel::Auto))))]
pub(crate) struct StudyArgs {
    /// The plan
    #[arg(value_name = "PLAN.toml")]
    pub(crate) plan: PathBuf,

    /// Directory of the study
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: PathBuf,

    /// Directory of the runs, which several plans may share [default: the output directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// Only list the runs, with an estimate of time and disk space from a short measurement
    #[arg(long, group = "instead")]
    pub(crate) dry_run: bool,

    /// Only show what is done, running, failed and to do
    #[arg(long, group = "instead")]
    pub(crate) status: bool,

    /// Remove the runs of the store that no study names, and what was set aside
    #[arg(long, group = "instead")]
    pub(crate) prune: bool,

    /// Share the runs with the other workers of the study, and say nothing but what this one does
    #[arg(long, conflicts_with = "instead")]
    pub(crate) worker: bool,

    /// Run N workers on this machine, which share the threads
    #[arg(long, value_name = "N", conflicts_with_all = ["instead", "worker"], value_parser = values::threads)]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Submit an array job whose tasks are workers, with these flags of sbatch [default: 8 tasks at most]
    #[arg(
        long,
        value_name = "SBATCH FLAGS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        conflicts_with_all = ["status", "prune", "worker", "jobs"]
    )]
    pub(crate) slurm: Option<String>,

    /// Run again what has failed
    #[arg(long, conflicts_with = "instead")]
    pub(crate) retry_failed: bool,

    /// Stop when stdin ends: the sign that the process of --jobs has ended
    #[arg(long, hide = true, requires = "worker")]
    pub(crate) tied: bool,

    #[command(flatten)]
    pub(crate) common: Common,
}

/// The value of a flag that the plan has for each of its runs: none but `auto`.
fn of_the_plan<T>(value: &str, auto: T) -> Result<T, String> {
    let refused = "the plan says so for its runs: a line in [tickets], [losses] and [tasks]";
    if value == "auto" { Ok(auto) } else { Err(refused.to_owned()) }
}
