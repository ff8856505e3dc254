//! The directory of a run: its lock, its checkpoints, and the refusal to overwrite another run.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::results::RESULTS_FILE;
use crate::run::trainer_state::STATE_FILE;
use crate::run::{log, settings, tensorboard};
use crate::ticket::TICKET_FILE;

/// The file that makes a checkpoint resumable: scores or weights, optimiser moments, counters.
pub const TRAINING_STATE_FILE: &str = "state.safetensors";

const MODEL_FILE: &str = "model.safetensors";
const LOCK_FILE: &str = ".lock";
const CHECKPOINT_PREFIX: &str = "checkpoint-";
const PARTIAL_PREFIX: &str = ".checkpoint-";

/// How the names of the temporary files of [`tamt_model::write::atomic_write`] begin.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// Files that a run writes; their presence marks a directory as occupied.
const RUN_FILES: [&str; 7] =
    [settings::FILE, TICKET_FILE, MODEL_FILE, "config.json", STATE_FILE, RESULTS_FILE, log::FILE];

/// The directory of one training run, locked until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    resumed: bool,
    /// The entries of the directory right after the settings were recorded.
    at_start: BTreeSet<String>,
    /// The advisory lock ends when the file is closed, and a killed process closes its files.
    _lock: File,
}

impl RunDir {
    /// Opens `path` for a run with `settings`, creates it if it is missing, and records the settings in `config.toml`.
    /// Settings are anything that serializes to a table: [`FindSettings`](crate::find::FindSettings), the same with
    /// the verb ([`VerbSettings`](crate::run::VerbSettings)), or a `toml::Table`.
    ///
    /// With `resume`, a directory that holds a run is accepted if the recorded settings equal the given ones, apart
    /// from those without effect on a result (threads, output, saving); an empty or missing one starts a new run.
    /// The half-written files of a killed run are removed.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the directory holds run files and `resume` is not set, [`Error::NothingToResume`] if it
    /// holds some but no settings, [`Error::SettingsDiffer`], [`Error::Locked`] if another process holds the
    /// directory, [`Error::Damaged`] if `config.toml` cannot be parsed, [`Error::Unrecordable`] if a setting has no
    /// TOML form, and [`Error::Io`].
    pub fn create<S: Serialize + ?Sized>(path: &Path, settings: &S, resume: bool) -> Result<Self> {
        let given = settings::table(settings)?;
        fs::create_dir_all(path).map_err(Error::io("create directory", path))?;
        // The first check comes ahead of the lock file, which would change a refused directory; the second one runs
        // under the lock.
        refuse_if_occupied(path, resume)?;
        let lock = lock(path)?;
        refuse_if_occupied(path, resume)?;
        remove_leftovers(path)?;

        let recorded = settings::read(path)?;
        let resumed = recorded.is_some();
        match recorded {
            Some(recorded) => settings::require_equal(path, &recorded, &given)?,
            None => settings::write(path, &given)?,
        }
        Ok(Self { path: path.to_owned(), resumed, at_start: entries(path)?, _lock: lock })
    }

    /// Creates the directory `path` and checks that [`RunDir::create`] accepts its files, so that a run is refused
    /// without reading its inputs.
    ///
    /// # Errors
    /// [`Error::Occupied`], [`Error::NothingToResume`] and [`Error::Io`], as for [`RunDir::create`].
    pub fn check(path: &Path, resume: bool) -> Result<()> {
        fs::create_dir_all(path).map_err(Error::io("create directory", path))?;
        refuse_if_occupied(path, resume)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file called `name` in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the directory held the run already when it was opened.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether the run has ended: `eval_results.json`, its last file, exists.
    pub fn finished(&self) -> bool {
        self.file(RESULTS_FILE).is_file()
    }

    /// All checkpoints as (step, directory), in ascending order of steps, whether or not they hold a training state.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut checkpoints: Vec<_> = entries(&self.path)?
            .into_iter()
            .filter_map(|name| checkpoint_step(&name).map(|step| (step, self.file(&name))))
            .filter(|(_, directory)| directory.is_dir())
            .collect();
        checkpoints.sort_unstable();
        Ok(checkpoints)
    }

