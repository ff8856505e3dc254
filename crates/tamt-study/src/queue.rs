//! The choice of the next run.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::files;
use crate::labels::Kind;
use crate::lease::{Lease, Leases};
use crate::run::Run;
use crate::store::{State, Store};

/// Deaths without progress after which a run is tried behind all others.
const DEFERRED_AFTER: u64 = 2;

/// Deaths without progress after which a run has failed, if enough of them were seen by one process. A process that is
/// started anew tries the run again: a person, or a machine that came back, may have ended its workers.
const FAILED_AFTER: u64 = 3;

/// Deaths that one process must have seen.
const WITNESSED: u64 = 2;

/// What a worker does next.
#[derive(Debug)]
pub enum Next {
    /// Runs a run, under a lease.
    Run {
        /// The position of the run.
        run: usize,
        /// The state of the run when the lease was taken.
        state: State,
        /// The lease.
        lease: Lease,
    },
    /// Records that a run has ended its workers too often.
    GiveUp {
        /// The position of the run.
        run: usize,
        /// The deaths.
        deaths: u64,
        /// The lease.
        lease: Lease,
    },
    /// Waits for the runs of other workers.
    Wait,
    /// Everything has ended that can be done.
    End,
}

/// Counts of the runs by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Done.
    pub done: usize,
    /// Failed.
    pub failed: usize,
    /// Waiting for a ticket whose search failed.
    pub blocked: usize,
    /// All the others.
    pub open: usize,
}

/// The runs of a study with their states, as far as this process knows.
#[derive(Debug)]
pub struct Queue<'a> {
    runs: &'a [Run],
    store: &'a Store,
    states: Vec<State>,
    /// Positions by identity.
    positions: BTreeMap<&'a str, usize>,
}

/// What keeps a run from beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// The search for the run's ticket has not ended.
    Ticket,
    /// The search for the run's ticket has failed.
    Failed,
}

impl<'a> Queue<'a> {
    /// Reads the states of all runs.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::UnknownFormat`](crate::Error::UnknownFormat).
    pub fn new(runs: &'a [Run], store: &'a Store) -> Result<Self> {
        let states = runs.iter().map(|run| store.state(run)).collect::<Result<_>>()?;
        let positions = runs.iter().enumerate().map(|(at, run)| (run.id.as_str(), at)).collect();
        Ok(Self { runs, store, states, positions })
    }

