//! Advice that fits a verb: a message names no flag that the verb does not have.

use std::ffi::OsStr;

use clap::{Command, CommandFactory};

use crate::args::Cli;
use crate::keywords::name_of_flag;

/// The definition of the verb of a command line; that of the whole command, which has no such flags, for a line without
/// one.
pub(crate) fn verb_of(line: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Cli::command();
    command.build();
    let verb = line.get(1).and_then(|word| command.find_subcommand(word)).cloned();
    verb.unwrap_or(command)
}

/// Whether a verb has the flag of this name.
pub(crate) fn has(verb: &Command, name: &str) -> bool {
    verb.get_arguments().any(|argument| argument.get_long() == Some(name))
}

/// Whether a verb has the flag of this name and runs without it.
pub(crate) fn has_optional(verb: &Command, name: &str) -> bool {
    verb.get_arguments().any(|argument| argument.get_long() == Some(name) && !argument.is_required_set())
}

/// The first of these texts whose flags the verb has.
pub(crate) fn fitting<'a>(verb: &Command, texts: &[&'a str]) -> Option<&'a str> {
    texts.iter().copied().find(|text| flags_in(text).all(|flag| has(verb, flag)))
}

/// The names of the flags in a text, but for those in quoted command lines: `tamt tune --new-head`.
fn flags_in(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split('`').filter(|part| !part.starts_with("tamt "));
    parts.flat_map(|part| part.match_indices("--").filter_map(move |(at, _)| name_of_flag(&part[at..])))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use tamt::Error;

    use super::*;
    use crate::hints::hint;
    use crate::messages::message;

    fn verbs() -> Vec<Command> {
        let mut command = Cli::command();
        command.build();
        command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect()
    }

    /// Expects each flag of a text to be one of the verb, and each flag of a quoted command line to be one of its verb.
    #[track_caller]
    fn names_only_flags_of(verb: &Command, text: &str) {
        for flag in flags_in(text) {
            assert!(has(verb, flag), "{} has no --{flag}: {text}", verb.get_name());
        }
        for line in text.split('`').filter(|part| part.starts_with("tamt ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let own = verb_of(&words);
            for flag in words.iter().filter_map(|word| name_of_flag(word)) {
                assert!(has(&own, flag) || flag == "help", "{} has no --{flag}: {text}", own.get_name());
            }
        }
    }

    /// Errors with advice, each a new one.
    fn errors() -> Vec<Error> {
        let path = || PathBuf::from("run");
        let of = |found: &str| Error::Occupied { path: path(), found: found.to_owned() };
        let setting = |name| Error::Setting { name, reason: "too long".to_owned() };
        vec![
            of("config.toml"),
            of("config.json"),
            Error::NothingToResume { path: path(), found: "config.json".to_owned() },
            Error::SettingsDiffer { path: path(), differences: Vec::new(), reason: None },
            Error::Locked { path: path() },
            Error::Gone { path: path() },
            Error::Stopped { signal: 2, step: 3, checkpoint: Some(path()) },
            Error::NonFinite { step: 3, what: "the loss".to_owned(), last_good: None },
            Error::Head { path: path(), task: "cola".to_owned(), outputs: 2, found: Some(3) },
            Error::Head { path: path(), task: "cola".to_owned(), outputs: 2, found: None },
            Error::TicketOfPacked { model: "m".to_owned(), base_model: "b".to_owned() },
            Error::OtherBase {
                base_model: "b".to_owned(),
                ticket_sha256: "1".to_owned(),
                model_sha256: "2".to_owned(),
            },
            Error::TeacherStates { reason: "its layers differ".to_owned() },
            Error::Model(tamt_model::Error::NoMlmHead),
            setting("batch-size"),
            setting("kd-weight"),
        ]
    }

    #[test]
    fn no_verb_advises_a_flag_that_it_does_not_have() {
        for verb in verbs() {
            let line = ["tamt", verb.get_name()].map(OsString::from);
            for error in errors() {
                let error = anyhow::Error::from(error);
                let texts = error.chain().map(|cause| message(cause, &verb)).chain(hint(&error, &line, &verb));
                texts.for_each(|text| names_only_flags_of(&verb, &text));
            }
        }
    }

    #[test]
    fn advice_is_given_where_the_verb_has_its_flag() {
        let hint_of = |verb: &str, error: Error| {
            let line = ["tamt", verb].map(OsString::from);
            hint(&error.into(), &line, &verb_of(&line)).unwrap_or_default()
        };
        let occupied = |found: &str| Error::Occupied { path: "run".into(), found: found.to_owned() };
        let resume = "give --resume to go on with that run, or another --output-dir";
        assert_eq!(hint_of("find", occupied("config.toml")), resume);
        assert_eq!(hint_of("find", occupied("config.json")), "give another --output-dir");
        assert_eq!(hint_of("eval", occupied("config.toml")), "give another --output-dir");
        let packed = || Error::TicketOfPacked { model: "m".to_owned(), base_model: "b".to_owned() };
        assert!(hint_of("eval", packed()).starts_with("leave --ticket out"));
        assert_eq!(hint_of("apply", packed()), "give the model that the ticket belongs to");
        // The message says which command fits a head.
        assert_eq!(hint_of("eval", Error::Model(tamt_model::Error::NoMlmHead)), "");
    }

    #[test]
    fn the_help_of_a_flag_names_flags_of_its_verb() {
        for verb in verbs() {
            for argument in verb.get_arguments() {
                let help = [argument.get_help(), argument.get_long_help()];
                help.into_iter().flatten().for_each(|text| names_only_flags_of(&verb, &text.to_string()));
            }
        }
    }
}
