//! The flags of `tamt eval`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ArgGroup;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tamt::evaluate::EvalLosses;

use crate::args::choices;
use crate::args::common::{Common, SubjectArgs};
use crate::args::task::TaskArgs;
use crate::args::values::{self, EvalHead};

const EXAMPLES: &str = "\
Examples:
  The dense model on text it has not seen:
    tamt eval --model bert-base-uncased --corpus wiki.valid.raw

  A ticket, also by how far its hidden states are from the dense model's:
    tamt eval --model bert-base-uncased --ticket magnitude70 --corpus wiki.valid.raw

  Mask training also trains the MLM head; with that one instead of the model's:
    tamt eval --model bert-base-uncased --ticket mlm70 --mlm-head ticket --corpus wiki.valid.raw

  A fine-tuned model on its task's development set:
    tamt eval --model mrpc70 --task mrpc --data glue/MRPC";

/// The flags that choose a task instead of text.
const OF_A_TASK: [&str; 2] = ["task", "task_file"];

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").args(["corpus", "task", "task_file"]).required(true))]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,

    /// Text to evaluate on, one paragraph a line; its tokens are kept for later runs, see `tamt cache --help`
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) corpus: Vec<PathBuf>,

    /// What is measured [default: all, or kd for a model without an MLM head]
    #[arg(long, value_parser = choices::EVAL_OBJECTIVE, conflicts_with_all = OF_A_TASK)]
    pub(crate) objective: Option<EvalLosses>,

    /// MLM head to predict with: pretrained (the model's), ticket (the one trained with it), or a file
    #[arg(
        long,
        value_name = "HEAD",
        default_value = "pretrained",
        value_parser = OsStringValueParser::new().try_map(values::eval_head),
        conflicts_with_all = OF_A_TASK
    )]
    pub(crate) mlm_head: EvalHead,

    /// Evaluate only the first N tokens of the text [default: all]
    #[arg(long, value_name = "N", conflicts_with_all = OF_A_TASK, value_parser = values::count)]
    pub(crate) max_tokens: Option<NonZeroUsize>,

    /// Tokens per sequence, specials included [default: as `find` evaluated the ticket; else 512, or what the model holds if
    /// less]
    #[arg(long, value_name = "N", conflicts_with_all = OF_A_TASK, value_parser = values::count)]
    pub(crate) block_size: Option<NonZeroUsize>,

    /// Share of tokens that masked language modelling predicts [default: as `find` evaluated the ticket; else 0.15]
    #[arg(long, value_name = "P", value_parser = values::open_probability, conflicts_with_all = OF_A_TASK)]
    pub(crate) mlm_probability: Option<f64>,

    /// Seed of the masked positions [default: as `find` evaluated the ticket; else 42]
    #[arg(long, value_name = "N", value_parser = values::whole, conflicts_with_all = OF_A_TASK)]
    pub(crate) seed: Option<u64>,

    /// Also write the result into this directory, as a run has it
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) task: TaskArgs,

    #[command(flatten)]
    pub(crate) common: Common,
}
