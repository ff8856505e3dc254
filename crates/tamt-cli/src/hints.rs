//! Advice for errors with a known remedy.

use std::ffi::{OsStr, OsString};

use tamt::Error;

/// Advice on `error`, in one sentence that names flags. `line` is the typed command line.
pub(crate) fn hint(error: &anyhow::Error, line: &[OsString]) -> Option<String> {
    let text = match error.downcast_ref::<Error>()? {
        Error::Occupied { .. } => "give --resume to go on with that run, or another --output-dir",
        Error::NothingToResume { .. } => "give another --output-dir",
        Error::SettingsDiffer { .. } => "give --resume with the recorded settings, or another --output-dir",
        Error::Locked { .. } => "wait for the other process to end, or give another --output-dir",
        Error::Gone { .. } => "--resume goes on once the directory is back, and starts over without it",
        Error::Stopped { checkpoint: Some(_), .. } => return Some(format!("to go on: {}", resuming(line))),
        Error::Head { found: Some(_), .. } => "`tamt tune --new-head` replaces the head of --model by a new one",
        Error::Head { found: None, .. } => "`tamt tune` gives a model a head for a task",
        Error::NonFinite { .. } => "a lower --learning-rate may help",
        Error::Model(tamt_model::Error::NoMlmHead) => "`tamt pretrain --train head` fits one",
        _ => return None,
    };
    Some(text.to_owned())
}

/// The command line that resumes the run of `line`.
fn resuming(line: &[OsString]) -> String {
    let resume = OsStr::new("--resume");
    let missing = (!line.iter().any(|argument| argument == resume)).then_some(resume);
    let arguments = line.iter().map(OsString::as_os_str).chain(missing);
    arguments.map(|argument| quoted(&argument.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// An argument in quotes, if a shell needs them.
pub(crate) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resuming_command_can_be_pasted_into_a_shell() {
        let line = |arguments: &[&str]| resuming(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(line(&["tamt", "find", "--corpus", "a b", "it's"]), r"tamt find --corpus 'a b' 'it'\''s' --resume");
        assert_eq!(line(&["./tamt", "find", "--resume", ""]), "./tamt find --resume ''");
    }
}