    /// The states, in the order of the runs.
    #[must_use]
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Reads the states of the runs that had not ended.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::UnknownFormat`](crate::Error::UnknownFormat).
    pub fn refresh(&mut self) -> Result<()> {
        (0..self.runs.len()).try_for_each(|at| self.look(at).map(|_| ()))
    }

    /// Reads the state of a run that had not ended, and says whether it has.
    fn look(&mut self, at: usize) -> Result<bool> {
        if !has_ended(&self.states[at]) {
            self.states[at] = self.store.state(&self.runs[at])?;
        }
        Ok(has_ended(&self.states[at]))
    }

    /// Counts of the runs by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (run, state) in self.runs.iter().zip(&self.states) {
            match state {
                State::Done { .. } => counts.done += 1,
                State::Failed { .. } => counts.failed += 1,
                _ if self.is_blocked(run) => counts.blocked += 1,
                _ => counts.open += 1,
            }
        }
        counts
    }

    /// Whether the search for the run's ticket has failed.
    #[must_use]
    pub fn is_blocked(&self, run: &Run) -> bool {
        let Some(ticket) = &run.ticket else { return false };
        let own = ticket.sources.last().and_then(|source| self.positions.get(source.run.as_str()));
        own.is_some_and(|&at| matches!(self.states[at], State::Failed { .. }))
            && !self.store.find(ticket).is_ok_and(|found| found.is_some())
    }

    /// Takes the next run. Those at the positions `busy`, which another process writes without a lease, count as runs
    /// of other workers.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::UnknownFormat`](crate::Error::UnknownFormat).
    pub fn next(&mut self, leases: &Leases, busy: &BTreeSet<usize>) -> Result<Next> {
        let leased = leases.known()?;
        let mut waiting = false;
        let mut deferred = Vec::new();
        for at in 0..self.runs.len() {
            if has_ended(&self.states[at]) {
                continue;
            }
            if busy.contains(&at) {
                waiting = true;
                continue;
            }
            match self.need(at)? {
                Need::Nothing => {}
                Need::Failed => continue,
                Need::Ticket => {
                    waiting = true;
                    continue;
                }
            }
            if leased.contains(&self.runs[at].id) {
                let status = leases.status(&self.runs[at].id)?;
                if self.look(at)? {
                    // Its worker died between the record and the end of the lease, unless it is about to end it.
                    if status.holder.is_none() {
                        leases.forget(&self.runs[at].id)?;
                    }
                    continue;
                }
                if status.holder.is_some() {
                    waiting = true;
                    continue;
                }
                if status.deaths >= DEFERRED_AFTER {
                    deferred.push((status.deaths, at, status.witnessed));
                    continue;
                }
            }
            if self.look(at)? {
                continue;
            }
            match self.take(at, leases)? {
                Some(next) => return Ok(next),
                None => waiting = true,
            }
        }
        self.next_deferred(deferred, waiting, leases)
    }

    /// Takes a run that has ended workers, the one with the fewest deaths first. A deferred run is (deaths, position, deaths
    /// that this process has seen).
    fn next_deferred(
        &mut self,
        mut deferred: Vec<(u64, usize, u64)>,
        mut waiting: bool,
        leases: &Leases,
    ) -> Result<Next> {
        deferred.sort_unstable();
        for (deaths, at, witnessed) in deferred {
            match self.take(at, leases)? {
                Some(Next::Run { run, lease, .. }) if deaths >= FAILED_AFTER && witnessed >= WITNESSED => {
                    return Ok(Next::GiveUp { run, deaths, lease });
                }
                Some(next) => return Ok(next),
                None => waiting = true,
            }
        }
        Ok(if waiting { Next::Wait } else { Next::End })
    }

    /// What keeps a run from beginning.
    fn need(&mut self, at: usize) -> Result<Need> {
        let Some(ticket) = &self.runs[at].ticket else { return Ok(Need::Nothing) };
        let own = ticket.sources.last().and_then(|source| self.positions.get(source.run.as_str())).copied();
        if let Some(own) = own {
            self.look(own)?;
        }
        if self.store.find(ticket)?.is_some() {
            return Ok(Need::Nothing);
        }
        if let Some(own) = own.filter(|&own| matches!(self.states[own], State::Done { .. })) {
            // A worker of another plan, which asks for tickets that the search did not write, does the search again.
            self.states[own] = self.store.state(&self.runs[own])?;
        }
        let has_failed = own.is_some_and(|own| matches!(self.states[own], State::Failed { .. }));
        Ok(if has_failed { Need::Failed } else { Need::Ticket })
    }

    /// Takes a run's lease; `None` if another worker was faster, or has ended the run meanwhile.
    fn take(&mut self, at: usize, leases: &Leases) -> Result<Option<Next>> {
        let run = &self.runs[at];
        let Some(lease) = leases.take(&run.id, self.newest_checkpoint(run)?)? else { return Ok(None) };
        let state = self.store.state(run)?;
        self.states[at] = state.clone();
        if has_ended(&state) {
            lease.end()?;
            return Ok(None);
        }
        Ok(Some(Next::Run { run: at, state, lease }))
    }

    /// The step of the newest checkpoint in the run's directory.
    fn newest_checkpoint(&self, run: &Run) -> Result<Option<u64>> {
        if run.kind == Kind::Losses {
            return Ok(None);
        }
        let names = files::entries(&self.store.directory(run))?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).max())
    }
}

