//! The interface to the program whose commands a study runs.

use std::path::PathBuf;

use serde_json::Value;

/// A command of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Finds a ticket.
    Find,
    /// Measures losses of a ticket, or of the dense model.
    Eval,
    /// Fine-tunes a ticket, or the dense model.
    Tune,
}

impl Verb {
    /// The verb on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Eval => "eval",
            Self::Tune => "tune",
        }
    }
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing: it is given or not.
    Switch,
    /// One value.
    One,
    /// One value or several.
    Many,
}

/// The meaning of a command line.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// All settings that decide the result, defaults included; no paths.
    pub settings: Value,
    /// The files whose content decides the result.
    pub inputs: Vec<Input>,
    /// Optimiser steps, for `find`.
    pub steps: Option<u64>,
}

/// An input of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What the file is for: `model`, `corpus`.
    pub role: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// What a method of `find` needs and draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodTraits {
    /// Takes optimiser steps on text.
    pub trains: bool,
    /// Prunes in rounds, and writes a ticket after each.
    pub in_rounds: bool,
    /// Trains masks, which start from given ones.
    pub trains_masks: bool,
    /// Depends on a seed.
    pub draws: bool,
}

/// The commands of the program: what their flags are and mean.
pub trait Commands {
    /// The traits of the method called `name`.
    fn method(&self, name: &str) -> Option<MethodTraits>;

    /// Whether there is a task called `name` that needs no file of its own.
    fn has_task(&self, name: &str) -> bool;

    /// What the flag called `name`, without dashes, takes; `None` if there is no such flag.
    fn form(&self, verb: Verb, name: &str) -> Option<Form>;

    /// The names of all flags.
    fn flags(&self, verb: Verb) -> Vec<String>;

    /// Whether two flags exclude each other.
    fn excludes(&self, verb: Verb, one: &str, other: &str) -> bool;

    /// Whether the flag's value is a path: `None` if not, else whether another kind of name is allowed as well.
    fn path(&self, verb: Verb, name: &str) -> Option<PathKind>;

    /// Checks one value of a flag.
    ///
    /// # Errors
    /// The problem, in a sentence.
    fn check(&self, verb: Verb, name: &str, value: &str) -> Result<(), String>;

    /// The flags of a valid command line that have no effect on its result, without dashes.
    fn without_effect(&self, words: &[String]) -> Vec<String>;

    /// The meaning of a command line without output directory and ticket.
    ///
    /// # Errors
    /// The problem, in a sentence.
    fn resolve(&self, words: &[String]) -> Result<Resolved, String>;
}

/// The kind of a value that is a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Always a path.
    Path,
    /// A path, or the id of a model on a hub.
    PathOrId,
    /// A path unless one of the flag's keywords.
    PathOrKeyword(&'static [&'static str]),
}
