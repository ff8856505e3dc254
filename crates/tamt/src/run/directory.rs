//! The directory of a run: its lock, its settings, and the refusal to overwrite another run.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::files::{
    LOCK_FILE, PARTIAL_PREFIX, TRAINING_STATE_FILE, checkpoint_step, create_directories, entries, remove_directory,
    remove_empty, remove_file,
};
use crate::run::new_run::NewRun;
use crate::run::results::RESULTS_FILE;
use crate::run::settings::SETTINGS_FILE;
use crate::run::trainer_state::STATE_FILE;
use crate::run::{log, settings, tensorboard};
use crate::ticket::TICKET_FILE;

const MODEL_FILE: &str = "model.safetensors";

/// Files that a run writes; their presence marks a directory as occupied.
const RUN_FILES: [&str; 7] =
    [SETTINGS_FILE, TICKET_FILE, MODEL_FILE, "config.json", STATE_FILE, RESULTS_FILE, log::FILE];

/// Whether the run in a directory can take more steps: it has not finished, or a checkpoint to go on from is there.
fn can_go_on(directory: &Path) -> bool {
    let is_checkpoint =
        |name: &String| checkpoint_step(name).is_some() && directory.join(name).join(TRAINING_STATE_FILE).is_file();
    !directory.join(RESULTS_FILE).is_file() || entries(directory).is_ok_and(|names| names.iter().any(is_checkpoint))
}

/// The directory of one training run, locked until dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The traces to remove if the run ends without output; `None` for a resumed run.
    new: Option<NewRun>,
    notes: Vec<String>,
    /// The advisory lock ends when the file is closed, and a killed process closes its files.
    lock: File,
}

impl RunDir {
    /// Opens `path` for a run with `settings`, creates it if it is missing, and records the settings in `config.toml`.
    /// Settings are anything that serializes to a table: [`FindSettings`](crate::find::FindSettings), the same with
    /// the verb ([`VerbSettings`](crate::run::VerbSettings)), or a `toml::Table`.
    ///
    /// With `resume`, a directory that holds a run is accepted if the recorded settings equal the given ones, apart
    /// from those without effect on a result (threads, output, saving) and from a larger number of steps where the
    /// schedule does not depend on it; an empty or missing one starts a new run. The half-written files of a killed run
    /// are removed.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the directory holds run files and `resume` is not set, [`Error::NothingToResume`] if it
    /// holds some but no settings, [`Error::SettingsDiffer`], [`Error::Locked`] if another process holds the
    /// directory, [`Error::Damaged`] if `config.toml` cannot be parsed, [`Error::Unrecordable`] if a setting has no
    /// TOML form, and [`Error::Io`].
    pub fn create<S: Serialize + ?Sized>(path: &Path, settings: &S, resume: bool) -> Result<Self> {
        Self::create_with_defaults(path, settings, &toml::Table::new(), resume)
    }

    /// As [`RunDir::create`]; a setting that an older program did not record has the value in `defaults`.
    ///
    /// # Errors
    /// Those of [`RunDir::create`].
    pub fn create_with_defaults<S: Serialize + ?Sized>(
        path: &Path,
        settings: &S,
        defaults: &toml::Table,
        resume: bool,
    ) -> Result<Self> {
        let given = settings::table(settings)?;
        let created = create_directories(path)?;
        // The first check comes ahead of the lock file, which would change a refused directory; the second one runs
        // under the lock.
        let opened = refuse_if_occupied(path, resume).and_then(|()| NewRun::new(path, created.clone()));
        let new = opened.inspect_err(|_| remove_empty(&created))?;
        let had_run = [LOCK_FILE, SETTINGS_FILE].iter().any(|name| path.join(name).exists());
        let lock = lock(path).inspect_err(|_| remove_empty(&created))?;
        refuse_if_occupied(path, resume)?;
        // In a directory without a run, a temporary file may belong to another program.
        if had_run {
            remove_leftovers(path)?;
        }

        let mut run = Self { path: path.to_owned(), new: Some(new), notes: Vec::new(), lock };
        match settings::read(path)? {
            Some(recorded) => {
                run.new = None;
                run.agree(&recorded, &given, defaults)?;
            }
            None => {
                settings::write(path, &given)?;
                if resume {
                    run.notes.push(format!("{} holds no run: a new one begins", path.display()));
                }
            }
        }
        Ok(run)
    }

