//! Advice for errors with a known remedy.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use tamt::Error;
use tamt::run::SETTINGS_FILE;
use tamt::ticket::Ticket;

use crate::advice::{fitting, has, has_optional};
use crate::args::Cli;
use crate::config_file;
use crate::keywords::name_of_flag;
use crate::messages::message;
use crate::places::{nearest_directory, what_is_at};
use crate::shell;

/// Advice on `error`, in one sentence that names flags of `verb`. `line` is the typed command line.
pub(crate) fn hint(error: &anyhow::Error, line: &[OsString], verb: &Command) -> Option<String> {
    let known = known_remedy(error, line, verb).or_else(|| error.chain().find_map(place));
    known.or_else(|| error.chain().find_map(|cause| file_of_flag(&message(cause, verb), line)))
}

fn known_remedy(error: &anyhow::Error, line: &[OsString], verb: &Command) -> Option<String> {
    // Of several texts, the first one that fits the verb.
    let texts: &[&str] = match error.downcast_ref::<Error>()? {
        Error::Occupied { path, found } if found == SETTINGS_FILE && can_be_of(path, verb) => {
            &["give --resume to go on with that run, or another --output-dir", "give another --output-dir"]
        }
        Error::Occupied { .. } | Error::NothingToResume { .. } => &["give another --output-dir"],
        Error::SettingsDiffer { .. } => &["give --resume with the recorded settings, or another --output-dir"],
        Error::Locked { .. } => {
            &["wait for the other process to end, or give another --output-dir", "wait for the other process to end"]
        }
        Error::Gone { .. } => &["--resume goes on once the directory is back, and starts over without it"],
        Error::Stopped { checkpoint: Some(_), .. } => {
            return has(verb, "resume").then(|| format!("to go on: {}", resuming(line)));
        }
        Error::Head { found: Some(_), .. } => &["`tamt tune --new-head` replaces the head of --model by a new one"],
        Error::Head { found: None, .. } | Error::NoHead { .. } => &["`tamt tune` gives a model a head for a task"],
        Error::TicketOfPacked { .. } if has_optional(verb, "ticket") => {
            &["leave --ticket out, or give the model that the ticket belongs to"]
        }
        Error::TicketOfPacked { .. } => &["give the model that the ticket belongs to"],
        Error::NonFinite { .. } => &["a lower --learning-rate may help"],
        Error::Model(tamt_model::Error::NotAMask { .. }) => {
            &["`tamt import --zeros-of` reads the zeros of a checkpoint"]
        }
        _ => return None,
    };
    fitting(verb, texts).map(str::to_owned)
}

/// Whether the run in a directory can be one of `verb`; a run without a readable record can be of any.
fn can_be_of(directory: &Path, verb: &Command) -> bool {
    config_file::verb_of_run(directory).is_none_or(|recorded| recorded == verb.get_name())
}

/// The file of the flag that a message begins with, if a file and not the command line gives the flag.
fn file_of_flag(message: &str, line: &[OsString]) -> Option<String> {
    let name = name_of_flag(message)?;
    let path = config_file::origin(&Cli::command(), line, name)?;
    Some(format!("--{name} is in {}", path.display()))
}

/// What is at the path of an error about a file that is missing or of another kind.
fn place(error: &(dyn StdError + 'static)) -> Option<String> {
    let of_data = |error: &tamt_data::Error| match error {
        tamt_data::Error::Io { path, source, .. } => misplaced(path, source),
        // The task's directory is the last one that was searched.
        tamt_data::Error::MissingSplit { folders, .. } => Some(what_is_at(folders.last()?)),
        tamt_data::Error::NoTokenizer { path } => Some(what_is_at(path)),
        _ => None,
    };
    let of_model = |error: &tamt_model::Error| match error {
        tamt_model::Error::Read { path, source } | tamt_model::Error::Write { path, source } => misplaced(path, source),
        tamt_model::Error::NotAModel { path, .. } => ticket_of(path),
        // The error itself names the last part that exists.
        tamt_model::Error::NoSuchDirectory { path, .. } if has_parent(path) => Some(what_is_at(path)),
        tamt_model::Error::NoSuchDirectory { path, .. } => {
            Some(format!("did you mean {}?", nearest_directory(path)?.display()))
        }
        tamt_model::Error::Hub { model, .. }
        | tamt_model::Error::Offline { model, .. }
        | tamt_model::Error::ModelName { model, .. } => {
            let near = nearest_directory(Path::new(model))?;
            Some(format!("there is no directory {model}; did you mean {}?", near.display()))
        }
        _ => None,
    };
    let of_study = |error: &tamt_study::Error| match error {
        tamt_study::Error::Io { path, source, .. } => misplaced(path, source),
        _ => None,
    };
    let of_report = |error: &tamt_report::error::Error| match error {
        tamt_report::error::Error::Io { path, source, .. } => misplaced(path, source),
        tamt_report::error::Error::NoRuns { path } => Some(what_is_at(path)),
        _ => None,
    };
    match error.downcast_ref::<Error>() {
        Some(Error::Io { path, source, .. }) => misplaced(path, source),
        Some(Error::NotATicket { path, .. }) if path.is_dir() => Some(what_is_at(path)),
        Some(Error::Data(error)) => of_data(error),
        Some(Error::Model(error)) => of_model(error),
        _ => error
            .downcast_ref::<tamt_data::Error>()
            .and_then(of_data)
            .or_else(|| error.downcast_ref::<tamt_model::Error>().and_then(of_model))
            .or_else(|| error.downcast_ref::<tamt_study::Error>().and_then(of_study))
            .or_else(|| error.downcast_ref::<tamt_report::error::Error>().and_then(of_report)),
    }
}

fn has_parent(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir())
}

fn misplaced(path: &Path, source: &io::Error) -> Option<String> {
    use io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound};
    matches!(source.kind(), NotFound | IsADirectory | NotADirectory | AlreadyExists).then(|| what_is_at(path))
}

/// The model to give instead of a directory with a ticket.
fn ticket_of(path: &Path) -> Option<String> {
    let ticket = Ticket::read(path).ok()?;
    let (path, base) = (path.display(), &ticket.provenance.base_model);
    Some(format!("{path} holds a ticket of {base}: the model to give is that one, and {path} is a ticket"))
}

/// The command line that resumes the run of `line`.
fn resuming(line: &[OsString]) -> String {
    let resume = OsStr::new("--resume");
    let missing = (!line.iter().any(|argument| argument == resume)).then_some(resume);
    let arguments = line.iter().map(OsString::as_os_str).chain(missing);
    arguments.map(shell::word).collect::<Vec<_>>().join(" ")
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
