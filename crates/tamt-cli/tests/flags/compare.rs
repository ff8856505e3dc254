//! The comparison of runs that differ by a flag.

use std::sync::Arc;

use crate::run::{Outcome, outcome};

/// What a run shows of a flag.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shows {
    /// The values of this key in the log, step by step.
    Log(&'static str),
    /// A value of the result.
    Result(&'static str),
    /// The content of a file of the run, or that the file is missing.
    File(&'static str),
    /// The names of all files.
    Names,
    /// The exit code.
    Code,
    /// Whether the output holds this text.
    Said(&'static str),
}

impl Shows {
    fn of(self, outcome: &Outcome) -> String {
        match self {
            Self::Log(key) => format!("{:?}", outcome.log(key)),
            Self::Result(key) => outcome.result(key).to_string(),
            Self::File(name) => format!("{:?}", outcome.files.get(&format!("run/{name}"))),
            Self::Names => outcome.names().join(" "),
            Self::Code => outcome.code.to_string(),
            Self::Said(text) => outcome.says(text).to_string(),
        }
    }
}

/// The command line `line` with the flag of `change` set to the value of `change`, in place of another value.
pub(crate) fn with(line: &str, change: &str) -> String {
    let flag = change.split(' ').next().unwrap();
    let mut kept = Vec::new();
    let mut words = line.split(' ').peekable();
    while let Some(word) = words.next() {
        if word == flag {
            while words.next_if(|word| !word.starts_with("--")).is_some() {}
        } else {
            kept.push(word);
        }
    }
    format!("{} {change}", kept.join(" "))
}

/// Lines that run ahead of the compared ones.
pub(crate) type Setup<'a> = &'a [&'a str];

/// Runs `line`, and `line` with each of `changes`, after the lines of `setup`. Each run must show something else, and a
/// second run of `line` the same. Returns the outcomes in this order.
#[track_caller]
pub(crate) fn differ(setup: Setup<'_>, line: &str, changes: &[&str], shows: Shows) -> Vec<Arc<Outcome>> {
    let changed = changes.iter().map(|change| with(line, change));
    let lines: Vec<String> = std::iter::once(line.to_owned()).chain(changed).collect();
    let run = |line: &str, turn| outcome(&[setup, &[line]].concat(), turn);
    let outcomes: Vec<_> = lines.iter().map(|line| run(line, 0)).collect();
    let shown: Vec<String> = outcomes.iter().map(|outcome| shows.of(outcome)).collect();
    for (i, (line, one)) in lines.iter().zip(&shown).enumerate() {
        assert!(
            outcomes[i].code == 0 || matches!(shows, Shows::Code | Shows::Said(_)),
            "{line}\n{}",
            outcomes[i].stderr
        );
        for (other, another) in lines.iter().zip(&shown).skip(i + 1) {
            assert!(one != another, "{shows:?} is the same for both lines, {}:\n{line}\n{other}", short(one));
        }
    }
    let again = shows.of(&run(line, 1));
    assert!(again == shown[0], "{shows:?} of two runs of one line: {} and {}", short(&shown[0]), short(&again));
    outcomes
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}
