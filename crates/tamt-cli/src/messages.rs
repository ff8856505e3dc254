//! Errors of the library in the words of the command line, where settings are flags.

use std::error::Error as StdError;
use std::ffi::OsStr;

use clap::Command;
use tamt::Error;

use crate::advice::{fitting, has, verb_of};

/// The text of an error of a verb. Texts that name settings name their flags, where the verb has them.
pub(crate) fn message(error: &(dyn StdError + 'static), verb: &Command) -> String {
    if let Some(tamt_serve::Error::Setting { name, reason }) = error.downcast_ref() {
        return format!("--{name}: {reason}");
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Setting { name, reason }) if has(verb, name) => format!("--{name}: {reason}"),
        Some(Error::TeacherStates { reason }) if has(verb, "teacher") => {
            format!("--teacher: {reason}; give --kd-hidden-weight 0")
        }
        Some(Error::OtherBase { .. }) => {
            let texts = ["give that model, or --allow-other-base if the difference is meant", "give that model"];
            format!("{error}; {}", fitting(verb, &texts).unwrap_or_default())
        }
        Some(Error::Model(tamt_model::Error::NoMlmHead)) => {
            "the model has no MLM head; fit one with `tamt pretrain --train head`".to_owned()
        }
        _ => error.to_string(),
    }
}

/// An error of a command line with its causes, in a line.
pub(crate) fn with_causes(error: &anyhow::Error, line: &[impl AsRef<OsStr>]) -> String {
    let verb = verb_of(line);
    error.chain().map(|cause| message(cause, &verb)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verb: &str, error: &Error) -> String {
        message(error, &verb_of(&["tamt", verb]))
    }

    #[test]
    fn settings_are_named_by_the_flags_of_the_verb() {
        let error = Error::Setting { name: "block-size", reason: "too long".to_owned() };
        assert_eq!(told("find", &error), "--block-size: too long");
        assert_eq!(told("demo", &error), "block-size: too long");
        let error = Error::TeacherStates { reason: "its layers differ".to_owned() };
        assert_eq!(told("tune", &error), "--teacher: its layers differ; give --kd-hidden-weight 0");
        let error = Error::from(tamt_model::Error::NoMlmHead);
        assert_eq!(told("eval", &error), "the model has no MLM head; fit one with `tamt pretrain --train head`");
    }
}