fn has_ended(state: &State) -> bool {
    matches!(state, State::Done { .. } | State::Failed { .. })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::labels::Labels;
    use crate::record::TICKET_FILE;
    use crate::record::{FORMAT, Machine, Outcome, Record};
    use crate::worker::Worker;

    fn search(id: &str) -> Run {
        let (ticket_steps, levels, alternatives) = (Vec::new(), Vec::new(), Vec::new());
        let (id, name, labels, command) = (id.to_owned(), format!("search-{id}"), Labels::default(), Vec::new());
        Run {
            kind: Kind::Find,
            id,
            name,
            labels,
            choice: String::new(),
            command,
            ticket_steps,
            levels,
            alternatives,
            ticket: None,
            line: 1,
        }
    }

    fn losses(id: &str, of: &Run) -> Run {
        Run { kind: Kind::Losses, ticket: Some(of.ticket_after(None)), name: format!("losses-{id}"), ..search(id) }
    }

    fn end(store: &Store, run: &Run, status: Outcome) {
        let directory = store.directory(run);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(TICKET_FILE), "bits").unwrap();
        let machine = Machine { cpu: String::new(), threads: 1, precision: "f32".to_owned() };
        let record = Record {
            format: FORMAT,
            kind: run.kind,
            id: run.id.clone(),
            name: run.name.clone(),
            status,
            error: (status == Outcome::Failed).then(|| "no".to_owned()),
            attempts: 1,
            labels: Labels::default(),
            command: Vec::new(),
            seconds: 1.0,
            machine,
            tool_version: String::new(),
            files: Vec::new(),
        };
        record.write(&directory).unwrap();
    }

    fn worker(store: &Store) -> Leases {
        Leases::new(store, Arc::new(Worker::join(store, Duration::ZERO).unwrap()))
    }

    /// Takes the next run and returns its name.
    fn taken(queue: &mut Queue<'_>, leases: &Leases) -> String {
        taken_beside(&[], queue, leases)
    }

    /// Takes the next run that is not at one of the positions `busy`, and returns its name.
    fn taken_beside(busy: &[usize], queue: &mut Queue<'_>, leases: &Leases) -> String {
        match queue.next(leases, &busy.iter().copied().collect()).unwrap() {
            Next::Run { run, .. } => queue.runs[run].name.clone(),
            Next::GiveUp { run, deaths, .. } => format!("{} after {deaths}", queue.runs[run].name),
            Next::Wait => "wait".to_owned(),
            Next::End => "end".to_owned(),
        }
    }

    #[test]
    fn a_search_that_another_worker_sets_aside_is_done_again() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let found = search("found");
        let runs = [found.clone(), losses("of-found", &found)];
        end(&store, &found, Outcome::Done);
        let (mut queue, leases) = (Queue::new(&runs, &store).unwrap(), worker(&store));
        store.set_aside(&found).unwrap();
        assert_eq!(taken(&mut queue, &leases), "wait", "the losses have no ticket");
        assert_eq!(taken(&mut queue, &leases), "search-found");
    }

    #[test]
    fn losses_wait_for_their_ticket_and_those_of_a_failed_search_are_blocked() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (good, bad) = (search("good"), search("bad"));
        let runs = [good.clone(), bad.clone(), losses("of-good", &good), losses("of-bad", &bad)];
        let leases = worker(&store);
        let mut queue = Queue::new(&runs, &store).unwrap();
        assert_eq!([(); 3].map(|()| taken(&mut queue, &leases)), ["search-good", "search-bad", "wait"]);
        end(&store, &good, Outcome::Done);
        end(&store, &bad, Outcome::Failed);
        assert_eq!(taken(&mut queue, &leases), "losses-of-good");
        end(&store, &runs[2], Outcome::Done);
        assert_eq!(taken(&mut queue, &leases), "end");
        assert_eq!(queue.counts(), Counts { done: 2, failed: 1, blocked: 1, open: 0 });
    }

    #[test]
    fn two_workers_never_get_one_run() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let runs: Vec<Run> = (0..4).map(|i| search(&i.to_string())).collect();
        let (one, other) = (worker(&store), worker(&store));
        let (mut of_one, mut of_other) = (Queue::new(&runs, &store).unwrap(), Queue::new(&runs, &store).unwrap());
        let got: Vec<String> = (0..3).flat_map(|_| [taken(&mut of_one, &one), taken(&mut of_other, &other)]).collect();
        assert_eq!(got, ["search-0", "search-1", "search-2", "search-3", "wait", "wait"]);
    }

    #[test]
    fn a_busy_run_keeps_no_other_from_its_turn() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let runs = [search("busy"), search("free")];
        let (mut queue, leases) = (Queue::new(&runs, &store).unwrap(), worker(&store));
        assert_eq!(taken_beside(&[0], &mut queue, &leases), "search-free");
        end(&store, &runs[1], Outcome::Done);
        assert_eq!(taken_beside(&[0], &mut queue, &leases), "wait");
        assert_eq!(taken(&mut queue, &leases), "search-busy");
    }

    #[test]
    fn a_run_that_ends_its_workers_comes_last_and_is_given_up_by_one_who_saw_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let runs = [search("deadly"), search("good")];
        let survivor = worker(&store);
        let mut of_survivor = Queue::new(&runs, &store).unwrap();
        let die = || {
            let leases = worker(&store);
            survivor.status("deadly").unwrap();
            taken(&mut Queue::new(&runs, &store).unwrap(), &leases)
        };
        assert_eq!([die(), die()], ["search-deadly", "search-deadly"]);
        assert_eq!(die(), "search-good", "after two deaths the others come first");
        end(&store, &runs[1], Outcome::Done);
        assert_eq!(die(), "search-deadly", "a process that saw no death tries again");
        assert_eq!(taken(&mut of_survivor, &survivor), "search-deadly after 3");
    }
}
