//! Flags of the verbs that read a task.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Arg;

use crate::args::values;

/// A task, the directory of its data, and the settings of its tokens.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Task", mut_args(of_data))]
pub(crate) struct TaskArgs {
    /// cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, squad or squad2
    #[arg(long, value_name = "TASK", requires = "data")]
    pub(crate) task: Option<String>,

    /// Your own task, declared in a TOML file
    #[arg(long, value_name = "FILE.toml", requires = "data", conflicts_with = "task")]
    pub(crate) task_file: Option<PathBuf>,

    /// The task's directory, or one of several tasks' directories
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Labels in the order of the classifier's outputs, for a fine-tuned model that does not name them as the task does
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', requires = "data")]
    pub(crate) labels: Vec<String>,

    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

/// From texts to tokens, and from a head's outputs to answers.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Task")]
pub(crate) struct InputArgs {
    /// Tokens per sequence, specials included [default: the task's, or what the model holds if less;
    /// `eval` and `predict` take a tuned model's own settings, here and below]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_length: Option<NonZeroUsize>,

    /// Spans: tokens from the start of a window to the start of the next [default: 128]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) doc_stride: Option<NonZeroUsize>,

    /// Spans: tokens of the question that are kept [default: 64]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_query_length: Option<NonZeroUsize>,

    /// Spans: candidates per window and per question [default: 20]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) n_best: Option<NonZeroUsize>,

    /// Spans: tokens in the longest answer [default: 30]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub(crate) max_answer_length: Option<NonZeroUsize>,

    /// Spans: predict no answer if its score exceeds the best answer's by more than X [default: 0]
    #[arg(long, value_name = "X", value_parser = values::number)]
    pub(crate) null_threshold: Option<f64>,
}

/// Makes the flags of [`InputArgs`], which have no meaning for text, require the task's data.
fn of_data(flag: Arg) -> Arg {
    match flag.get_id().as_str() {
        "max_length" | "doc_stride" | "max_query_length" | "n_best" | "max_answer_length" | "null_threshold" => {
            flag.requires("data")
        }
        _ => flag,
    }
}
