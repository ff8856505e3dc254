//! Errors of the library in the words of the command line, where settings are flags.

use std::error::Error as StdError;

use tamt::Error;

/// The text of an error. Texts that name settings name their flags.
pub(crate) fn message(error: &(dyn StdError + 'static)) -> String {
    if let Some(tamt_serve::Error::Setting { name, reason }) = error.downcast_ref() {
        return format!("--{name}: {reason}");
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Setting { name, reason }) => format!("--{name}: {reason}"),
        Some(Error::TeacherStates { reason }) => format!("--teacher: {reason}; give --kd-hidden-weight 0"),
        Some(Error::OtherBase { .. }) => {
            format!("{error}; give that model, or --allow-other-base if the difference is meant")
        }
        Some(Error::Model(tamt_model::Error::NoMlmHead)) => {
            "the model has no MLM head; fit one with `tamt pretrain --train head`".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_by_their_flags() {
        let error = Error::Setting { name: "block-size", reason: "too long".to_owned() };
        assert_eq!(
            (error.to_string(), message(&error)),
            ("block-size: too long".into(), "--block-size: too long".into())
        );
        let error = Error::TeacherStates { reason: "its layers differ".to_owned() };
        assert_eq!(message(&error), "--teacher: its layers differ; give --kd-hidden-weight 0");
        let message = message(&Error::from(tamt_model::Error::NoMlmHead));
        assert_eq!(message, "the model has no MLM head; fit one with `tamt pretrain --train head`");
    }
}
