//! `tamt study`: runs all experiments of a plan.

mod attempt;
mod estimate;
mod flags;
mod jobs;
mod meaning;
mod opened;
#[cfg(test)]
mod plans;
mod show;
mod slurm;
mod worker;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tamt_study::queue::Queue;
use tamt_study::record::{Outcome, Record};
use tamt_study::run::Run;
use tamt_study::store::Store;
use tamt_study::study::{is_in_use, runs_of, unused};

use crate::args::study::StudyArgs;
use crate::exit::Interrupted;
use crate::printer::Printer;
use crate::verbs::study::opened::Study;

pub(super) fn run(args: &StudyArgs, printer: Printer) -> Result<()> {
    if args.slurm.is_some() && !args.dry_run {
        // Nothing is written for a submission that cannot be.
        slurm::require()?;
    }
    let root = args.store.as_ref().unwrap_or(&args.output_dir);
    // The command lines of runs, with their directories, are recorded as JSON.
    ensure!(root.to_str().is_some(), "{}: the directory of a study needs a name in UTF-8", root.display());
    let mut digests = Store::at(root).digests();
    let (plan, runs) = runs_of(&args.plan, &flags::OwnCommands::new(), &mut digests)?;
    // A look leaves no traces.
    let only_looks = args.dry_run || args.status;
    let store = if only_looks { Store::at(root) } else { Store::open(root)? };
    if store.own("").is_dir() {
        digests.save()?;
    }
    if args.dry_run && args.slurm.is_none() {
        return show::dry_run(&store, &runs, printer);
    }
    if args.status {
        return show::status(&store, &runs, printer);
    }
    let study = Study { plan, runs, store, directory: args.output_dir.clone() };
    if let Some(flags) = args.slurm.as_ref().filter(|_| args.dry_run) {
        let open = Queue::new(&study.runs, &study.store)?.counts().open;
        let script = slurm::script(&study, args, flags, open)?;
        return printer.result(&json!({ "script": script }), &script);
    }
    if args.retry_failed {
        forget_failures(&study.store, &study.runs)?;
    }
    let mut queue = Queue::new(&study.runs, &study.store)?;
    study.write(&queue)?;
    if args.prune {
        return prune(&study.store, &study.runs, printer);
    }
    let open = queue.counts().open;
    if let Some(flags) = args.slurm.as_ref().filter(|_| open > 0) {
        return slurm::submit(&study, args, flags, open, printer);
    }
    if open > 0 {
        match args.jobs {
            Some(jobs) if jobs.get() > 1 => jobs::run(&study, &mut queue, args, jobs.get(), printer)?,
            // The process of --jobs tells the end.
            _ if args.tied => return ignore_stop(worker::work(&study, &mut queue, args, printer)),
            _ => worker::work(&study, &mut queue, args, printer)?,
        }
        queue.refresh()?;
    }
    study.end(&queue, printer)
}

/// The outcome of a worker of --jobs, which stops as it is told.
fn ignore_stop(outcome: Result<()>) -> Result<()> {
    outcome.or_else(|error| if error.is::<Interrupted>() { Ok(()) } else { Err(error) })
}

/// Removes the records of failures, so that the runs go on.
fn forget_failures(store: &Store, runs: &[Run]) -> Result<()> {
    for run in runs {
        let directory = store.directory(run);
        if let Ok(Some(Record { status: Outcome::Failed, .. })) = Record::read(&directory) {
            tamt_study::files::remove(&directory.join(tamt_study::record::RECORD_FILE))?;
        }
    }
    Ok(())
}

/// Removes what no study of the store names.
fn prune(store: &Store, runs: &[Run], printer: Printer) -> Result<()> {
    let mut removed = Vec::new();
    for directory in unused(store, runs)? {
        // The removals take their time, in which a study may begin.
        if is_in_use(store, &directory)? {
            continue;
        }
        printer.info(&format!("removing {}", directory.display()))?;
        let path = store.root().join(&directory);
        tamt_study::files::remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        removed.push(directory);
    }
    let text = format!("removed {} directories\n", removed.len());
    printer.result(&json!({ "removed": removed }), &text)
}