    /// Accepts the settings of a resumed run, or refuses them.
    fn agree(&mut self, recorded: &toml::Table, given: &toml::Table, defaults: &toml::Table) -> Result<()> {
        let path = self.path.clone();
        self.notes.extend(settings::version_note(recorded, given));
        let extension = settings::compare(&path, recorded, given, defaults)?;
        // The runs of several seeds have directories of their own, with their checkpoints.
        let seeds = recorded.get("seeds").and_then(toml::Value::as_array);
        let has_checkpoint = match seeds {
            Some(seeds) => seeds.iter().all(|seed| can_go_on(&path.join(format!("seed-{seed}")))),
            None => self.latest_checkpoint()?.is_some(),
        };
        if let Some(extension) = extension {
            if (self.finished() || seeds.is_some()) && !has_checkpoint {
                return Err(extension.refused(&path, "the run has finished and its last checkpoint is gone"));
            }
            // Without its result, the run is unfinished in either order of a kill and the two changes.
            remove_file(&self.file(RESULTS_FILE))?;
            settings::write(&path, given)?;
            self.notes.push(extension.to_string());
        }
        if !self.finished() && !has_checkpoint && seeds.is_none() {
            self.notes.push(format!("{} holds no checkpoint: the run starts over", path.display()));
        }
        Ok(())
    }

    /// Checks that [`RunDir::create`] accepts the directory `path`, so that a run is refused without reading its inputs.
    /// A missing directory stays missing.
    ///
    /// # Errors
    /// [`Error::Occupied`], [`Error::NothingToResume`] and [`Error::Io`], as for [`RunDir::create`].
    pub fn check(path: &Path, resume: bool) -> Result<()> {
        let created = create_directories(path)?;
        let outcome = refuse_if_occupied(path, resume);
        remove_empty(&created);
        outcome
    }

    /// What a person should know about the directory: a new run in place of a resumed one, an older program.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The traces of a run that began in this process.
    #[must_use]
    pub fn new_run(&self) -> Option<&NewRun> {
        self.new.as_ref()
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
        self.new.is_none()
    }

    /// Checks that the path still leads to the directory that this run holds, and not to another one or to nothing.
    ///
    /// # Errors
    /// [`Error::Gone`] if another process has removed, moved or replaced the directory.
    pub fn check_held(&self) -> Result<()> {
        if holds(&self.file(LOCK_FILE), &self.lock) { Ok(()) } else { Err(Error::Gone { path: self.path.clone() }) }
    }

    /// Whether the run has ended: `eval_results.json`, its last file, exists.
    pub fn finished(&self) -> bool {
        self.file(RESULTS_FILE).is_file()
    }
}

impl Drop for RunDir {
    /// A run that fails without output, for settings that do not fit its text, say, leaves no trace. A directory in place
    /// of its own has traces of others.
    fn drop(&mut self) {
        if let Some(new) = self.new.as_ref().filter(|_| self.check_held().is_ok()) {
            new.discard();
        }
    }
}

fn refuse_if_occupied(path: &Path, resume: bool) -> Result<()> {
    let names = entries(path)?;
    if resume && names.contains(SETTINGS_FILE) {
        return Ok(());
    }
    let of_a_run = |name: &&String| {
        RUN_FILES.contains(&name.as_str())
            || checkpoint_step(name).is_some()
            || name.starts_with(tensorboard::FILE_PREFIX)
    };
    // A record says more than other files: the directory is that of a run, which can be resumed.
    let record = names.get(SETTINGS_FILE);
    match record.or_else(|| names.iter().find(of_a_run)).cloned() {
        None => Ok(()),
        Some(found) if resume => Err(Error::NothingToResume { path: path.to_owned(), found }),
        Some(found) => Err(Error::Occupied { path: path.to_owned(), found }),
    }
}

fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK_FILE);
    loop {
        let open = File::options().create(true).truncate(false).write(true).open(&name);
        let file = open.map_err(Error::io("create", &name))?;
        match file.try_lock() {
            Ok(()) if holds(&name, &file) => return Ok(file),
            // A run that ended without output removed the file after it was opened here.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &name)(error)),
        }
    }
}

/// Whether the file at `path` is the open `file`.
#[cfg(unix)]
fn holds(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (named, open) = (path.metadata().map(identity), file.metadata().map(identity));
    named.ok().zip(open.ok()).is_some_and(|(named, open)| named == open)
}

/// Whether there is a file at `path`: other systems do not remove an open file.
#[cfg(not(unix))]
fn holds(path: &Path, _: &File) -> bool {
    path.exists()
}

