//! Going on from the newest checkpoint that can be read.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::run::{Observer, RunDir, TrainerState};
use crate::train::interval::Interval;
use crate::train::learner::Learner;
use crate::train::state;
use crate::train::task::TrainingTask;

/// The position of a run in its checkpoint.
pub(super) struct Resumed {
    /// Steps done.
    pub(super) step: u64,
    /// The checkpoint.
    pub(super) path: PathBuf,
    /// The sums since the last logged line.
    pub(super) interval: Interval,
    /// The record up to the step.
    pub(super) record: TrainerState,
    /// Whether the evaluation that is due after the step, if one is, has ended.
    pub(super) evaluated: bool,
}

/// Reads the newest checkpoint of a run, or the one before where the newest is damaged, into `task` and `learner`.
/// `None` without any checkpoint. A damaged checkpoint is set aside once another one was read.
///
/// # Errors
/// The error of the newest checkpoint if none can be read.
pub(super) fn resume(
    task: &mut dyn TrainingTask,
    learner: &mut Learner<'_>,
    directory: &RunDir,
    observer: &mut dyn Observer,
) -> Result<Option<Resumed>> {
    let mut damaged = Vec::new();
    // A learner that was read in part is read in whole by the next checkpoint.
    for (step, path) in directory.resumable_checkpoints()?.into_iter().rev() {
        match read(task, learner, &path, step) {
            Ok(resumed) => {
                for (broken, error) in damaged {
                    observer.note(&format!("{error}; the checkpoint before it takes its place"));
                    directory.set_aside(broken)?;
                }
                observer.note(&format!("resuming from {}", path.display()));
                return Ok(Some(resumed));
            }
            Err(error) => damaged.push((step, error)),
        }
    }
    match damaged.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(None),
    }
}

fn read(task: &mut dyn TrainingTask, learner: &mut Learner<'_>, path: &Path, step: u64) -> Result<Resumed> {
    let (interval, evaluated) = state::load(learner, path, step)?;
    task.restore(learner, path)?;
    let record = TrainerState::read(path)?;
    Ok(Resumed { step, path: path.to_owned(), interval, record, evaluated })
}
