//! What flags of `find`, `eval` and `tune` are, from the definition of the command line.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use tamt::find::Method;
use tamt_data::tasks::Task;
use tamt_study::commands::{Commands, Form, MethodTraits, PathKind, Resolved, Verb as StudyVerb};

use crate::args::values::{MLM_HEADS, START_MASKS};
use crate::args::{Cli, Verb};
use crate::config_file::exclude_each_other;
use crate::effects;
use crate::verbs::study::meaning::{self, Models};

/// Flags whose values are files or directories.
const PATHS: [&str; 5] = ["corpus", "eval-corpus", "task-file", "data", "output-dir"];

/// Flags whose values are directories or ids of a hub.
const MODELS: [&str; 2] = ["model", "teacher"];

/// Flags whose values are keywords or paths.
const KEYWORDS: [(&str, &[&str]); 2] = [("init", &START_MASKS), ("mlm-head", &MLM_HEADS)];

/// The commands of this program, for a study.
pub(super) struct OwnCommands {
    command: Command,
    models: Models,
}

impl OwnCommands {
    pub(super) fn new() -> Self {
        let mut command = Cli::command();
        command.build();
        Self { command, models: Models::default() }
    }

    fn verb(&self, verb: StudyVerb) -> &Command {
        self.command.find_subcommand(verb.name()).unwrap_or(&self.command)
    }

    fn arg(&self, verb: StudyVerb, name: &str) -> Option<&Arg> {
        self.verb(verb).get_arguments().find(|flag| flag.get_long() == Some(name))
    }
}

/// The words of a run as the flags of its verb.
pub(super) fn parse(words: &[String]) -> Result<Verb, String> {
    let elsewhere = words.iter().any(|word| word.starts_with("--output-dir"));
    let output = (!elsewhere).then(|| "--output-dir=.".to_owned());
    let words: Vec<OsString> = words.iter().cloned().chain(output).map(OsString::from).collect();
    Cli::try_parse_from(words).map(|cli| cli.verb).map_err(|error| told(&error))
}

/// The message of the parser in a line, without usage and advice.
fn told(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

impl Commands for OwnCommands {
    fn method(&self, name: &str) -> Option<MethodTraits> {
        let method = Method::ALL.into_iter().find(|method| method.name() == name)?;
        Some(MethodTraits {
            trains: method.trains(),
            in_rounds: method == Method::Imp,
            trains_masks: method.trains_masks(),
            draws: method.trains() || method == Method::Random,
        })
    }

    fn has_task(&self, name: &str) -> bool {
        Task::by_name(name).is_some()
    }

    fn form(&self, verb: StudyVerb, name: &str) -> Option<Form> {
        Some(match self.arg(verb, name)?.get_action() {
            ArgAction::SetTrue => Form::Switch,
            ArgAction::Append => Form::Many,
            _ => Form::One,
        })
    }

    fn flags(&self, verb: StudyVerb) -> Vec<String> {
        self.verb(verb).get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
    }

    fn excludes(&self, verb: StudyVerb, one: &str, other: &str) -> bool {
        let pair = self.arg(verb, one).zip(self.arg(verb, other));
        pair.is_some_and(|(one, other)| exclude_each_other(self.verb(verb), one, other))
    }

    fn path(&self, _: StudyVerb, name: &str) -> Option<PathKind> {
        let keywords = KEYWORDS.iter().find(|(flag, _)| *flag == name);
        match keywords {
            Some((_, keywords)) => Some(PathKind::PathOrKeyword(keywords)),
            None if MODELS.contains(&name) => Some(PathKind::PathOrId),
            None => PATHS.contains(&name).then_some(PathKind::Path),
        }
    }

    fn check(&self, verb: StudyVerb, name: &str, value: &str) -> Result<(), String> {
        let words = ["tamt".to_owned(), verb.name().to_owned(), format!("--{name}={value}")];
        match self.command.clone().try_get_matches_from(words) {
            // A value is checked ahead of the combination of flags.
            Err(error) if is_about_value(error.kind()) => Err(without_value(&told(&error))),
            _ => Ok(()),
        }
    }

    fn without_effect(&self, words: &[String]) -> Vec<String> {
        match parse(words) {
            Ok(Verb::Find(args)) => effects::without_effect(&args).into_iter().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    fn resolve(&self, words: &[String]) -> Result<Resolved, String> {
        meaning::of(&parse(words)?, words, &self.models)
    }
}

fn is_about_value(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::NoEquals
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::InvalidUtf8
    )
}

/// The reason at the end of `invalid value 'X' for '--flag <NAME>': reason`.
fn without_value(text: &str) -> String {
    text.split_once(">': ").map_or(text, |(_, reason)| reason).to_owned()
}
