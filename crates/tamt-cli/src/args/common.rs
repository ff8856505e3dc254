//! Flags of several verbs.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use tamt::Kernel;

use crate::args::choices::{self, GetPrecision};
use crate::args::values;

/// The flags of every verb.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "General options")]
pub(crate) struct Common {
    /// Print the result, and nothing else, as one JSON object on stdout
    #[arg(long)]
    pub(crate) json: bool,

    /// Number of threads, at most 1024; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Precision of the operands of dense products; auto is bf16 where the CPU has AVX-512-BF16, else f32
    #[arg(long, default_value = "auto", value_parser = choices::PRECISION)]
    pub(crate) precision: GetPrecision,

    /// Kernel for masked matrices; auto chooses one for each matrix, by its density and the processor's instructions
    /// [default: auto; in bench dense and sparse]
    #[arg(long, value_parser = choices::KERNEL)]
    pub(crate) kernel: Option<Kernel>,

    /// Print only errors, warnings and the result
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Read further flags from this file, by their names at the top level; it may be the config.toml of a run, edited or
    /// not, apart from its threads and digests; the command line wins
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
}

/// The model that a verb reads, dense or under a ticket.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SubjectArgs {
    /// Directory in Hugging Face layout, or a hub id
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: OsString,

    /// Ticket file, or a directory holding ticket.safetensors [default: the dense model]
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<PathBuf>,

    /// Accept a ticket that was found in other weights
    #[arg(long, requires = "ticket")]
    pub(crate) allow_other_base: bool,
}