    /// The newest checkpoint with a training state to resume from.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub fn latest_checkpoint(&self) -> Result<Option<(u64, PathBuf)>> {
        let mut checkpoints = self.checkpoints()?;
        checkpoints.retain(|(_, directory)| directory.join(TRAINING_STATE_FILE).is_file());
        Ok(checkpoints.pop())
    }

    /// Publishes `checkpoint-<step>` and returns its path: `write` fills a hidden directory, which is then synced to
    /// disk and renamed, so that a checkpoint is whole or absent. A checkpoint of the same step is replaced.
    ///
    /// # Errors
    /// Those of `write`, and [`Error::Io`]; the hidden directory is removed.
    pub fn publish_checkpoint(&self, step: u64, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let partial = self.file(&format!("{PARTIAL_PREFIX}{step}.partial"));
        let published = self.file(&format!("{CHECKPOINT_PREFIX}{step}"));
        let outcome = self.write_checkpoint(&partial, &published, write);
        if outcome.is_err() {
            // The caller gets the error of writing; the next `create` removes a leftover directory.
            let _ = fs::remove_dir_all(&partial);
        }
        outcome.map(|()| published)
    }

    fn write_checkpoint(
        &self,
        partial: &Path,
        published: &Path,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        remove_directory(partial)?;
        fs::create_dir(partial).map_err(Error::io("create directory", partial))?;
        write(partial)?;
        for name in entries(partial)? {
            sync(&partial.join(name))?;
        }
        sync(partial)?;
        // A rename cannot replace a directory with entries. A kill between the two calls leaves the older checkpoints.
        remove_directory(published)?;
        fs::rename(partial, published).map_err(Error::io("rename", partial))?;
        sync(&self.path)
    }

    /// Removes the training state of every checkpoint of a step before `step`; its ticket stays.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be removed.
    pub fn discard_training_state_before(&self, step: u64) -> Result<()> {
        for (_, directory) in self.checkpoints()?.into_iter().take_while(|(other, _)| *other < step) {
            let state = directory.join(TRAINING_STATE_FILE);
            match fs::remove_file(&state) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &state)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for RunDir {
    /// A run that fails without output, for settings that do not fit its text, say, leaves the directory free for
    /// another run.
    fn drop(&mut self) {
        if !self.resumed && entries(&self.path).is_ok_and(|names| names == self.at_start) {
            // If the removal fails, the next run is refused with the advice to resume; no data is lost.
            let _ = fs::remove_file(self.file(settings::FILE));
        }
    }
}

/// The names of a directory's entries in ascending order, but for names that are not Unicode, which no run writes.
fn entries(directory: &Path) -> Result<BTreeSet<String>> {
    let list = |error| Error::io("list", directory)(error);
    fs::read_dir(directory)
        .map_err(list)?
        .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
        .collect::<io::Result<_>>()
        .map_err(list)
}

fn checkpoint_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(CHECKPOINT_PREFIX)?;
    let step = digits.parse().ok()?;
    // `+5` and `007` parse as well, but no run writes them.
    (format!("{step}") == digits).then_some(step)
}

fn refuse_if_occupied(path: &Path, resume: bool) -> Result<()> {
    let names = entries(path)?;
    if resume && names.contains(settings::FILE) {
        return Ok(());
    }
    let of_a_run = |name: &&String| {
        RUN_FILES.contains(&name.as_str())
            || checkpoint_step(name).is_some()
            || name.starts_with(tensorboard::FILE_PREFIX)
    };
    match names.iter().find(of_a_run).cloned() {
        None => Ok(()),
        Some(found) if resume => Err(Error::NothingToResume { path: path.to_owned(), found }),
        Some(found) => Err(Error::Occupied { path: path.to_owned(), found }),
    }
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK_FILE);
    let file =
        File::options().create(true).truncate(false).write(true).open(&name).map_err(Error::io("create", &name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &name)(error)),
    }
}

