//! From the words of a command line to the flags of a verb.

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::args::Cli;
use crate::config_file;

/// Parses a command line, the program's name first, with the flags of its `--config` file. `--help` and `--version` are
/// errors as well, which know their streams and exit codes.
pub(crate) fn parse(line: &[OsString]) -> Result<Cli, clap::Error> {
    let command = Cli::command();
    let merged = config_file::merge(&command, line.to_vec())?;
    Cli::try_parse_from(merged).map_err(|error| config_file::explain(&command, line, error))
}
