//! A worker: takes runs one after the other until all have ended.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tamt::run::Stop;
use tamt_study::lease::{Lease, Leases};
use tamt_study::queue::{Next, Queue};
use tamt_study::record::Outcome;
use tamt_study::run::Run;
use tamt_study::store::State;
use tamt_study::worker::{Heartbeat, PATIENCE, Work, Worker};

use crate::args::study::StudyArgs;
use crate::exit::Interrupted;
use crate::present;
use crate::printer::Printer;
use crate::progress::{StudyProgress, duration};
use crate::signals::Signals;
use crate::verbs::study::attempt::{Attempt, Ended};
use crate::verbs::study::opened::Study;

/// Time between two looks at the runs of other workers.
const LOOK: Duration = Duration::from_secs(1);

/// SIGTERM.
const TERMINATE: i32 = 15;

/// Works until all runs have ended that can.
pub(super) fn work(study: &Study, queue: &mut Queue<'_>, args: &StudyArgs, printer: Printer) -> Result<()> {
    let signals = Signals::listen(printer)?;
    if args.tied {
        stop_with_parent(signals.stop())?;
    }
    let worker = Arc::new(Worker::join(&study.store, PATIENCE)?);
    let this = This {
        study,
        worker: worker.clone(),
        signals,
        progress: StudyProgress::new(printer, study.runs.len() as u64),
        held: Arc::default(),
        printer,
    };
    let outcome = this.until_the_end(queue);
    this.free();
    worker.leave();
    outcome
}

/// The lease of the present run, and when it was taken.
type Held = Arc<Mutex<Option<(Lease, String, Instant)>>>;

/// Whether another worker has taken the present run. A lease that cannot be looked at is no sign of that.
fn is_lost(held: &Held) -> bool {
    let held = held.lock().unwrap_or_else(PoisonError::into_inner);
    held.as_ref().is_some_and(|(lease, ..)| matches!(lease.is_held(), Ok(false)))
}

struct This<'a> {
    study: &'a Study,
    worker: Arc<Worker>,
    signals: Signals,
    progress: StudyProgress,
    held: Held,
    printer: Printer,
}

impl This<'_> {
    fn until_the_end(&self, queue: &mut Queue<'_>) -> Result<()> {
        let leases = Leases::new(&self.study.store, self.worker.clone());
        let (held, worker) = (self.held.clone(), self.worker.clone());
        self.signals.at_exit(move || {
            if let Some((lease, ..)) = &*held.lock().unwrap_or_else(PoisonError::into_inner) {
                // The lease of a process that has ended is taken over as well, only later.
                let _ = lease.free();
            }
            worker.leave();
        });
        let _heartbeat = self.heartbeat()?;
        self.worker.clean_up()?;
        // Runs whose turn comes when another one has ended, or when there is no other.
        let mut busy = BTreeSet::new();
        loop {
            self.stop_if_asked()?;
            match queue.next(&leases, &busy)? {
                Next::Run { run, state, lease } => {
                    if self.one(queue, &self.study.runs[run], &state, lease)? {
                        busy.clear();
                    } else {
                        busy.insert(run);
                    }
                }
                Next::GiveUp { run, deaths, lease } => {
                    let run = &self.study.runs[run];
                    self.give_up(run, deaths, lease)?;
                }
                Next::Wait => {
                    busy.clear();
                    thread::sleep(LOOK);
                }
                Next::End => return Ok(()),
            }
        }
    }

    /// Signs of life, with a check that no other worker has taken the present run.
    fn heartbeat(&self) -> Result<Heartbeat> {
        let (held, stop) = (self.held.clone(), self.signals.stop());
        let work = move || {
            let held = held.lock().unwrap_or_else(PoisonError::into_inner);
            let (_, run, since) = held.as_ref()?;
            let present = present::get().unwrap_or_default();
            let (run, stage, seconds) = (run.clone(), present.stage, since.elapsed().as_secs_f64());
            let (step, total, seconds_left) = (present.step, present.total, present.seconds_left);
            Some(Work { run, stage, step, total, seconds_left, seconds })
        };
        let held = self.held.clone();
        let check = move || {
            if is_lost(&held) {
                stop.request(TERMINATE);
            }
        };
        Ok(Heartbeat::start(self.worker.clone(), work, check)?)
    }

    /// Makes an attempt at a run. False if another process writes the run's directory or its ticket.
    fn one(&self, queue: &Queue<'_>, run: &Run, state: &State, lease: Lease) -> Result<bool> {
        let attempts = lease.attempts();
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((lease, run.id.clone(), Instant::now()));
        present::set(None);
        let work = Work { run: run.id.clone(), ..Work::default() };
        self.worker.beat(Some(work))?;
        self.announce(queue, run, state);
        let started = Instant::now();
        let lost = || is_lost(&self.held);
        let ended = Attempt::new(run, &self.study.store, attempts, self.printer, &lost).make(state)?;
        match ended {
            Ended::Recorded(outcome) => {
                if let Some((lease, ..)) = self.held.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    lease.end()?;
                }
                let word = if outcome == Outcome::Done { "done" } else { "failed" };
                let took = duration(started.elapsed().as_secs_f64());
                self.progress.note(&format!("{}: {word} after {took}", run.directory().display()));
                Ok(true)
            }
            Ended::Busy => {
                self.free();
                Ok(false)
            }
            Ended::Lost => {
                // The lease is another's, so there is none to free.
                self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
                bail!("another worker has taken {}: this process did not answer for too long", run.name);
            }
            Ended::Stopped(signal) => {
                self.free();
                Err(Interrupted { signal }.into())
            }
        }
    }

    fn announce(&self, queue: &Queue<'_>, run: &Run, state: &State) {
        let directory = run.directory();
        if let State::Damaged { reason } = state {
            self.progress.note(&format!("{}: {reason}; the run is done again", directory.display()));
        }
        let (counts, total) = (queue.counts(), self.study.runs.len() as u64);
        let verb = if *state == State::Started { "going on with" } else { "beginning" };
        self.progress.at((counts.done + counts.failed) as u64, total, &format!("{verb} {}", directory.display()));
    }

    fn give_up(&self, run: &Run, deaths: u64, lease: Lease) -> Result<()> {
        let lost = || matches!(lease.is_held(), Ok(false));
        let attempt = Attempt::new(run, &self.study.store, lease.attempts(), self.printer, &lost);
        attempt.fail(format!("it ended its worker {deaths} times"))?;
        lease.end()?;
        self.progress.note(&format!("{}: failed: it ended its worker {deaths} times", run.directory().display()));
        Ok(())
    }

    /// Gives the present lease back.
    fn free(&self) {
        if let Some((lease, ..)) = self.held.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The lease of a process that has ended is taken over as well, only later.
            let _ = lease.free();
        }
    }

    fn stop_if_asked(&self) -> Result<()> {
        self.signals.stop().requested().map_or(Ok(()), |signal| Err(Interrupted { signal }.into()))
    }
}

/// Requests a stop when stdin ends: the process that started this one is gone, or wants it to stop.
fn stop_with_parent(stop: Stop) -> Result<()> {
    let watch = move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 64];
        while !matches!(stdin.read(&mut buffer), Ok(0) | Err(_)) {}
        stop.request(TERMINATE);
    };
    thread::Builder::new().name("parent".to_owned()).spawn(watch)?;
    Ok(())
}
