//! What can be typed. What it means is for each verb to resolve: a flag that is not given is `None` here, because its
//! default depends on other flags and belongs to the library.

mod apply;
mod bench;
mod demo;
mod encode;
mod eval;
pub(crate) mod find;
mod inspect;
mod pretrain;
pub(crate) mod training;
pub(crate) mod tune;
pub(crate) mod values;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

pub(crate) use apply::ApplyArgs;
pub(crate) use bench::BenchArgs;
pub(crate) use demo::DemoArgs;
pub(crate) use encode::EncodeArgs;
pub(crate) use eval::EvalArgs;
pub(crate) use find::FindArgs;
pub(crate) use inspect::InspectArgs;
pub(crate) use pretrain::PretrainArgs;
pub(crate) use tune::TuneArgs;

use crate::config_file;
use values::{Kernel, Precision};

/// Finds small, sparse, transferable subnetworks inside pre-trained language models
#[derive(Debug, Parser)]
#[command(name = "tamt", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  tamt demo
  tamt find --model bert-base-uncased --method magnitude --sparsity 0.7 --output-dir omp70
  tamt inspect omp70

`tamt <COMMAND> --help` has more.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the whole way on an invented language, offline, in minutes
    Demo(DemoArgs),
    /// Train a new encoder, or train a given one further, on masked language modelling
    Pretrain(PretrainArgs),
    /// Find a subnetwork of a pre-trained encoder and write it as a ticket
    Find(FindArgs),
    /// Fine-tune a ticket, or the dense model, on a task
    Tune(TuneArgs),
    /// Show what tickets keep, matrix by matrix, and how alike they are
    Inspect(InspectArgs),
    /// Measure a model, dense or under a ticket, on text or on a task
    Eval(EvalArgs),
    /// Turn texts into vectors
    Encode(EncodeArgs),
    /// Write a dense checkpoint that has zeros where the ticket has them
    Apply(ApplyArgs),
    /// Measure how fast this machine computes, dense and sparse
    Bench(BenchArgs),
}

/// What every verb understands.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "General options")]
pub(crate) struct Common {
    /// Print the result, and nothing else, as one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,

    /// Number of threads; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// What operands of dense products are rounded to; auto is bf16 where the CPU has AVX-512-BF16, else f32
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    pub(crate) precision: Precision,

    /// What multiplies by masked matrices; auto takes for each the faster one at its density, as measured on this machine
    /// [default: auto; in bench dense and sparse]
    #[arg(long, value_enum)]
    pub(crate) kernel: Option<Kernel>,

    /// Print only errors and the result
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Read further flags by their names from this file; the command line wins
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
}

/// The model to work with, dense or under a ticket.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SubjectArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,

    /// Ticket file, or a directory holding ticket.safetensors [default: the dense model]
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<PathBuf>,

    /// Accept a ticket that was found in other weights
    #[arg(long, requires = "ticket")]
    pub(crate) allow_other_base: bool,
}

impl Verb {
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Demo(args) => &args.common,
            Self::Pretrain(args) => &args.common,
            Self::Find(args) => &args.common,
            Self::Tune(args) => &args.common,
            Self::Inspect(args) => &args.common,
            Self::Eval(args) => &args.common,
            Self::Encode(args) => &args.common,
            Self::Apply(args) => &args.common,
            Self::Bench(args) => &args.common,
        }
    }
}

/// Parses a command line, the program's name first, with the flags of its `--config` file.
///
/// The error is also how `--help` and `--version` come back: it knows its stream and exit code.
pub(crate) fn parse(line: Vec<OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(config_file::merge(&Cli::command(), line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
