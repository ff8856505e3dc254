//! The verbs for a program: settings by name, events to a listener, a result or a failure.
//!
//! A call has the settings of the command, since its settings become the words of a command line, which the parser of the
//! command reads and the verb resolves. A run that a program began goes on with the command's `--resume`, and the other
//! way round.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, CommandFactory};
use serde_json::Value;
use tamt::Error;
use tamt::run::Stop;
use tamt_data::nearest;

use crate::args::{Cli, values};
use crate::audience::{Attending, Listener};
use crate::exit::UsageError;
use crate::keywords::{keyword, reworded};
use crate::printer::Printer;
use crate::{command_line, config_file, hints, messages, verbs};

/// The verbs that can be called.
pub const VERBS: [&str; 5] = ["find", "tune", "eval", "predict", "pretrain"];

/// Most threads of a verb, or of an encoder.
pub const MOST_THREADS: i64 = values::MOST_THREADS;

/// Flags that concern the streams of the command.
const OF_THE_COMMAND: [&str; 4] = ["json", "quiet", "help", "version"];

/// A setting of a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name, in snake case.
    pub name: String,
    /// What values it takes.
    pub kind: SettingKind,
    /// The heading under which `--help` lists it; empty for the first ones.
    pub heading: String,
    /// What it means, and its default.
    pub help: String,
    /// The names of an enumeration; empty for other values.
    pub choices: Vec<String>,
    /// Whether every call needs it.
    pub required: bool,
}

/// The values of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// True or false.
    Switch,
    /// A string or a number.
    One,
    /// An array of strings or numbers, or one of them.
    Many,
}

/// Why a verb has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What a program tells apart.
    pub kind: FailureKind,
    /// The message, with causes and advice on further lines.
    pub message: String,
}

/// What a program tells apart in failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A setting that the verb does not have.
    UnknownSetting,
    /// A setting's value, or a combination of settings.
    Setting,
    /// A ticket that cannot be read or belongs to another model.
    Ticket,
    /// A model.
    Model,
    /// Texts, a task or its data.
    Data,
    /// A run directory.
    Run,
    /// A file that cannot be read or written.
    File,
    /// The listener asked for the end.
    Stopped {
        /// The last completed step.
        step: u64,
        /// The checkpoint to go on from, if there was anything to save.
        checkpoint: Option<PathBuf>,
    },
    /// Any other failure.
    Other,
}

/// The definition of a verb.
fn verb(name: &str) -> Command {
    let mut command = Cli::command();
    command.build();
    let verb = command.find_subcommand(name).filter(|_| VERBS.contains(&name));
    verb.expect("programs call verbs of `VERBS`").clone()
}

fn arguments(verb: &Command) -> impl Iterator<Item = (&Arg, &str)> {
    let named = verb.get_arguments().filter_map(|argument| Some((argument, argument.get_long()?)));
    named.filter(|(_, name)| !OF_THE_COMMAND.contains(name))
}

/// The settings of a verb, in the order of its `--help`.
///
/// # Panics
/// If the verb is none of [`VERBS`].
pub fn settings(name: &str) -> Vec<Setting> {
    let verb = verb(name);
    let setting = |(argument, name): (&Arg, &str)| Setting {
        name: keyword(name),
        kind: match argument.get_action() {
            ArgAction::SetTrue => SettingKind::Switch,
            ArgAction::Append => SettingKind::Many,
            _ => SettingKind::One,
        },
        heading: argument.get_help_heading().unwrap_or_default().to_owned(),
        help: reworded(&argument.get_help().map(ToString::to_string).unwrap_or_default(), &verb),
        choices: argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect(),
        required: argument.is_required_set(),
    };
    arguments(&verb).map(setting).collect()
}

