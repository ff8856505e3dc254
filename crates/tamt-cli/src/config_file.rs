//! `--config FILE.toml`: flags by their names, in kebab or snake case, as if they had been typed.
//!
//! Switches are booleans, repeatable flags are arrays, all other flags are strings or numbers. Paths are relative to
//! the working directory, as on the command line. A typed flag replaces the same flag of the file.
//!
//! The file may be the record of a run, its `config.toml`. `--resume` takes the flags of the run's record where no other
//! file is given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io, slice};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tamt::run::SETTINGS_FILE;
use tamt_data::nearest;
use toml::Value;

use crate::flat::flattened;
use crate::keywords::name_of_flag;
use crate::places::what_is_at;
use crate::recorded::{self, TYPED_ONLY};
use crate::recorded_keys::flag_of;
use crate::recorded_path;
use crate::toml_lines::place;

/// The command line `line` (the program's name first), with the flags of its `--config` file inserted after the verb.
/// The parser of the result reports mistakes in typed flags.
pub(crate) fn merge(command: &Command, mut line: Vec<OsString>) -> Result<Vec<OsString>, clap::Error> {
    if let Some((_, flags)) = of_file(command, &line)? {
        // The verb is argument 1: no flag precedes the verb.
        line.splice(2..2, flags);
    }
    Ok(line)
}

/// The file that completes a command line, with the words of its flags; `None` for a line without such a file.
fn of_file(command: &Command, line: &[OsString]) -> Result<Option<(PathBuf, Vec<OsString>)>, clap::Error> {
    // Flags of the file are still missing here, so that required flags must not be errors.
    let typed = command.clone().ignore_errors(true).try_get_matches_from(line)?;
    let Some((verb, typed)) = typed.subcommand() else {
        return Ok(None);
    };
    let file = typed.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    let Some(path) = file.or_else(|| record_to_resume(verb, typed)) else {
        return Ok(None);
    };

    let mut command = command.clone();
    command.build();
    let Some(command) = command.find_subcommand_mut(verb) else {
        return Ok(None);
    };
    let flags = read(&path)
        .and_then(|(text, table)| flags(command, typed, &text, &table))
        .map_err(|problem| command.error(ErrorKind::InvalidValue, format!("{}: {problem}", path.display())))?;
    Ok(Some((path, flags)))
}

/// The file from which a command line has the flag `name`; `None` for a typed flag, and for one that is not given.
pub(crate) fn origin(command: &Command, line: &[OsString], name: &str) -> Option<PathBuf> {
    let (path, flags) = of_file(command, line).ok()??;
    let is_flag = |word: &OsString| name_of_flag(&word.to_string_lossy()) == Some(name);
    flags.iter().any(is_flag).then_some(path)
}

/// Adds to an error of the parser the files of the flags that nobody typed, and to one about missing flags why
/// `--resume` does not supply them, if it was given.
pub(crate) fn explain(command: &Command, line: &[OsString], mut error: clap::Error) -> clap::Error {
    let texts: Vec<String> = match error.kind() {
        ErrorKind::MissingRequiredArgument => without_record(command, line).into_iter().collect(),
        _ => origins(command, line, &error),
    };
    if !texts.is_empty() {
        let texts = texts.into_iter().map(Into::into).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(texts));
    }
    error
}

/// Why `--resume` supplies no flags, if it was given.
fn without_record(command: &Command, line: &[OsString]) -> Option<String> {
    let typed = command.clone().ignore_errors(true).try_get_matches_from(line).ok()?;
    let directory = directory_to_resume(typed.subcommand()?.1)?;
    let there = what_is_at(&directory);
    Some(format!("--resume takes the flags from the record of a run, {SETTINGS_FILE}; {there}"))
}

/// The files of the flags that an error names, if files and not the command line give them.
fn origins(command: &Command, line: &[OsString], error: &clap::Error) -> Vec<String> {
    let named = [ContextKind::InvalidArg, ContextKind::PriorArg].into_iter().filter_map(|kind| error.get(kind));
    let in_file = |flag: &String| {
        let name = name_of_flag(flag)?;
        Some(format!("--{name} is in {}", origin(command, line, name)?.display()))
    };
    named.flat_map(strings).filter_map(in_file).collect()
}

fn strings(value: &ContextValue) -> &[String] {
    match value {
        ContextValue::String(text) => slice::from_ref(text),
        ContextValue::Strings(texts) => texts,
        _ => &[],
    }
}

/// The directory of the run that `--resume` goes on with.
fn directory_to_resume(typed: &ArgMatches) -> Option<PathBuf> {
    typed.try_get_one::<bool>("resume").ok()??.then_some(())?;
    typed.try_get_one::<PathBuf>("output_dir").ok()?.cloned()
}