/// Removes what a killed run left half-written, in its folders too. A folder with a lock is another run's, which removes
/// its own.
fn remove_leftovers(path: &Path) -> Result<()> {
    // A folder that cannot be listed holds nothing of the run.
    let Ok(names) = entries(path) else { return Ok(()) };
    for name in names {
        let entry = path.join(&name);
        let is_folder = entry.is_dir() && !entry.is_symlink();
        if is_folder && name.starts_with(PARTIAL_PREFIX) && name.ends_with(".partial") {
            remove_directory(&entry)?;
        } else if is_folder && !entry.join(LOCK_FILE).exists() {
            remove_leftovers(&entry)?;
        } else if !is_folder && tamt_files::is_temporary(&name) {
            remove_file(&entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings(text: &str) -> toml::Table {
        toml::from_str(text).unwrap()
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
    fn what_occupies_a_directory_is_told_by_its_record_or_else_by_a_file() {
        let root = tempfile::tempdir().unwrap();
        let told = || RunDir::check(root.path(), false).unwrap_err().to_string();
        for (name, holds) in [
            ("model.safetensors", "already holds a model (model.safetensors)"),
            ("config.json", "already holds a model (config.json)"),
            ("checkpoint-3", "already holds files of a run (checkpoint-3)"),
            ("config.toml", "already holds a run (config.toml)"),
        ] {
            fs::write(root.path().join(name), "").unwrap();
            assert!(told().ends_with(holds), "{}", told());
        }
    }

    #[test]
    fn runs_that_begin_together_do_not_remove_each_others_parents() {
        let root = tempfile::tempdir().unwrap();
        let check = |thread: usize| {
            for round in 0..100 {
                RunDir::check(&root.path().join(format!("{round}/tasks/{thread}")), false).unwrap();
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || check(thread));
            }
        });
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
        fs::write(run.file("log.jsonl"), "a line\n").unwrap();
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
    fn what_a_killed_run_left_half_written_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        fs::write(run.file("log.jsonl"), "a line\n").unwrap();
        drop(run);
        for folder in [".checkpoint-7.partial", "sparsity-0.5", "seed-1"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let halves = [".checkpoint-7.partial/state.safetensors", ".tmp-a1B2c3", "sparsity-0.5/.tmp-a1B2c3"];
        let others = ["seed-1/.lock", "seed-1/.tmp-a1B2c3", ".tmp-notes", "sparsity-0.5/notes"];
        for name in halves.iter().chain(&others) {
            fs::write(root.path().join(name), "half").unwrap();
        }
        let run = RunDir::create(root.path(), &settings(""), true).unwrap();
        assert_eq!(
            entries(root.path()).unwrap().into_iter().collect::<Vec<_>>(),
            [".lock", ".tmp-notes", "config.toml", "log.jsonl", "seed-1", "sparsity-0.5"]
        );
        assert_eq!(halves.map(|name| root.path().join(name).exists()), [false; 3]);
        assert_eq!(others.map(|name| root.path().join(name).exists()), [true; 4]);
        assert_eq!(run.latest_checkpoint().unwrap(), None);
    }

    #[test]
    fn the_settings_that_a_killed_run_left_half_written_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let temporary = root.path().join(".tmp-a1B2c3");
        fs::write(&temporary, "half").unwrap();
        drop(RunDir::create(root.path(), &settings(""), true).unwrap());
        assert!(temporary.exists(), "it may belong to another program");
        fs::write(root.path().join(".lock"), "").unwrap();
        drop(RunDir::create(root.path(), &settings(""), true).unwrap());
        assert!(!temporary.exists());
    }

    #[test]
    fn a_directory_that_was_moved_or_replaced_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let (path, aside) = (root.path().join("run"), root.path().join("aside"));
        let run = RunDir::create(&path, &settings(""), false).unwrap();
        run.check_held().unwrap();
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(run.check_held(), Err(Error::Gone { .. })));
        let other = RunDir::create(&path, &settings(""), false).unwrap();
        let error = run.publish_checkpoint(1, |_| Ok(())).unwrap_err();
        assert!(matches!(&error, Error::Gone { path: gone } if *gone == path), "{error}");
        drop(run);
        other.check_held().unwrap();
        assert_eq!(entries(&path).unwrap().into_iter().collect::<Vec<_>>(), [".lock", "config.toml"]);
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