/// Runs a verb with these settings on the engine's threads, and returns its result, an object. `stop` ends the verb: a run
/// that has taken a step saves a checkpoint first.
///
/// # Errors
/// If a setting or an input is wrong, or the work fails or is stopped.
///
/// # Panics
/// If the verb is none of [`VERBS`].
pub fn call(name: &str, given: &toml::Table, listener: Arc<dyn Listener>, stop: &Stop) -> Result<Value, Failure> {
    let verb_definition = verb(name);
    let line = words(&verb_definition, given)?;
    let cli = command_line::parse(&line).map_err(|error| not_parsed(&error, &verb_definition))?;
    let listener = Arc::new(Rewording { listener, verb: verb_definition.clone() });
    let attending = Attending::begin(listener, stop.clone());
    let printer = Printer::before(attending.audience());
    // As in the command, the verb runs on a thread of the pool.
    let run = || verbs::run(&cli.verb, printer);
    let outcome = match cli.verb.common().and_then(|common| common.threads) {
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build();
            pool.with_context(|| format!("cannot start {threads} threads")).and_then(|pool| pool.scope(|_| run()))
        }
        None => rayon::scope(|_| run()),
    };
    if outcome.is_err() && stop.requested().is_some() {
        attending.discard_new_runs();
    }
    outcome.map_err(|error| failure(&error, &verb_definition, &line))?;
    Ok(attending.result().unwrap_or(Value::Null))
}

/// A failure of the library, for a program that encodes texts without a verb.
pub fn failure_of(error: Error) -> Failure {
    let mut command = Cli::command();
    command.build();
    let encode = command.find_subcommand("encode").expect("the command has the verb");
    match &error {
        // Not all settings of a program are flags.
        Error::Setting { name, reason } => {
            setting_failure(FailureKind::Setting, format!("{}: {}", keyword(name), reworded(reason, encode)))
        }
        _ => failure(&error.into(), encode, &[]),
    }
}

/// Tells notes in terms of keywords.
struct Rewording {
    listener: Arc<dyn Listener>,
    verb: Command,
}

impl Listener for Rewording {
    fn listens(&self) -> bool {
        self.listener.listens()
    }

    fn hear(&self, mut event: Value) {
        if let Some(Value::String(text)) = event.get_mut("text") {
            *text = reworded(text, &self.verb);
        }
        self.listener.hear(event);
    }
}

fn setting_failure(kind: FailureKind, message: String) -> Failure {
    Failure { kind, message }
}

/// The command line that has the settings.
fn words(verb: &Command, given: &toml::Table) -> Result<Vec<OsString>, Failure> {
    let mut line = vec!["tamt".into(), verb.get_name().into()];
    for (key, value) in given {
        let name = key.replace('_', "-");
        let Some((argument, name)) = arguments(verb).find(|(_, known)| *known == name) else {
            let meant = nearest(&name, arguments(verb).map(|(_, known)| known)).map(keyword);
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            return Err(setting_failure(FailureKind::UnknownSetting, format!("unknown setting {key}{meant}")));
        };
        config_file::translate(argument, name, key, value, &mut line)
            .map_err(|problem| setting_failure(FailureKind::Setting, problem.replace('`', "")))?;
    }
    Ok(line)
}

/// The failure of a command line that the parser refuses: the message without what concerns a terminal.
fn not_parsed(error: &clap::Error, verb: &Command) -> Failure {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end)).min();
    let message = reworded(text[..end.unwrap_or(text.len())].trim_end(), verb);
    let message = match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            message.replace("the following required arguments were not provided:", "missing settings:")
        }
        _ => message.replace("the argument '", "the setting '"),
    };
    setting_failure(FailureKind::Setting, message)
}