/// The record of the run that `--resume` goes on with; `None` where it is missing or damaged, which the verb reports.
fn record_to_resume(verb: &str, typed: &ArgMatches) -> Option<PathBuf> {
    let directory = directory_to_resume(typed)?;
    (verb != "demo" && verb_of_run(&directory).is_some()).then(|| directory.join(SETTINGS_FILE))
}

/// The verb of the run in a directory; `None` without a readable record.
pub(crate) fn verb_of_run(directory: &Path) -> Option<String> {
    let (_, table) = read(&directory.join(SETTINGS_FILE)).ok()?;
    recorded::verb(&table).map(str::to_owned)
}

/// The text of a file, and its content.
fn read(path: &Path) -> Result<(String, toml::Table), String> {
    if path.is_dir() {
        let record = path.join(SETTINGS_FILE);
        let advice = if record.is_file() { format!("; it holds {}", record.display()) } else { String::new() };
        return Err(format!("it is a directory, not a file{advice}"));
    }
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => "it is no text, so it holds no flags".to_owned(),
        io::ErrorKind::NotFound => format!("there is no such file; {}", what_is_at(path)),
        _ => format!("cannot read it: {error}"),
    })?;
    let table = toml::from_str(&text).map_err(|error| error.to_string().trim_end().to_owned())?;
    Ok((text, table))
}

/// The flags of `table`, the content of `text`, that were not given on the command line.
fn flags(command: &Command, typed: &ArgMatches, text: &str, table: &toml::Table) -> Result<Vec<OsString>, String> {
    if let Some(verb) = recorded::verb(table) {
        if verb != command.get_name() {
            return Err(format!("it records a `tamt {verb}`, and this is `tamt {}`", command.get_name()));
        }
        return recorded_flags(command, typed, &recorded::flags(command, text, table)?);
    }
    let mut flags = Vec::new();
    let mut seen = Vec::new();
    for (key, value) in table {
        if let Value::Table(inner) = value {
            return Err(table_of_flags(command, text, key, value, inner));
        }
        let name = key.replace('_', "-");
        let flag = command
            .get_arguments()
            .find(|flag| flag.get_long() == Some(&name) && !TYPED_ONLY.contains(&name.as_str()))
            .ok_or_else(|| unknown(command, text, key))?;
        if seen.contains(&name) {
            return Err(format!("`{key}` is given twice, in two spellings"));
        }
        if typed.value_source(flag.get_id().as_str()) != Some(ValueSource::CommandLine) {
            translate(flag, &name, key, value, &mut flags)?;
        }
        seen.push(name);
    }
    Ok(flags)
}

/// The flags of a record, but for typed ones and those that exclude a typed one.
fn recorded_flags(command: &Command, typed: &ArgMatches, table: &toml::Table) -> Result<Vec<OsString>, String> {
    let is_typed = |flag: &Arg| typed.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut flags = Vec::new();
    for (name, value) in table {
        let Some(flag) = command.get_arguments().find(|flag| flag.get_long() == Some(name)) else { continue };
        let mut typed = command.get_arguments().filter(|flag| is_typed(flag));
        if !is_typed(flag) && !typed.any(|other| exclude_each_other(command, flag, other)) {
            let mut words = Vec::new();
            translate(flag, name, name, value, &mut words)?;
            flags.extend(words.into_iter().map(|word| with_exact_path(name, word)));
        }
    }
    Ok(flags)
}

/// Flags of which a command line has one, though neither is named in the declaration of the other.
const EXCLUSIVE: [[&str; 2]; 2] = [["task", "task-file"], ["model", "new"]];

/// Whether a command line of `verb` has one of the two flags at most.
pub(crate) fn exclude_each_other(verb: &Command, one: &Arg, other: &Arg) -> bool {
    let names = [one, other].map(|flag| flag.get_long().unwrap_or_default());
    let conflict =
        |one: &Arg, other: &Arg| verb.get_arg_conflicts_with(one).iter().any(|flag| flag.get_id() == other.get_id());
    EXCLUSIVE.iter().any(|pair| names == *pair || [names[1], names[0]] == *pair)
        || conflict(one, other)
        || conflict(other, one)
}

/// The word `--name=value` with the recorded path of its value in place of the path's escaped form.
fn with_exact_path(name: &str, word: OsString) -> OsString {
    let Some((flag, value)) = word.to_str().and_then(|word| word.split_once('=')) else { return word };
    let mut exact = OsString::from(format!("{flag}="));
    exact.push(recorded_path::value(name, value));
    exact
}

