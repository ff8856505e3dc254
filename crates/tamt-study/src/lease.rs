//! Leases: which worker works on a run.
//!
//! The lease of a run is a directory of numbered files `1`, `2`, ...: the file with the highest number names the holder. A
//! lease is taken by creating the next number, which one process alone can do, on network file systems too. It is free if
//! the last holder said so (`N.free`), or is dead. Numbers only grow until the run has ended: a worker that was thought to
//! be dead sees that it has been replaced, and stops.
//!
//! A number that was never freed and whose holder is dead is a death: the run, or something else, ended its worker.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, create_directory, entries};
use crate::store::Store;
use crate::worker::Worker;

/// The content of a numbered file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Empty if the file does not tell.
    worker: String,
    /// Tells the attempts of one worker apart.
    attempt: u64,
    /// The newest checkpoint of the run when the attempt began.
    checkpoint: Option<u64>,
}

/// What the lease of a run says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The worker that holds the lease and may be alive.
    pub holder: Option<String>,
    /// Attempts so far.
    pub attempts: u64,
    /// Deaths in succession without a new checkpoint, up to now.
    pub deaths: u64,
    /// Those among them that this process has seen happen.
    pub witnessed: u64,
}

/// The leases of a store.
#[derive(Debug)]
pub struct Leases {
    directory: PathBuf,
    worker: Arc<Worker>,
    /// Deaths that had happened when this process first looked.
    earlier: Mutex<BTreeMap<String, u64>>,
    /// Numbers whose files do not name the holder, by run, and when this process first saw them.
    nameless: Mutex<BTreeMap<(String, u64), Instant>>,
}

/// A lease that this process holds.
#[derive(Debug)]
pub struct Lease {
    directory: PathBuf,
    number: u64,
    content: Holder,
}

impl Leases {
    /// The leases of a store, for a worker.
    #[must_use]
    pub fn new(store: &Store, worker: Arc<Worker>) -> Self {
        Self { directory: store.own("leases"), worker, earlier: Mutex::default(), nameless: Mutex::default() }
    }

    /// The runs that have or had a lease and have not ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn known(&self) -> Result<BTreeSet<String>> {
        Ok(entries(&self.directory)?.into_iter().collect())
    }

    /// What the lease of the run says.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn status(&self, run: &str) -> Result<Status> {
        let directory = self.directory.join(run);
        let Numbers { last, free } = Numbers::of(&directory)?;
        let mut status = Status { holder: None, attempts: last, deaths: 0, witnessed: 0 };
        let mut checkpoint = None;
        for number in (1..=last).rev() {
            let Some(holder) = read(&directory, number)? else { break };
            if number == last && !free.contains(&number) && self.may_be_alive(run, number, &holder) {
                status.holder = Some(holder.worker);
                continue;
            }
            if free.contains(&number) || checkpoint.is_some_and(|last| last != holder.checkpoint) {
                break;
            }
            checkpoint = Some(holder.checkpoint);
            status.deaths += 1;
        }
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = *earlier.entry(run.to_owned()).or_insert(status.deaths);
        status.witnessed = status.deaths.saturating_sub(earlier);
        Ok(status)
    }

    /// Whether the holder of a number may be alive. A file that does not name its holder gets the time that a silent
    /// worker gets: its writer may be about to fill it.
    fn may_be_alive(&self, run: &str, number: u64, holder: &Holder) -> bool {
        if !holder.worker.is_empty() {
            return self.worker.is_alive(&holder.worker);
        }
        let mut nameless = self.nameless.lock().unwrap_or_else(PoisonError::into_inner);
        let since = nameless.entry((run.to_owned(), number)).or_insert_with(Instant::now);
        since.elapsed() < self.worker.patience()
    }

    /// Removes the lease of a run that has ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget(&self, run: &str) -> Result<()> {
        remove(&self.directory.join(run))
    }

    /// Takes the lease of a run whose newest checkpoint is `checkpoint`; `None` if another worker has it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn take(&self, run: &str, checkpoint: Option<u64>) -> Result<Option<Lease>> {
        let status = self.status(run)?;
        if status.holder.is_some() {
            return Ok(None);
        }
        let directory = self.directory.join(run);
        match create_directory(&directory) {
            // Another worker ends the lease at this moment: the directory was there, and is gone.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            outcome => outcome?,
        }
        let number = status.attempts + 1;
        let content = Holder { worker: self.worker.id().to_owned(), attempt: number, checkpoint };
        if publish(&directory, number, &content)? {
            return Ok(Some(Lease { directory, number, content }));
        }
        // The temporary file may have kept the worker that ended the lease from removing the directory.
        let _ = fs::remove_dir(&directory);
        Ok(None)
    }
}