fn remove_leftovers(path: &Path) -> Result<()> {
    let names = entries(path)?;
    // In a directory without a run, a temporary file may belong to another program.
    let of_a_run = names.contains(settings::FILE);
    for name in &names {
        let leftover = path.join(name);
        if name.starts_with(PARTIAL_PREFIX) && name.ends_with(".partial") {
            remove_directory(&leftover)?;
        } else if of_a_run && name.starts_with(TEMPORARY_PREFIX) && leftover.is_file() {
            fs::remove_file(&leftover).map_err(Error::io("remove", &leftover))?;
        }
    }
    Ok(())
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Waits until the disk holds the content of a file or the list of entries of a directory.
fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> toml::Table {
        toml::from_str(text).unwrap()
    }

    fn checkpoint(run: &RunDir, step: u64) -> PathBuf {
        run.publish_checkpoint(step, |directory| {
            fs::write(directory.join(TICKET_FILE), "ticket").unwrap();
            fs::write(directory.join(TRAINING_STATE_FILE), "state").unwrap();
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn a_new_directory_is_made_and_records_the_settings() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let given = settings("verb = 'find'\nsparsity = 0.7\n[kd]\nweight = 1e-5");
        let run = RunDir::create(&path, &given, false).unwrap();
        assert!(!run.resumed() && !run.finished());
        assert_eq!(settings(&fs::read_to_string(path.join("config.toml")).unwrap()), given);
    }

    #[test]
    fn a_directory_with_a_run_is_refused_and_left_untouched() {
        for name in ["config.toml", "ticket.safetensors", "model.safetensors", "checkpoint-10", "events.out.tfevents.1"]
        {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(name), "precious").unwrap();
            let error = RunDir::create(root.path(), &settings(""), false).unwrap_err();
            assert!(matches!(&error, Error::Occupied { found, .. } if found == name), "{error}");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn unrelated_files_do_not_occupy_a_directory() {
        let root = tempfile::tempdir().unwrap();
        for name in ["notes.md", "checkpoint-old", "checkpoint-007", "log.txt"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        assert_eq!(run.checkpoints().unwrap(), []);
    }

    #[test]
    fn a_run_resumes_with_equal_settings_and_refuses_others() {
        let root = tempfile::tempdir().unwrap();
        let first = settings("seed = 42\nthreads = 1\nsave_every = 10");
        drop(RunDir::create(root.path(), &first, true).unwrap());
        assert!(!root.path().join("config.toml").exists(), "a run that wrote nothing occupies its directory");
        let run = RunDir::create(root.path(), &first, true).unwrap();
        fs::write(run.file("log.jsonl"), "").unwrap();
        drop(run);
        let free = settings("seed = 42\nthreads = 8\nsave_every = 20\nresume = true");
        assert!(RunDir::create(root.path(), &free, true).unwrap().resumed());
        assert!(fs::read_to_string(root.path().join("config.toml")).unwrap().contains("threads = 1"));

        let Err(Error::SettingsDiffer { differences, .. }) =
            RunDir::create(root.path(), &settings("seed = 43\nscope = 'global'"), true)
        else {
            panic!("another seed was accepted");
        };
        let shown: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["scope is unset there and \"global\" here", "seed is 42 there and 43 here"]);
    }

    #[test]
    fn run_files_without_settings_cannot_be_resumed() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("model.safetensors"), "precious").unwrap();
        let error = RunDir::create(root.path(), &settings(""), true).unwrap_err();
        assert!(matches!(error, Error::NothingToResume { .. }), "{error}");
    }

    #[test]
    fn settings_that_do_not_parse_are_reported_with_their_file() {
        let root = tempfile::tempdir().unwrap();
        for damage in [&b"seed = "[..], b"\xff\xfe", b"seed = 1\nseed = 2"] {
            fs::write(root.path().join("config.toml"), damage).unwrap();
            let error = RunDir::create(root.path(), &settings(""), true).unwrap_err();
            assert!(matches!(&error, Error::Damaged { path, .. } if path.ends_with("config.toml")), "{error}");
        }
    }

    #[test]
    fn a_directory_is_held_by_one_run_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), true).unwrap();
        let error = RunDir::create(root.path(), &settings(""), true).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(run);
        RunDir::create(root.path(), &settings(""), true).unwrap();
    }

    #[test]
    fn a_path_that_is_a_file_is_an_error_naming_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        let error = RunDir::create(&path, &settings(""), false).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn checkpoints_are_in_order_of_steps_and_only_whole_ones_resume() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        assert_eq!(run.latest_checkpoint().unwrap(), None);
        let (nine, hundred) = (checkpoint(&run, 9), checkpoint(&run, 100));
        let stateless = run.publish_checkpoint(1000, |_| Ok(())).unwrap();
        assert_eq!(run.checkpoints().unwrap(), [(9, nine), (100, hundred.clone()), (1000, stateless)]);
        assert_eq!(run.latest_checkpoint().unwrap(), Some((100, hundred)));
    }

    #[test]
    fn a_checkpoint_that_fails_leaves_nothing_and_one_written_again_replaces() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        let failed = run.publish_checkpoint(5, |directory| {
            fs::write(directory.join(TRAINING_STATE_FILE), "half").unwrap();
            Err(Error::NonFinite { step: 5, what: "loss".into(), last_good: None })
        });
        assert!(matches!(failed, Err(Error::NonFinite { .. })));
        let names = || entries(root.path()).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(names(), [".lock", "config.toml"]);

        checkpoint(&run, 5);
        let again = run.publish_checkpoint(5, |directory| {
            fs::write(directory.join("new"), "").unwrap();
            Ok(())
        });
        assert_eq!(entries(&again.unwrap()).unwrap(), BTreeSet::from(["new".to_owned()]));
        assert_eq!(names(), [".lock", "checkpoint-5", "config.toml"]);
    }

    #[test]
    fn what_a_killed_run_left_half_written_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        fs::write(run.file("log.jsonl"), "").unwrap();
        drop(run);
        fs::create_dir(root.path().join(".checkpoint-7.partial")).unwrap();
        fs::write(root.path().join(".checkpoint-7.partial/state.safetensors"), "half").unwrap();
        fs::write(root.path().join(".tmp-a1B2c3"), "half").unwrap();
        let run = RunDir::create(root.path(), &settings(""), true).unwrap();
        assert_eq!(
            entries(root.path()).unwrap().into_iter().collect::<Vec<_>>(),
            [".lock", "config.toml", "log.jsonl"]
        );
        assert_eq!(run.latest_checkpoint().unwrap(), None);
    }

    #[test]
    fn older_checkpoints_keep_the_ticket_and_lose_the_state() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        let paths = [1, 2, 3].map(|step| checkpoint(&run, step));
        run.discard_training_state_before(3).unwrap();
        run.discard_training_state_before(3).unwrap();
        assert_eq!(paths.each_ref().map(|path| path.join(TICKET_FILE).exists()), [true; 3]);
        assert_eq!(paths.each_ref().map(|path| path.join(TRAINING_STATE_FILE).exists()), [false, false, true]);
    }

    #[test]
    fn a_run_is_finished_when_its_evaluation_is_there() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        fs::write(run.file(TICKET_FILE), "").unwrap();
        assert!(!run.finished());
        fs::write(run.file(RESULTS_FILE), "{}").unwrap();
        assert!(run.finished());
    }
}
