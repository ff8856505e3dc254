//! What happens to a run, and at which moment.

use std::fs::{self, File, FileTimes};
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use crate::common::{files, signal};
use crate::random::Random;
use crate::runs::{Ended, Finished, Runs, ended, remove};
use crate::tree;

/// What happens to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disturbance {
    Kill,
    Terminate,
    InterruptTwice,
    Hangup,
    /// A small disk, mounted at the run's place, runs full.
    FullDisk,
    /// Files cannot grow beyond a few kilobytes.
    FileLimit,
    DirectoryRemoved,
    /// The model's directory, tokenizer included, is gone until the run was refused without it.
    ModelRemoved,
    /// A kill; the files then have times of other years, and the clock of the resumed run is set back.
    ClockSetBack,
}

impl Disturbance {
    pub(crate) const ALL: [Self; 9] = [
        Self::Kill,
        Self::Terminate,
        Self::InterruptTwice,
        Self::Hangup,
        Self::FullDisk,
        Self::FileLimit,
        Self::DirectoryRemoved,
        Self::ModelRemoved,
        Self::ClockSetBack,
    ];

    /// Why this machine cannot do it.
    pub(crate) fn obstacle(self, runs: &Runs) -> Option<&'static str> {
        match self {
            Self::FullDisk if Disk::mount(&runs.place()).is_none() => Some("no right to mount a small disk"),
            Self::FileLimit if !can_run("prlimit") => Some("no prlimit"),
            Self::Hangup if !can_run("env --default-signal=HUP true") => Some("env has no --default-signal"),
            _ => None,
        }
    }

    /// The words ahead of a disturbed run's command line.
    pub(crate) fn wrapper(self) -> &'static [&'static str] {
        match self {
            // The tests themselves may run under `nohup`.
            Self::Hangup => &["env", "--default-signal=HUP"],
            // A write beyond the limit is an error instead of a signal.
            Self::FileLimit => &["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"],
            _ => &[],
        }
    }
}

/// Whether the files of a resumed run can have another clock.
pub(crate) fn has_faketime() -> bool {
    can_run("faketime -f -1d true")
}

fn can_run(line: &str) -> bool {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

/// When something happens to a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// This long after the start.
    After(Duration),
    /// When the run has begun to write so many files or checkpoints.
    Writing(u32),
    /// This long after the first of the final files.
    Ending(Duration),
}

impl Moment {
    /// A moment that `attempt` moments missed is an earlier one.
    pub(crate) fn random(random: &mut Random, finished: &Finished, attempt: u32) -> Self {
        match random.below(10) {
            _ if attempt > 2 => Self::Writing(1 + random.below(1.max(24 >> (attempt - 2))) as u32),
            0 => Self::After(finished.took.mul_f64(0.2 * random.share())),
            1..=4 => Self::After(finished.took.mul_f64(random.share())),
            5..=7 => Self::Writing(1 + random.below(40) as u32),
            _ => Self::Ending(Duration::from_millis(random.below(30))),
        }
    }

    /// Waits for the moment. False if the run ends first.
    pub(crate) fn wait(self, child: &mut Child, run: &Path) -> bool {
        let started = Instant::now();
        let mut watched = Watched::default();
        let mut ending = None;
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let is_now = match self {
                Self::After(delay) => started.elapsed() >= delay,
                Self::Writing(count) => watched.count_writes(run) >= count,
                Self::Ending(delay) => {
                    if ending.is_none() && is_ending(run) {
                        ending = Some(Instant::now());
                    }
                    ending.is_some_and(|since| since.elapsed() >= delay)
                }
            };
            if is_now {
                return true;
            }
            std::thread::yield_now();
        }
    }
}

/// The temporary names seen in the directory of a run, or of the runs of two seeds.
#[derive(Default)]
struct Watched {
    names: Vec<String>,
    writes: u32,
}

impl Watched {
    fn count_writes(&mut self, run: &Path) -> u32 {
        let folders = ["", "seed-1", "seed-2"].map(|name| run.join(name));
        let entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let names: Vec<String> = names.filter(|name| tree::is_temporary(name)).collect();
        self.writes += names.iter().filter(|name| !self.names.contains(name)).count() as u32;
        self.names = names;
        self.writes
    }
}

