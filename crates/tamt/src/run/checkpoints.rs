//! The checkpoints in a run directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::run::files::{
    CHECKPOINT_PREFIX, PARTIAL_PREFIX, TRAINING_STATE_FILE, checkpoint_step, entries, remove_directory, remove_file,
    sync,
};
use crate::run::{RunDir, TrainerState};

/// The name of a training state that cannot be read.
const DAMAGED_STATE_FILE: &str = "state.safetensors.damaged";

/// Files beside the training state that are large and of use to a resumed run only.
const LARGE_FILES: [&str; 2] = [TRAINING_STATE_FILE, "best.safetensors"];

impl RunDir {
    /// All checkpoints as (step, directory), in ascending order of steps, whether or not they hold a training state.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut checkpoints: Vec<_> = entries(self.path())?
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
        Ok(self.resumable_checkpoints()?.pop())
    }

    /// The checkpoints with a training state, in ascending order of steps.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be listed.
    pub fn resumable_checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut checkpoints = self.checkpoints()?;
        checkpoints.retain(|(_, directory)| directory.join(TRAINING_STATE_FILE).is_file());
        Ok(checkpoints)
    }

    /// Publishes `checkpoint-<step>` and returns its path: `write` fills a hidden directory, which is then synced to
    /// disk and renamed, so that a checkpoint is whole or absent. A checkpoint of the same step is replaced.
    ///
    /// # Errors
    /// Those of `write`, [`Error::Gone`] and [`Error::Io`]; the hidden directory is removed.
    pub fn publish_checkpoint(&self, step: u64, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        self.check_held()?;
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
        sync(self.path())
    }

    /// Reduces every checkpoint of a step before `step` to its ticket where the step is a multiple of `save_every`, and
    /// removes the others.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be removed.
    pub fn retire_checkpoints_before(&self, step: u64, save_every: u64) -> Result<()> {
        for (other, directory) in self.checkpoints()?.into_iter().take_while(|(other, _)| *other < step) {
            // Without its state, a checkpoint that is removed in part is none to resume from.
            for name in LARGE_FILES {
                remove_file(&directory.join(name))?;
            }
            if save_every == 0 || !other.is_multiple_of(save_every) {
                remove_directory(&directory)?;
            }
        }
        Ok(())
    }

    /// Removes the training states that a finished run has left, where a kill came between its result and their removal.
    /// The last one stays if `goes_on_after` says of the run's steps that more can follow.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`] if a file cannot be read or removed.
    pub fn retire_checkpoints_of_finished(&self, goes_on_after: impl FnOnce(u64) -> bool) -> Result<()> {
        if self.checkpoints()?.is_empty() {
            return Ok(());
        }
        let TrainerState { global_step, max_steps, save_steps, .. } = TrainerState::read(self.path())?;
        let goes_on = global_step == max_steps && goes_on_after(global_step);
        self.retire_checkpoints_before(if goes_on { global_step } else { u64::MAX }, save_steps)
    }

    /// Renames the training state of the checkpoint of `step`, so that no run resumes from it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be renamed.
    pub(crate) fn set_aside(&self, step: u64) -> Result<()> {
        let directory = self.file(&format!("{CHECKPOINT_PREFIX}{step}"));
        let state = directory.join(TRAINING_STATE_FILE);
        fs::rename(&state, directory.join(DAMAGED_STATE_FILE)).map_err(Error::io("rename", &state))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ticket::TICKET_FILE;

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
    fn older_checkpoints_at_asked_steps_keep_the_ticket_and_others_go() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        let paths = [2, 3, 4, 5].map(|step| checkpoint(&run, step));
        for _ in 0..2 {
            run.retire_checkpoints_before(5, 2).unwrap();
        }
        assert_eq!(paths.each_ref().map(|path| path.join(TICKET_FILE).exists()), [true, false, true, true]);
        assert_eq!(paths.each_ref().map(|path| path.join(TRAINING_STATE_FILE).exists()), [false, false, false, true]);
        run.retire_checkpoints_before(u64::MAX, 0).unwrap();
        assert_eq!(run.checkpoints().unwrap(), []);
    }

    #[test]
    fn a_finished_run_keeps_no_state_but_one_to_go_on_from() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        run.retire_checkpoints_of_finished(|_| true).unwrap();
        for step in [3, 4, 5] {
            checkpoint(&run, step);
        }
        let state = TrainerState { global_step: 5, max_steps: 5, save_steps: 2, ..TrainerState::default() };
        state.write(root.path()).unwrap();
        run.retire_checkpoints_of_finished(|step| step == 5).unwrap();
        let steps = |found: Vec<(u64, PathBuf)>| found.into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!(steps(run.checkpoints().unwrap()), [4, 5]);
        assert_eq!(steps(run.resumable_checkpoints().unwrap()), [5]);
        run.retire_checkpoints_of_finished(|_| false).unwrap();
        assert_eq!(steps(run.checkpoints().unwrap()), [4]);
        assert_eq!(steps(run.resumable_checkpoints().unwrap()), [0_u64; 0]);
    }

    #[test]
    fn a_damaged_state_is_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDir::create(root.path(), &settings(""), false).unwrap();
        let (one, two) = (checkpoint(&run, 1), checkpoint(&run, 2));
        run.set_aside(2).unwrap();
        assert_eq!(run.latest_checkpoint().unwrap(), Some((1, one)));
        assert!(two.join(DAMAGED_STATE_FILE).exists());
    }
}