impl Lease {
    /// Attempts so far, this one included.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.number
    }

    /// Whether no other worker has replaced this one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_held(&self) -> Result<bool> {
        Ok(Numbers::of(&self.directory)?.last == self.number
            && read(&self.directory, self.number)?.as_ref() == Some(&self.content))
    }

    /// Gives the lease back: the run goes on with any worker.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn free(&self) -> Result<()> {
        let path = self.directory.join(format!("{}.free", self.number));
        fs::write(&path, "").map_err(Error::io("write", &path))
    }

    /// Ends the lease of a run that has ended: its record is written. A lease that another worker has taken is left to
    /// that worker.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn end(self) -> Result<()> {
        if self.is_held()? { remove(&self.directory) } else { Ok(()) }
    }
}

/// The numbers in the directory of a lease.
struct Numbers {
    last: u64,
    free: Vec<u64>,
}

impl Numbers {
    fn of(directory: &Path) -> Result<Self> {
        let names = entries(directory)?;
        let last = names.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0);
        let free = names.iter().filter_map(|name| name.strip_suffix(".free")?.parse().ok()).collect();
        Ok(Self { last, free })
    }
}

/// The holder of a number. A file that its writer has not filled, or never will since it was killed, names nobody.
fn read(directory: &Path, number: u64) -> Result<Option<Holder>> {
    match files::read_json(&directory.join(number.to_string())) {
        Err(Error::Damaged { .. }) => Ok(Some(Holder::default())),
        outcome => outcome,
    }
}

/// Removes the directory of a lease. A file that appears there meanwhile is the lease of another worker, which finds that the
/// run has ended, and removes the directory.
fn remove(directory: &Path) -> Result<()> {
    match files::remove(directory) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        outcome => outcome,
    }
}