/// The names of the flags that a file may have.
fn known(command: &Command) -> Vec<&str> {
    let mut known: Vec<_> =
        command.get_arguments().filter_map(Arg::get_long).filter(|name| !TYPED_ONLY.contains(name)).collect();
    known.sort_unstable();
    known
}

/// The error about a table in a file of flags. Records have tables, so that a reader of one may write one.
fn table_of_flags(command: &Command, text: &str, key: &str, value: &Value, inner: &toml::Table) -> String {
    let known = known(command);
    let name = key.replace('_', "-");
    let inside = flattened(inner).into_keys().find_map(|path| {
        let path = format!("{key}.{path}");
        let by_flag = Some(flag_of(&path)).filter(|flag| known.contains(flag));
        let last = path.rsplit('.').next().unwrap_or_default().replace('_', "-");
        let meant = by_flag.or_else(|| nearest(&last, known.iter().copied()))?;
        Some(format!("; did you mean {meant} instead of {path}?"))
    });
    let line = place(text, key);
    if let Some(flag) = command.get_arguments().find(|flag| flag.get_long() == Some(&name)) {
        let problem = translate(flag, &name, key, value, &mut Vec::new()).err().unwrap_or_default();
        return format!("{line}{problem}; flags stand at the top level{}", inside.unwrap_or_default());
    }
    let meant = || Some(format!("; did you mean {}?", nearest(&name, known.iter().copied())?));
    let meant = inside.or_else(meant).unwrap_or_default();
    format!("{line}unknown key `{key}`; it is a table, and flags stand at the top level{meant}")
}

fn unknown(command: &Command, text: &str, key: &str) -> String {
    let known = known(command);
    let line = place(text, key);
    let meant = nearest(&key.replace('_', "-"), known.iter().copied());
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    format!("{line}unknown key `{key}`; `tamt {}` knows {}{meant}", command.get_name(), known.join(", "))
}

/// Adds the words of a flag with this value. `key` is the name in messages.
pub(crate) fn translate(
    flag: &Arg,
    name: &str,
    key: &str,
    value: &Value,
    flags: &mut Vec<OsString>,
) -> Result<(), String> {
    let expected = |what: &str| format!("`{key}` is {what}, not {}", describe(value));
    match (flag.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(true)) => flags.push(format!("--{name}").into()),
        (ArgAction::SetTrue, Value::Boolean(false)) => {}
        (ArgAction::SetTrue, _) => return Err(expected("true or false")),
        (ArgAction::Append, Value::Array(values)) => {
            for value in values {
                let text = text(value).ok_or_else(|| {
                    format!("`{key}` is an array of strings or numbers, and holds {}", describe(value))
                })?;
                flags.push(format!("--{name}={text}").into());
            }
        }
        _ => match text(value) {
            Some(text) => flags.push(format!("--{name}={text}").into()),
            None if matches!(flag.get_action(), ArgAction::Append) => {
                return Err(expected("a string, a number, or an array of them"));
            }
            None => return Err(expected("a string or a number")),
        },
    }
    Ok(())
}

/// A single value in the form of the command line.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn merged(toml: &str, line: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flags.toml");
        fs::write(&path, toml).unwrap();
        let mut line: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        line.extend(["--config".into(), path.into()]);
        let merged = merge(&Cli::command(), line).unwrap();
        let count = merged.len() - 2;
        merged.into_iter().take(count).map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn flags_are_put_after_the_verb_as_if_typed() {
        let toml = "output_dir = '-x'\ncorpus = ['a b', 'c']\nlearning-rate = 2e-5\nseed = -1\n\
            resume = true\nquiet = false\nlayers = [0, 2]\nthreads = 3";
        assert_eq!(
            merged(toml, "tamt find --model m"),
            [
                "tamt",
                "find",
                "--corpus=a b",
                "--corpus=c",
                "--layers=0",
                "--layers=2",
                "--learning-rate=0.00002",
                "--output-dir=-x",
                "--resume",
                "--seed=-1",
                "--threads=3",
                "--model",
                "m"
            ]
        );
    }

    #[test]
    fn flags_that_were_typed_are_left_out_and_defaults_are_not_typed() {
        let toml = "precision = 'bf16'\nobjective = 'kd'\ncorpus = 'file'\nseed = 1";
        assert_eq!(
            merged(toml, "tamt eval --seed 2 --corpus a b"),
            "tamt eval --objective=kd --precision=bf16 --seed 2 --corpus a b".split(' ').collect::<Vec<_>>()
        );
    }

    #[test]
    fn numbers_survive_to_the_last_bit() {
        for number in [0.1 + 0.2, 1e-8, 5e-324, f64::MAX] {
            let line = merged(&format!("learning_rate = {number:?}"), "tamt find");
            let text = line[2].strip_prefix("--learning-rate=").unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
