//! Flags of a command in a plan.

use crate::commands::{Commands, Form, PathKind, Verb};
use crate::plan::lines::{Item, Value};
use crate::plan::reader::Reader;

/// A flag with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The name without dashes.
    pub name: String,
    /// The line of the plan.
    pub line: usize,
    /// What the plan says.
    pub setting: Setting,
}

/// The value of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A switch.
    Switch(bool),
    /// The values, at least one.
    Values(Vec<String>),
    /// Several values of a flag that takes one: each is for runs of its own.
    Choices(Vec<String>),
}

/// Flags of one command, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<Flag>);

impl Flags {
    /// The flag called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Flag> {
        self.0.iter().find(|flag| flag.name == name)
    }

    /// The single value of the flag called `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.setting {
            Setting::Values(values) => values.first().map(String::as_str),
            Setting::Switch(_) | Setting::Choices(_) => None,
        }
    }

    /// All flags.
    pub fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.0.iter()
    }

    /// Sets a flag, which replaces one of the same name.
    pub fn set(&mut self, flag: Flag) {
        self.0.retain(|other| other.name != flag.name);
        self.0.push(flag);
    }

    /// Removes a flag.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|flag| flag.name != name);
    }

    /// These flags under more specific ones, which replace those that they exclude.
    #[must_use]
    pub fn under(&self, more: &Self, verb: Verb, commands: &dyn Commands) -> Self {
        let mut merged = self.clone();
        for flag in &more.0 {
            merged.0.retain(|other| !commands.excludes(verb, &other.name, &flag.name));
            merged.set(flag.clone());
        }
        merged
    }

    /// These flags with one value in place of each [`Setting::Choices`], in all combinations: the last choice changes first.
    /// The text names what was chosen (`epochs 4, learning-rate 1e-4`).
    #[must_use]
    pub fn combinations(&self) -> Vec<(String, Self)> {
        let mut combinations = vec![(String::new(), self.clone())];
        for flag in &self.0 {
            let Setting::Choices(values) = &flag.setting else { continue };
            let with = |(text, flags): &(String, Self), value: &String| {
                let comma = if text.is_empty() { "" } else { ", " };
                let mut flags = flags.clone();
                flags.set(Flag { setting: Setting::Values(vec![value.clone()]), ..flag.clone() });
                (format!("{text}{comma}{} {value}", flag.name), flags)
            };
            combinations =
                combinations.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect();
        }
        combinations
    }

    /// The flags as words of a command line, ordered by name. [`Setting::Choices`] are none: see [`Flags::combinations`].
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut flags: Vec<&Flag> = self.0.iter().collect();
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        flags.into_iter().flat_map(Flag::words).collect()
    }
}

impl Flag {
    /// The flag as words of a command line; none for a switch that is off.
    fn words(&self) -> Vec<String> {
        match &self.setting {
            Setting::Switch(true) => vec![format!("--{}", self.name)],
            Setting::Switch(false) | Setting::Choices(_) => Vec::new(),
            Setting::Values(values) => values.iter().map(|value| format!("--{}={value}", self.name)).collect(),
        }
    }
}

/// Reads one flag, which may have several values in turn if `may_choose`; `None` after a mistake.
pub(super) fn read(
    reader: &Reader<'_>,
    verb: Verb,
    (name, line): (&str, usize),
    item: &Item,
    may_choose: bool,
) -> Option<Flag> {
    let form = reader.commands.form(verb, name)?;
    let each = |item: &Item| match &item.value {
        Value::Word(text) => value(reader, verb, name, item.line, text),
        other => {
            reader.problems.add(item.line, format!("`{name}` holds single values, not {}", other.kind()));
            None
        }
    };
    let setting = match (form, &item.value) {
        (Form::Switch, Value::Switch(on)) => Setting::Switch(*on),
        (Form::Switch, other) => {
            reader.problems.add(line, format!("`{name}` is true or false, not {}", other.kind()));
            return None;
        }
        (Form::One | Form::Many, Value::Word(text)) => {
            Setting::Values(vec![value(reader, verb, name, item.line, text)?])
        }
        (Form::Many, Value::List(items)) => Setting::Values(items.iter().map(each).collect::<Option<Vec<_>>>()?),
        (Form::One, Value::List(items)) if may_choose && !items.is_empty() => {
            let values = items.iter().map(each).collect::<Option<Vec<_>>>()?;
            if let Some(at) = (1..values.len()).find(|&at| values[..at].contains(&values[at])) {
                reader.problems.add(items[at].line, format!("`{name}` has {} twice", values[at]));
                return None;
            }
            Setting::Choices(values)
        }
        (_, other) => {
            reader.problems.add(line, format!("`{name}` is a single value, not {}", other.kind()));
            return None;
        }
    };
    Some(Flag { name: name.to_owned(), line, setting })
}

/// Checks a value, and makes a path absolute; `None` after a mistake.
pub(super) fn value(reader: &Reader<'_>, verb: Verb, name: &str, line: usize, text: &str) -> Option<String> {
    let path = reader.located(text);
    let absolute = || Some(path.to_string_lossy().into_owned());
    match reader.commands.path(verb, name) {
        Some(PathKind::PathOrKeyword(keywords)) if keywords.contains(&text) => {}
        Some(PathKind::PathOrId) if !path.exists() => {}
        Some(_) if path.exists() || !reader.needs_files => return absolute(),
        Some(_) => {
            reader.problems.add(line, format!("`{name}`: there is no {}", path.display()));
            return absolute();
        }
        None => {}
    }
    match reader.commands.check(verb, name, text) {
        Ok(()) => Some(text.to_owned()),
        Err(problem) => {
            let text = if problem.contains(text) { String::new() } else { format!("{text}: ") };
            reader.problems.add(line, format!("`{name}`: {text}{problem}"));
            None
        }
    }
}