/// Creates the file of a number, with its content at once; false if the number is taken.
fn publish(directory: &Path, number: u64, content: &Holder) -> Result<bool> {
    let path = directory.join(number.to_string());
    let temporary = files::temporary(&path);
    let text = serde_json::to_vec(content).unwrap_or_default();
    let written = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(&text)?;
        // A power failure may keep the name, and must not lose the content.
        file.sync_all()
    });
    let outcome = written.and_then(|()| match fs::hard_link(&temporary, &path) {
        // A file system without links: the name is created first, and a reader may see the file empty for a moment.
        Err(error) if error.kind() == io::ErrorKind::Unsupported || error.kind() == io::ErrorKind::PermissionDenied => {
            fs::File::create_new(&path).and_then(|_| fs::rename(&temporary, &path))
        }
        outcome => outcome,
    });
    // The name is gone where it was renamed, and nothing reads it where it stays.
    let _ = fs::remove_file(&temporary);
    match outcome {
        Ok(()) => Ok(true),
        // The reply to a link that succeeded can be lost on a network: the content tells.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(read(directory, number)?.as_ref() == Some(content))
        }
        // The run has ended meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("create", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::worker::PATIENCE;

    /// A worker of the store in `root`, without patience for other machines.
    fn leases(root: &Path) -> (Arc<Worker>, Leases) {
        let store = Store::open(root).unwrap();
        let worker = Arc::new(Worker::join(&store, Duration::ZERO).unwrap());
        (worker.clone(), Leases::new(&store, worker))
    }

    #[test]
    fn of_many_workers_one_gets_the_lease() {
        let root = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..8).map(|_| leases(root.path())).collect();
        for round in 0..20 {
            let run = format!("run-{round}");
            let taken: usize = thread::scope(|scope| {
                let each = all.iter().map(|(_, leases)| scope.spawn(|| leases.take(&run, None).unwrap().is_some()));
                let each: Vec<_> = each.collect();
                each.into_iter().map(|taken| usize::from(taken.join().unwrap())).sum()
            });
            assert_eq!(taken, 1);
        }
    }

    #[test]
    fn a_lease_that_ends_while_another_worker_takes_it_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..4).map(|_| leases(root.path())).collect();
        let take_and_end = |leases: &Leases| {
            for _ in 0..300 {
                if let Some(lease) = leases.take("run", None).unwrap() {
                    lease.end().unwrap();
                }
            }
        };
        thread::scope(|scope| {
            for (_, leases) in &all {
                scope.spawn(|| take_and_end(leases));
            }
        });
        assert!(all[0].1.known().unwrap().is_empty());
    }

    #[test]
    fn the_lease_of_a_dead_worker_is_taken_over_and_that_of_a_living_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let ((first, of_first), (_second, of_second)) = (leases(root.path()), leases(root.path()));
        let held = of_first.take("run", None).unwrap().unwrap();
        assert!(of_second.take("run", None).unwrap().is_none());
        assert_eq!(of_second.status("run").unwrap().holder.as_deref(), Some(first.id()));
        assert!(held.is_held().unwrap());
        // The end of a process closes its files, and with them ends the lock.
        drop((first, of_first));
        let taken = of_second.take("run", None).unwrap().unwrap();
        assert_eq!((taken.attempts(), held.is_held().unwrap(), taken.is_held().unwrap()), (2, false, true));
        taken.end().unwrap();
        assert!(of_second.known().unwrap().is_empty());
    }

    #[test]
    fn the_end_of_a_lease_that_was_lost_leaves_that_of_the_successor() {
        let root = tempfile::tempdir().unwrap();
        let (_worker, leases) = leases(root.path());
        let lost = leases.take("run", None).unwrap().unwrap();
        let successor = root.path().join(".study/leases/run/2");
        fs::write(&successor, "{}").unwrap();
        lost.end().unwrap();
        assert!(successor.exists());
    }

    #[test]
    fn a_number_without_content_is_taken_over_where_patience_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let (_worker, hasty) = leases(root.path());
        let store = Store::open(root.path()).unwrap();
        let patient = Leases::new(&store, Arc::new(Worker::join(&store, PATIENCE).unwrap()));
        // What a kill between the name and the content leaves on a file system without links.
        let directory = root.path().join(".study/leases/run");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("1"), "").unwrap();
        assert!(patient.take("run", None).unwrap().is_none());
        let status = hasty.status("run").unwrap();
        assert_eq!((status.holder, status.deaths), (None, 1));
        let lease = hasty.take("run", None).unwrap().unwrap();
        assert_eq!((lease.attempts(), lease.is_held().unwrap()), (2, true));
        assert!(patient.take("run", None).unwrap().is_none());
    }

    #[test]
    fn a_worker_of_another_machine_is_dead_when_its_sign_does_not_change() {
        let root = tempfile::tempdir().unwrap();
        let ((far, of_far), (_near, of_near)) = (leases(root.path()), leases(root.path()));
        let path = root.path().join(format!(".study/workers/{}.json", far.id()));
        // Another start of a machine, as another machine has it: the lock on this one does not tell.
        let elsewhere = |beat: u64| {
            let mut sign: serde_json::Value = files::read_json(&path).unwrap().unwrap();
            (sign["boot"], sign["beat"]) = ("elsewhere".into(), beat.into());
            files::write_json(&path, &sign).unwrap();
        };
        of_far.take("run", None).unwrap().unwrap();
        for beat in [7, 8] {
            elsewhere(beat);
            assert!(of_near.take("run", None).unwrap().is_none(), "its sign is new");
        }
        assert!(of_near.take("run", None).unwrap().is_some(), "its sign is old, and there is no patience");
    }

    #[test]
    fn deaths_count_until_a_new_checkpoint_and_a_freed_lease_is_none() {
        let root = tempfile::tempdir().unwrap();
        let (_watch, watching) = leases(root.path());
        let die = |checkpoint| {
            let (_worker, leases) = leases(root.path());
            leases.take("run", checkpoint).unwrap().unwrap();
        };
        let deaths = || {
            let status = watching.status("run").unwrap();
            (status.attempts, status.deaths, status.witnessed)
        };
        die(None);
        assert_eq!(deaths(), (1, 1, 0), "the first death happened ahead of the first look");
        die(None);
        assert_eq!(deaths(), (2, 2, 1));
        die(Some(10));
        assert_eq!(deaths().1, 1, "there was progress");
        die(Some(10));
        let (worker, leases) = leases(root.path());
        leases.take("run", Some(10)).unwrap().unwrap().free().unwrap();
        drop(worker);
        assert_eq!(deaths(), (5, 0, 0), "the last worker ended well");
    }
}
