//! `--jobs N`: workers as processes of their own, which share the threads of this machine.

use std::env;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tamt_study::queue::Queue;
use tamt_study::worker::signs;

use crate::args::study::StudyArgs;
use crate::exit::Interrupted;
use crate::printer::Printer;
use crate::progress::{StudyProgress, duration};
use crate::signals::Signals;
use crate::verbs::study::opened::Study;

/// Time between two looks at what the workers do.
const LOOK: Duration = Duration::from_secs(1);
/// Time within which a signal, or the end of the last worker, is answered.
const ANSWER: Duration = Duration::from_millis(20);

/// Starts the workers and waits for their end. A worker that was killed is not replaced: the others take its run.
pub(super) fn run(study: &Study, queue: &mut Queue<'_>, args: &StudyArgs, jobs: usize, printer: Printer) -> Result<()> {
    let signals = Signals::listen(printer)?;
    let stop = signals.stop();
    let _held = stop.hold().map_err(|signal| Interrupted { signal })?;
    let progress = StudyProgress::new(printer, study.runs.len() as u64);
    let shares = shares(rayon::current_num_threads(), jobs);
    let mut children = shares.into_iter().map(|threads| start(args, threads)).collect::<Result<Vec<_>>>()?;
    let (mut said, mut looked) = (Vec::new(), None::<Instant>);
    while are_running(&mut children)? {
        if stop.requested().is_some() {
            // The end of its stdin stops a worker.
            children.iter_mut().for_each(|child| drop(child.stdin.take()));
        }
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            queue.refresh()?;
            let counts = queue.counts();
            let now = present(study)?;
            let runs: Vec<String> = now.iter().map(|(run, _)| run.clone()).collect();
            let text = now.into_iter().map(|(run, left)| format!("{run}{left}")).collect::<Vec<_>>().join(", ");
            // Without a terminal, another time left is no news.
            if runs != said || progress.is_bar() {
                progress.at((counts.done + counts.failed) as u64, study.runs.len() as u64, &text);
                said = runs;
            }
        }
        thread::sleep(ANSWER);
    }
    drop(progress);
    if let Some(signal) = stop.requested() {
        return Err(Interrupted { signal }.into());
    }
    queue.refresh()?;
    if queue.counts().open > 0 {
        bail!("all workers have ended, and {} runs are left; the same command goes on", queue.counts().open);
    }
    Ok(())
}

fn are_running(children: &mut [Child]) -> Result<bool> {
    let mut running = false;
    for child in children {
        running |= child.try_wait().context("cannot wait for a worker")?.is_none();
    }
    Ok(running)
}

/// The threads of each worker.
fn shares(threads: usize, jobs: usize) -> Vec<usize> {
    (0..jobs).map(|job| ((job + 1) * threads / jobs - job * threads / jobs).max(1)).collect()
}

fn start(args: &StudyArgs, threads: usize) -> Result<Child> {
    let program = env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("study").arg(&args.plan).arg("--output-dir").arg(&args.output_dir);
    if let Some(store) = &args.store {
        command.arg("--store").arg(store);
    }
    command.args(["--worker", "--tied", "--quiet", "--threads"]).arg(threads.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().context("cannot start a worker")
}

/// What the workers do: each run with the time left.
fn present(study: &Study) -> Result<Vec<(String, String)>> {
    let mut parts = Vec::new();
    for sign in signs(&study.store)?.values() {
        let Some(work) = &sign.work else { continue };
        let Some(run) = study.runs.iter().find(|run| run.id == work.run) else { continue };
        let left = work.seconds_left.map_or_else(String::new, |left| format!(" ({} left)", duration(left)));
        parts.push((run.directory().display().to_string(), left));
    }
    parts.sort();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out_and_every_worker_has_one() {
        assert_eq!(shares(8, 3), [2, 3, 3]);
        assert_eq!(shares(2, 3), [1, 1, 1]);
    }
}
