//! What to do next, for errors where that is known.

use tamt::Error;

/// Advice on `error`, in one sentence that names flags.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<Error>()? {
        Error::Occupied { .. } => Some("give --resume to go on with that run, or another --output-dir"),
        Error::NothingToResume { .. } => Some("give another --output-dir"),
        Error::SettingsDiffer { .. } => Some("give --resume with the recorded settings, or another --output-dir"),
        Error::Locked { .. } => Some("wait for the other process to end, or give another --output-dir"),
        Error::Stopped { checkpoint: Some(_), .. } => {
            Some("the same command with --resume goes on from the checkpoint")
        }
        Error::NonFinite { .. } => Some("a lower --learning-rate, or --precision f32, may help"),
        _ => None,
    }
}
