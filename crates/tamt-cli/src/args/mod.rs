//! The command line as it is typed. A flag that is not given is `None` here: its default belongs to the library and
//! depends on other flags, so `resolve` finds it.

pub(crate) mod apply;
pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod choices;
pub(crate) mod common;
pub(crate) mod demo;
pub(crate) mod encode;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod find;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod pack;
pub(crate) mod predict;
pub(crate) mod pretrain;
pub(crate) mod report;
pub(crate) mod serve;
pub(crate) mod study;
pub(crate) mod task;
pub(crate) mod training;
pub(crate) mod tune;
pub(crate) mod values;
pub(crate) mod vectors;

use clap::{Command, Parser, Subcommand};

use crate::args::apply::ApplyArgs;
use crate::args::bench::BenchArgs;
use crate::args::cache::CacheArgs;
use crate::args::common::Common;
use crate::args::demo::DemoArgs;
use crate::args::encode::EncodeArgs;
use crate::args::eval::EvalArgs;
use crate::args::export::ExportArgs;
use crate::args::find::FindArgs;
use crate::args::generate::{CompletionsArgs, ManArgs};
use crate::args::import::ImportArgs;
use crate::args::inspect::InspectArgs;
use crate::args::pack::{PackArgs, UnpackArgs};
use crate::args::predict::PredictArgs;
use crate::args::pretrain::PretrainArgs;
use crate::args::report::ReportArgs;
use crate::args::serve::ServeArgs;
use crate::args::study::StudyArgs;
use crate::args::tune::TuneArgs;

/// Finds small, sparse, transferable subnetworks inside pre-trained language models
#[derive(Debug, Parser)]
#[command(name = "tamt", version, arg_required_else_help = true, after_help = EXAMPLES)]
#[command(mut_subcommands(with_negative_numbers))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  tamt demo
  tamt find --model bert-base-uncased --method magnitude --sparsity 0.7 --output-dir magnitude70
  tamt inspect magnitude70

`tamt <COMMAND> --help` has more.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Pre-train, find and tune on an invented language; offline, in minutes
    Demo(DemoArgs),
    /// Train a new encoder, or train a given one further, on masked language modelling
    Pretrain(PretrainArgs),
    /// Find a subnetwork of a pre-trained encoder and write it as a ticket
    Find(FindArgs),
    /// Fine-tune a ticket, or the dense model, on a task
    Tune(TuneArgs),
    /// Show the sparsity of tickets, matrix by matrix, and their similarity
    Inspect(InspectArgs),
    /// Measure a model, dense or under a ticket, on text or on a task
    Eval(EvalArgs),
    /// Predict labels, numbers or answers for new texts with a fine-tuned model
    Predict(PredictArgs),
    /// Turn texts into vectors
    Encode(EncodeArgs),
    /// Serve vectors and predictions over HTTP
    Serve(ServeArgs),
    /// Write a dense checkpoint that has zeros where the ticket has them
    Apply(ApplyArgs),
    /// Write a small model: a bit for each weight of a pruned matrix, and the values of the kept ones
    Pack(PackArgs),
    /// Write the dense checkpoint of a packed model
    Unpack(UnpackArgs),
    /// Write a ticket or a model for other programs: PyTorch, transformers, ONNX
    Export(ExportArgs),
    /// Make a ticket of masks that were made elsewhere, or of a checkpoint's zeros
    Import(ImportArgs),
    /// Measure how fast this machine computes, dense and sparse
    Bench(BenchArgs),
    /// Run all experiments of a plan, through any interruption, with any number of workers
    Study(StudyArgs),
    /// Write tables, figures and a page of finished runs
    Report(ReportArgs),
    /// List or remove the stored tokens of texts
    Cache(CacheArgs),
    /// Print a script that completes verbs and flags in a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

/// The verb with flags whose values may be negative numbers (not lists of them): a number that a flag does not take is
/// refused with the flag's bound, instead of as an unknown flag.
fn with_negative_numbers(verb: Command) -> Command {
    verb.mut_args(|argument| {
        let takes_values = argument.get_action().takes_values();
        argument.allow_negative_numbers(takes_values)
    })
}

impl Verb {
    /// The flags that all verbs of the engine have in common.
    pub(crate) fn common(&self) -> Option<&Common> {
        Some(match self {
            Self::Demo(args) => &args.common,
            Self::Pretrain(args) => &args.common,
            Self::Find(args) => &args.common,
            Self::Tune(args) => &args.common,
            Self::Inspect(args) => &args.common,
            Self::Eval(args) => &args.common,
            Self::Predict(args) => &args.common,
            Self::Encode(args) => &args.common,
            Self::Serve(args) => &args.common,
            Self::Apply(args) => &args.common,
            Self::Pack(args) => &args.common,
            Self::Unpack(args) => &args.common,
            Self::Export(args) => &args.common,
            Self::Import(args) => &args.common,
            Self::Bench(args) => &args.common,
            Self::Study(args) => &args.common,
            Self::Report(args) => &args.common,
            Self::Cache(args) => &args.common,
            Self::Completions(_) | Self::Man(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    /// The placeholders of numbers.
    const NUMBERS: [&str; 11] =
        ["N", "X", "P", "MS", "SECONDS", "BYTES", "FRACTION", "0,1,..", "0,100,..", "1,2,..", "0.5,.."];
    /// Flags that take any number.
    const OF_ANY_SIGN: [&str; 2] = ["threshold", "null-threshold"];

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The text of the error about the value of a flag; `None` for a value that the flag takes.
    fn refusal(verb: &str, flag: &str, value: &str) -> Option<String> {
        let parsed = Cli::try_parse_from(["tamt", verb, &format!("--{flag}"), value]);
        let error = parsed.err()?;
        // A value is checked ahead of the combination of flags.
        assert!(![ErrorKind::UnknownArgument, ErrorKind::InvalidValue].contains(&error.kind()), "{error}");
        (error.kind() == ErrorKind::ValueValidation).then(|| error.to_string())
    }

    #[test]
    fn a_number_that_a_flag_does_not_take_is_refused_with_the_flag_and_its_bound() {
        let mut command = Cli::command();
        command.build();
        let mut seen = 0;
        for verb in command.get_subcommands() {
            for argument in verb.get_arguments() {
                let number = argument.get_value_names().filter(|names| NUMBERS.contains(&names[0].as_str()));
                let (Some(_), Some(flag)) = (number, argument.get_long()) else { continue };
                seen += 1;
                let refused = ["-1", "0", "-0.5"].map(|value| refusal(verb.get_name(), flag, value));
                assert_eq!(refused[0].is_none(), OF_ANY_SIGN.contains(&flag), "--{flag} -1");
                for text in refused.into_iter().flatten() {
                    let line = text.lines().next().unwrap_or_default();
                    let bound = ["it must be at least ", "it must be above ", "it must not be negative", "it is "];
                    assert!(line.contains(&format!("for '--{flag} <")), "{text}");
                    assert!(bound.iter().any(|bound| line.contains(&format!(">': {bound}"))), "{text}");
                }
            }
        }
        assert!(seen > 80, "{seen} flags take numbers");
        for (verb, flag) in [("find", "batch-size"), ("predict", "n-best"), ("bench", "vocab"), ("study", "jobs")] {
            assert!(refusal(verb, flag, "0").is_some_and(|text| text.contains("it must be at least 1")), "--{flag} 0");
        }
    }
}
