//! Workers: processes that take runs, and how one knows that another is alive.
//!
//! A worker rewrites its file `workers/ID.json` every few seconds with a counter. On the same machine, a lock on
//! `workers/ID.lock`, which ends with the process, says at once whether the worker lives. From another machine, a worker
//! is taken for dead if its counter has not changed for a while by the clock of the one that looks, and that has looked
//! all the while: clocks of different machines are never compared.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{self, create_directory, entries};
use crate::store::Store;

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(5);

/// Time without a sign of life after which a worker on another machine is taken for dead.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time between two looks at a worker under which an unchanged sign counts as its silence.
const LONGEST_GAP: Duration = Duration::from_secs(20);

/// The sign of life of a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// The machine's name.
    pub host: String,
    /// The identity of the machine's present start.
    boot: String,
    /// The number of the process.
    pub pid: u32,
    /// A number that grows.
    beat: u64,
    /// What the worker does.
    pub work: Option<Work>,
}

/// The present work of a worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The identity of the run.
    pub run: String,
    /// The stage of the run: `tamt-mlm`, `evaluating`.
    pub stage: String,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total: u64,
    /// Seconds left, as far as known.
    pub seconds_left: Option<f64>,
    /// Seconds since the worker took the run.
    pub seconds: f64,
}

/// Another worker as this process has seen it.
#[derive(Debug)]
struct Watched {
    /// The sign at the last look.
    sign: Sign,
    /// The first of the looks without a gap that saw this sign.
    since: Instant,
    /// The last look.
    looked: Instant,
}

impl Watched {
    fn new(sign: Sign, now: Instant) -> Self {
        Self { sign, since: now, looked: now }
    }

    /// Looks again, and says whether the worker has been silent for as long as `patience`.
    fn is_silent(&mut self, sign: Sign, now: Instant, patience: Duration) -> bool {
        // Of a gap nothing is known: if this process or the file system stood still, so may the other worker have done.
        let is_same = self.sign == sign && now.duration_since(self.looked) <= LONGEST_GAP;
        if !is_same {
            (self.sign, self.since) = (sign, now);
        }
        self.looked = now;
        is_same && now.duration_since(self.since) >= patience
    }
}

/// This process among the workers of a store.
#[derive(Debug)]
pub struct Worker {
    id: String,
    directory: PathBuf,
    sign: Mutex<Sign>,
    patience: Duration,
    /// The other workers of whose life their signs alone tell.
    seen: Mutex<BTreeMap<String, Watched>>,
    /// The lock ends with the process.
    _lock: File,
}

impl Worker {
    /// Joins the workers of a store.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn join(store: &Store, patience: Duration) -> Result<Self> {
        let directory = store.own("workers");
        create_directory(&directory)?;
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let (id, lock) = Self::register(&directory, &host)?;
        let sign = Sign { host, boot: boot(), pid: process::id(), beat: 0, work: None };
        let worker = Self { id, directory, sign: Mutex::new(sign), patience, seen: Mutex::default(), _lock: lock };
        worker.beat(None)?;
        Ok(worker)
    }

    /// A name that no other worker has, and the lock under that name.
    fn register(directory: &Path, host: &str) -> Result<(String, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_nanos());
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let id = format!("{host}-{}-{nanoseconds:x}-{number}", process::id());
            let path = directory.join(format!("{id}.lock"));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    // Where locks do not work, signs of life alone tell.
                    let _ = file.try_lock();
                    return Ok((id, file));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        }
    }

    /// The worker's name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives a sign of life.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn beat(&self, work: Option<Work>) -> Result<()> {
        let sign = {
            let mut sign = self.sign.lock().unwrap_or_else(PoisonError::into_inner);
            sign.beat += 1;
            sign.work = work;
            sign.clone()
        };
        files::write_json(&self.file(&self.id), &sign)
    }

    fn file(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// How long a worker may be silent.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether a worker may still be at work.
    #[must_use]
    pub fn is_alive(&self, id: &str) -> bool {
        if id == self.id {
            return true;
        }
        let sign: Sign = match files::read_json(&self.file(id)) {
            Ok(Some(sign)) => sign,
            Ok(None) => {
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                return false;
            }
            // On a network file system a file in the middle of its renaming may be damaged or out of reach.
            Err(_) => Sign::default(),
        };
        let own = self.sign.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !sign.boot.is_empty()
            && (&sign.boot, &sign.host) == (&own.boot, &own.host)
            && let Some(alive) = holds_lock(&self.directory.join(format!("{id}.lock")))
        {
            return alive;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match seen.get_mut(id) {
            Some(watched) => !watched.is_silent(sign, now, self.patience),
            None => {
                seen.insert(id.to_owned(), Watched::new(sign, now));
                true
            }
        }
    }

    /// Looks at the workers that were seen, so that their silence counts also while this one is in a run of hours.
    fn watch(&self) {
        let seen: Vec<String> = self.seen.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for id in seen {
            // The look is remembered; what it says matters to whoever wants a run.
            let _ = self.is_alive(&id);
        }
    }

    /// Removes the files of workers that are dead.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clean_up(&self) -> Result<()> {
        for name in entries(&self.directory)? {
            let Some(id) = name.strip_suffix(".json") else { continue };
            if !self.is_alive(id) {
                files::remove(&self.file(id))?;
                files::remove(&self.directory.join(format!("{id}.lock")))?;
            }
        }
        Ok(())
    }

    /// Leaves the workers.
    pub fn leave(&self) {
        // A file that stays is one of a dead worker.
        let _ = fs::remove_file(self.file(&self.id));
        let _ = fs::remove_file(self.directory.join(format!("{}.lock", self.id)));
    }
}

