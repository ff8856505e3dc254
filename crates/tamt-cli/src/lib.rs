//! The command `tamt`, and its verbs for other programs.
//!
//! [`main`] is the command, and [`call`](mod@call) runs a verb for a program that gives settings by name, without a
//! terminal: the Python package. A command flows through these modules:
//!
//! 1. `command_line` parses the words into `args` (`clap` structs, a file per verb); `config_file` first inserts the
//!    flags of a `--config` file, or of the `recorded` settings of the run to resume.
//! 2. `verbs` has a file per verb. A verb loads its inputs and calls `resolve`, which turns flags into settings of the
//!    library; a verb with a run directory collects settings and digests in a `record`.
//! 3. The verb calls the library (`tamt::find::find`, `tamt::tune::tune`, ...) with a `progress` observer and with a
//!    stop request from `signals`.
//! 4. The verb formats the result and gives it to the `printer`, the only module that writes to stdout and stderr.
//! 5. An error returns to `main`: the `printer` shows the error in the words of `messages`, where settings are flags,
//!    with advice from `hints`, and `exit` chooses the exit code. `advice` keeps both to the flags of the verb.
//!
//! A verb that another program calls has an `audience` instead of a terminal, which hears what the `printer` and
//! `progress` would show; `keywords` words messages for a program in which flags are keywords.

mod advice;
pub mod allocator;
mod args;
mod audience;
mod cache;
pub mod call;
mod command_line;
mod config_file;
mod effects;
mod exit;
mod flat;
mod hints;
mod keywords;
mod messages;
mod places;
mod present;
mod printer;
mod progress;
mod record;
mod recorded;
mod recorded_keys;
mod recorded_path;
mod resolve;
mod shell;
mod signals;
mod toml_lines;
mod verbs;
mod watch;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;

pub use crate::audience::Listener;

use crate::args::Verb;
use crate::args::common::Common;
use crate::printer::Printer;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let line: Vec<OsString> = env::args_os().collect();
    let verb = match command_line::parse(&line) {
        Ok(cli) => cli.verb,
        Err(answer) => {
            // The exit code tells the outcome even if the stream is closed.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(u8::MAX));
        }
    };
    let common = verb.common();
    let printer = common.map_or(Printer::new(false, false), |common| Printer::new(common.json, common.quiet));
    match run(&verb, common, printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            signals::wait_if_ending();
            printer.error(&error, &line);
            exit::code(&error)
        }
    }
}

fn run(verb: &Verb, common: Option<&Common>, printer: Printer) -> anyhow::Result<()> {
    if let Some(threads) = common.and_then(|common| common.threads) {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .with_context(|| format!("cannot start {threads} threads"))?;
    }
    // The verb runs on a thread of the pool, so that no parallel operation of a step has to wake the pool first.
    rayon::scope(|_| verbs::run(verb, printer))
}
