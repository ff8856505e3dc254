//! The command `tamt`.

mod args;
mod config_file;
mod exit;
mod hints;
mod printer;
mod progress;
mod signals;
mod verbs;

use std::env;
use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Common, Verb};
use crate::printer::Printer;

fn main() -> ExitCode {
    let verb = match args::parse(env::args_os().collect()) {
        Ok(cli) => cli.verb,
        Err(answer) => {
            // Help for a closed pipe, or an error nobody can see: the exit code still tells.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(u8::MAX));
        }
    };
    let common = verb.common();
    let printer = Printer::new(common.json, common.quiet);
    match run(&verb, common, printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer.error(&error);
            exit::code(&error)
        }
    }
}

fn run(verb: &Verb, common: &Common, printer: Printer) -> anyhow::Result<()> {
    if let Some(threads) = common.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()
            .with_context(|| format!("cannot start {threads} threads"))?;
    }
    verbs::run(verb, printer)
}