/// The signs of all workers of a store, by name. The dead workers of another machine are among them: one look does not
/// show that a counter stands still.
///
/// # Errors
/// [`Error::Io`].
pub fn signs(store: &Store) -> Result<BTreeMap<String, Sign>> {
    let directory = store.own("workers");
    let mut signs = BTreeMap::new();
    for name in entries(&directory)? {
        let Some(id) = name.strip_suffix(".json") else { continue };
        if let Ok(Some(sign)) = files::read_json::<Sign>(&directory.join(&name)) {
            // Without this check a table of status would show what a killed worker did last.
            let is_here = !sign.boot.is_empty() && sign.boot == boot();
            if !is_here || holds_lock(&directory.join(format!("{id}.lock"))) != Some(false) {
                signs.insert(id.to_owned(), sign);
            }
        }
    }
    Ok(signs)
}

/// Whether a living process of this machine holds the lock at `path`; `None` if locks do not tell.
fn holds_lock(path: &Path) -> Option<bool> {
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(false),
        // Too many open files, or the file of another user.
        Err(_) => return None,
    };
    match file.try_lock() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// The identity of the machine's present start; empty where the system has none.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Gives signs of life from a thread of its own, until dropped.
#[derive(Debug)]
pub struct Heartbeat {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Heartbeat {
    /// Begins. `work` tells the present work; `check` runs with each sign. The other workers are looked at as often.
    ///
    /// # Errors
    /// [`Error::Io`] if no thread can be started.
    pub fn start(
        worker: Arc<Worker>,
        work: impl Fn() -> Option<Work> + Send + 'static,
        check: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let (end, ended) = mpsc::channel::<()>();
        let beat = move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // A sign that cannot be written (a full disk, a network that is down) is tried again.
                let _ = worker.beat(work());
                check();
                worker.watch();
            }
        };
        let thread = thread::Builder::new().name("heartbeat".to_owned()).spawn(beat);
        let thread = thread.map_err(Error::io("start a thread for", Path::new("heartbeat")))?;
        Ok(Self { thread: Some((end, thread)) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            drop(end);
            // The thread does not panic, and its end has no result.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silence_under_looks_without_a_gap_is_a_death() {
        let (begin, sign) = (Instant::now(), Sign::default());
        let mut other = Watched::new(sign.clone(), begin);
        let mut is_silent_at = |after: Duration| other.is_silent(sign.clone(), begin + after, PATIENCE);
        let stalled = PATIENCE * 2;
        assert!(!is_silent_at(stalled), "between the two looks the file system may have stood still");
        for beats in 1..12 {
            assert!(!is_silent_at(stalled + BEAT * beats), "{beats}");
        }
        assert!(is_silent_at(stalled + PATIENCE));
        assert!(!is_silent_at(stalled + PATIENCE * 2), "there was another gap");
        assert!(!other.is_silent(Sign { beat: 1, ..sign }, begin + stalled + PATIENCE * 2 + BEAT, Duration::ZERO));
    }

    #[test]
    fn a_sign_that_cannot_be_read_is_an_unchanged_one_and_a_missing_one_is_a_death() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let [worker, other] = [(); 2].map(|()| Worker::join(&store, Duration::ZERO).unwrap());
        let path = worker.file(&other.id);
        fs::remove_file(&path).unwrap();
        // Whoever reads a directory as a file gets an error.
        fs::create_dir(&path).unwrap();
        assert_eq!([(); 2].map(|()| worker.is_alive(&other.id)), [true, false], "there is no patience");
        fs::remove_dir(&path).unwrap();
        assert!(!worker.is_alive(&other.id));
        assert!(worker.seen.lock().unwrap().is_empty());
    }
}
