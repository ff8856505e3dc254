//! The verbs, a file each.

mod apply;
mod bench;
mod cache;
mod demo;
mod encode;
mod eval;
mod export;
mod find;
mod generate;
mod import;
mod inspect;
mod kept;
mod pack;
mod predict;
mod pretrain;
mod report;
mod serve;
mod shared;
mod study;
mod task;
mod tune;

use anyhow::Result;
use tamt_kernels::check_cap;

use crate::args::Verb;
use crate::exit::UsageError;
use crate::printer::Printer;
use crate::signals::end_at_once;

/// Runs a verb.
pub(crate) fn run(verb: &Verb, printer: Printer) -> Result<()> {
    // Scripts for a shell and manual pages compute nothing.
    if verb.common().is_some() {
        check_cap().map_err(UsageError)?;
    }
    match verb {
        // These verbs have runs to save, or requests to answer, and listen themselves.
        Verb::Demo(_) | Verb::Pretrain(_) | Verb::Find(_) | Verb::Tune(_) | Verb::Study(_) | Verb::Serve(_) => {}
        _ => end_at_once(printer)?,
    }
    match verb {
        Verb::Demo(args) => demo::run(args, printer),
        Verb::Pretrain(args) => pretrain::run(args, printer),
        Verb::Find(args) => find::run(args, printer),
        Verb::Tune(args) => tune::run(args, printer),
        Verb::Inspect(args) => inspect::run(args, printer),
        Verb::Eval(args) => eval::run(args, printer),
        Verb::Predict(args) => predict::run(args, printer),
        Verb::Encode(args) => encode::run(args, printer),
        Verb::Serve(args) => serve::run(args, printer),
        Verb::Apply(args) => apply::run(args, printer),
        Verb::Pack(args) => pack::pack(args, printer),
        Verb::Unpack(args) => pack::unpack(args, printer),
        Verb::Export(args) => export::run(args, printer),
        Verb::Import(args) => import::run(args, printer),
        Verb::Bench(args) => bench::run(args, printer),
        Verb::Study(args) => study::run(args, printer),
        Verb::Report(args) => report::run(args, printer),
        Verb::Cache(args) => cache::run(args, printer),
        Verb::Completions(args) => generate::completions(args, printer),
        Verb::Man(args) => generate::man(args, printer),
    }
}