/// The failure of a verb. `line` is the command line that has the settings.
fn failure(error: &anyhow::Error, verb: &Command, line: &[OsString]) -> Failure {
    let causes = error.chain().map(|cause| reworded(&messages::message(cause, verb), verb));
    let mut message = causes.collect::<Vec<_>>().join("\n  caused by: ");
    let stopped = matches!(error.downcast_ref(), Some(Error::Stopped { .. }));
    // A stopped run is resumed by the same call, which the command line does not show.
    if let Some(hint) = hints::hint(error, line, verb).filter(|_| !stopped) {
        message.push_str(&format!("\nhint: {}", reworded(&hint, verb)));
    }
    Failure { kind: kind(error), message }
}

fn kind(error: &anyhow::Error) -> FailureKind {
    let of_chain = error.chain().find_map(kind_of);
    of_chain.unwrap_or(FailureKind::Other)
}

fn kind_of(error: &(dyn StdError + 'static)) -> Option<FailureKind> {
    if error.is::<UsageError>() {
        return Some(FailureKind::Setting);
    }
    if error.is::<tamt_data::Error>() {
        return Some(FailureKind::Data);
    }
    if error.is::<tamt_model::Error>() {
        return Some(FailureKind::Model);
    }
    Some(match error.downcast_ref::<Error>()? {
        Error::Setting { .. } | Error::TeacherStates { .. } | Error::Unrecordable { .. } => FailureKind::Setting,
        Error::Stopped { step, checkpoint, .. } => FailureKind::Stopped { step: *step, checkpoint: checkpoint.clone() },
        Error::NotATicket { .. }
        | Error::OtherBase { .. }
        | Error::TicketMismatch { .. }
        | Error::TicketOfPacked { .. }
        | Error::NoMasks { .. } => FailureKind::Ticket,
        Error::Head { .. }
        | Error::NoHead { .. }
        | Error::UnusableHead { .. }
        | Error::Vocabulary { .. }
        | Error::NotAHead { .. }
        | Error::NotPacked { .. }
        | Error::NonFiniteEvaluation { .. }
        | Error::Model(_) => FailureKind::Model,
        Error::Data(_) => FailureKind::Data,
        Error::Io { .. } | Error::Damaged { .. } | Error::OtherContent { .. } => FailureKind::File,
        Error::Occupied { .. }
        | Error::NothingToResume { .. }
        | Error::SettingsDiffer { .. }
        | Error::Locked { .. }
        | Error::Gone { .. }
        | Error::NonFinite { .. } => FailureKind::Run,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(verb: &str, toml: &str) -> Failure {
        struct Deaf;
        impl Listener for Deaf {
            fn listens(&self) -> bool {
                false
            }
            fn hear(&self, _: Value) {}
        }
        call(verb, &toml::from_str(toml).unwrap(), Arc::new(Deaf), &Stop::new()).unwrap_err()
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_one() {
        let failure = refused("find", "max_step = 3");
        assert_eq!(failure.kind, FailureKind::UnknownSetting);
        assert_eq!(failure.message, "unknown setting max_step; did you mean max_steps?");
    }

    #[test]
    fn wrong_values_and_missing_settings_are_told_by_keywords() {
        let failure = refused("find", "model = 'm'\nmethod = 'magnitude'\nsparsity = 70\noutput_dir = 'd'");
        assert_eq!(failure.kind, FailureKind::Setting);
        let problem = "it is the fraction of weights to prune, above 0 and below 1; did you mean 0.7?";
        assert_eq!(failure.message, format!("invalid value '70' for 'sparsity': {problem}"));
        let failure = refused("find", "model = 'm'\nmethod = 'magnitude'\nsparsity = 0.7");
        assert_eq!(failure.message, "missing settings:\n  output_dir");
        let failure = refused("find", "model = true");
        assert_eq!(failure.message, "model is a string or a number, not a boolean");
    }

    #[test]
    fn each_verb_has_settings_with_help() {
        for verb in VERBS {
            let settings = settings(verb);
            assert!(settings.iter().any(|setting| setting.name == "precision" && setting.choices.len() == 3), "{verb}");
            assert!(settings.iter().all(|setting| !setting.help.is_empty()), "{verb}");
        }
    }
}