/// Whether the run has written a ticket or a model.
fn is_ending(run: &Path) -> bool {
    let names = ["ticket.safetensors", "model.safetensors", "seed-1/model.safetensors", "seed-2/model.safetensors"];
    names.iter().any(|name| run.join(name).exists())
}

/// A small disk in memory, unmounted when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    const BYTES: u64 = 4 << 20;

    /// `None` without the right to mount.
    pub(crate) fn mount(place: &Path) -> Option<Self> {
        let size = format!("size={}", Self::BYTES);
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place).output().ok()?.status;
        status.success().then(|| Self(place.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        let is_unmounted = unmounted.is_ok_and(|status| status.success());
        assert!(is_unmounted || std::thread::panicking(), "{} stays mounted", self.0.display());
    }
}

/// Does something to a running process and waits for its end.
pub(crate) fn disturb(what: Disturbance, mut child: Child, runs: &Runs, random: &mut Random) -> Ended {
    match what {
        Disturbance::Kill | Disturbance::ClockSetBack => child.kill().unwrap(),
        Disturbance::Terminate => signal(&child, "TERM"),
        Disturbance::Hangup => signal(&child, "HUP"),
        Disturbance::InterruptTwice => {
            signal(&child, "INT");
            // Now and then the process has ended meanwhile.
            let _ = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).output();
        }
        Disturbance::FullDisk => fill(&runs.place().join("filler"), &mut child),
        Disturbance::FileLimit => {
            let limit = format!("--fsize={}", random.below(24 << 10));
            let _ = Command::new("prlimit").args(["--pid", &child.id().to_string(), &limit]).output();
        }
        Disturbance::DirectoryRemoved => {
            if random.below(2) == 0 {
                let aside = runs.at("aside");
                let _ = fs::rename(runs.run(), &aside);
                remove(&aside);
            } else {
                remove(&runs.run());
            }
        }
        Disturbance::ModelRemoved => fs::rename(runs.at("model"), runs.at("model-elsewhere")).unwrap(),
    }
    ended(child)
}

/// Keeps the disk full until the process ends.
fn fill(filler: &Path, child: &mut Child) {
    let mut file = File::create(filler).unwrap();
    let block = [0; 4096];
    while child.try_wait().unwrap().is_none() {
        match file.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Undoes what lasts, so that the run can go on.
pub(crate) fn mend(what: Disturbance, runs: &Runs, random: &mut Random) {
    match what {
        Disturbance::FullDisk => fs::remove_file(runs.place().join("filler")).unwrap(),
        Disturbance::ModelRemoved => fs::rename(runs.at("model-elsewhere"), runs.at("model")).unwrap(),
        Disturbance::ClockSetBack if runs.run().exists() => {
            for path in files(&runs.run()).into_values() {
                let seconds = random.below(3_000_000_000);
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                let file = File::options().append(true).open(path).unwrap();
                file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
            }
        }
        _ => {}
    }
}

/// Asserts that a disturbed process ended as it should: by its signal, or with an error that names what is gone.
pub(crate) fn assert_ended(what: Disturbance, ended: &Ended, runs: &Runs) {
    let Ended { status, said } = ended;
    let signal = match what {
        Disturbance::Kill | Disturbance::ClockSetBack => Some(9),
        Disturbance::Terminate => Some(15),
        Disturbance::Hangup => Some(1),
        Disturbance::InterruptTwice => Some(2),
        _ => None,
    };
    if let Some(signal) = signal {
        // A process that has not begun to listen ends by the signal itself.
        let is_unheard = status.signal() == Some(signal) && (signal == 9 || said.is_empty());
        assert!(is_unheard || signal != 9 && status.code() == Some(128 + signal), "{status}: {said}");
        return;
    }
    if status.success() && what == Disturbance::ModelRemoved {
        return;
    }
    assert_eq!(status.code(), Some(1), "{said}");
    let error = said.split_once("error: ").unwrap_or_else(|| panic!("no error: {said}")).1;
    let (gone, cause) = match what {
        Disturbance::FullDisk => (runs.place(), "No space left on device"),
        Disturbance::FileLimit => (runs.place(), "File too large"),
        Disturbance::DirectoryRemoved => (runs.run(), ""),
        _ => (runs.at("model"), ""),
    };
    assert!(error.contains(gone.to_str().unwrap()) && error.contains(cause), "{said}");
}
