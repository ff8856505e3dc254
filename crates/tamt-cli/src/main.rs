//! The command `tamt`.

mod allocator;
mod args;
mod config_file;
mod exit;
mod hints;
mod printer;
mod progress;
mod record;
mod resolve;
mod signals;
mod verbs;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Common, Verb};
use crate::printer::Printer;

#[global_allocator]
static ALLOCATOR: allocator::LineAllocator = allocator::LineAllocator;

fn main() -> ExitCode {
    let line: Vec<OsString> = env::args_os().collect();
    let verb = match args::parse(line.clone()) {
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
            printer.error(&error, &line);
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
    // On a thread of the pool: called from outside, every parallel operation of a step would first wake one.
    rayon::scope(|_| verbs::run(verb, printer))
}
