//! A section of a plan: axes, whose values are combined, and flags.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::Verb;
use crate::plan::flags::{self, Flags};
use crate::plan::lines::{Entry, Item, Table, Value};
use crate::plan::reader::Reader;
use crate::problems::advice;

/// The form of a section.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    verb: Verb,
    axes: &'static [AxisShape],
    /// Whether tables name the methods (`method`) or the tasks (`task`) that their flags are for.
    overrides: Option<&'static str>,
    /// Flags that a plan says in another way, and how.
    elsewhere: &'static [(&'static str, &'static str)],
}

/// An axis, and the flag that its values are for.
#[derive(Debug)]
struct AxisShape {
    name: &'static str,
    flag: Option<(Verb, &'static str)>,
    /// A value that is none of the flag's.
    keyword: Option<&'static str>,
}

const fn axis(name: &'static str, verb: Verb, flag: &'static str) -> AxisShape {
    AxisShape { name, flag: Some((verb, flag)), keyword: None }
}

const STEPS: AxisShape = AxisShape { name: "steps", flag: None, keyword: None };

/// Flags that belong to one call of a command.
const OF_A_CALL: &str = "the study sets it for each run";

pub(super) const TICKETS: Shape = Shape {
    name: "tickets",
    verb: Verb::Find,
    axes: &[
        axis("methods", Verb::Find, "method"),
        axis("sparsities", Verb::Find, "sparsity"),
        axis("seeds", Verb::Find, "seed"),
        axis("scopes", Verb::Find, "scope"),
        axis("starts", Verb::Find, "init"),
        STEPS,
    ],
    overrides: Some("method"),
    elsewhere: &[
        ("method", "give `methods`, an array"),
        ("sparsity", "give `sparsities`, an array"),
        ("seed", "give `seeds`, an array"),
        ("scope", "give `scopes`, an array"),
        ("init", "give `starts`, an array"),
        ("ticket-steps", "give `steps`, an array"),
        ("model", "it belongs in [base]"),
    ],
};

pub(super) const LOSSES: Shape = Shape {
    name: "losses",
    verb: Verb::Eval,
    axes: SELECTION,
    overrides: None,
    elsewhere: &[
        ("model", "it belongs in [base]"),
        ("ticket", OF_A_CALL),
        ("allow-other-base", OF_A_CALL),
        ("corpus", "it is `validation` in [base]"),
        ("task", "scores belong in [tasks]"),
        ("task-file", "scores belong in [tasks]"),
        ("data", "scores belong in [tasks]"),
    ],
};

pub(super) const TASKS: Shape = Shape {
    name: "tasks",
    verb: Verb::Tune,
    axes: &[
        AxisShape { name: "names", flag: None, keyword: None },
        axis("seeds", Verb::Tune, "seed"),
        AxisShape { name: "train-examples", flag: Some((Verb::Tune, "train-examples")), keyword: Some("all") },
        SELECTION[0].copy(),
        SELECTION[1].copy(),
        SELECTION[2].copy(),
        SELECTION[3].copy(),
        SELECTION[4].copy(),
        SELECTION[5].copy(),
    ],
    overrides: Some("task"),
    elsewhere: &[
        ("seed", "give `seeds`, an array"),
        ("task", "give `names`, an array"),
        ("model", "it belongs in [base]"),
        ("ticket", OF_A_CALL),
        ("allow-other-base", OF_A_CALL),
    ],
};

/// Axes that choose tickets.
const SELECTION: &[AxisShape] = &[
    axis("methods", Verb::Find, "method"),
    axis("sparsities", Verb::Find, "sparsity"),
    axis("ticket-seeds", Verb::Find, "seed"),
    axis("scopes", Verb::Find, "scope"),
    axis("starts", Verb::Find, "init"),
    STEPS,
];

impl AxisShape {
    const fn copy(&self) -> Self {
        Self { name: self.name, flag: self.flag, keyword: self.keyword }
    }
}

/// Flags of every command that belong to one call.
const CALL_FLAGS: [&str; 7] = ["output-dir", "resume", "config", "json", "quiet", "threads", "help"];

/// A text with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub text: String,
    /// The line of the plan.
    pub line: usize,
}

/// The values of an axis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AxisValues {
    /// The line of the axis.
    pub line: usize,
    /// The values, each once.
    pub values: Vec<Word>,
}

/// A grid: axes, and flags for all of its combinations.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// The line of the plan.
    pub line: usize,
    axes: BTreeMap<&'static str, AxisValues>,
    /// Flags of this grid alone.
    pub flags: Flags,
}

impl Grid {
    /// The axis called `name`, if the plan gives it.
    #[must_use]
    pub fn axis(&self, name: &str) -> Option<&AxisValues> {
        self.axes.get(name)
    }

    /// The values of an axis; none if the plan does not give it.
    #[must_use]
    pub fn values(&self, name: &str) -> &[Word] {
        self.axis(name).map_or(&[], |axis| &axis.values)
    }
}

/// A section.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The line of the plan.
    pub line: usize,
    /// Flags for all combinations.
    pub flags: Flags,
    /// Flags for one method or one task, with the line of their table.
    pub overrides: BTreeMap<String, (usize, Flags)>,
    /// At least one.
    pub grids: Vec<Grid>,
}

impl Section {
    /// The names of the tasks that have runs.
    fn tasks(&self) -> impl Iterator<Item = &str> {
        self.grids.iter().flat_map(|grid| grid.values("names")).map(|word| word.text.as_str())
    }
}

/// Reads a section.
pub(super) fn read(reader: &Reader<'_>, shape: &Shape, table: &Table) -> Section {
    let mut section = Section { line: table.line, ..Section::default() };
    let mut own = Grid { line: table.line, ..Grid::default() };
    let (mut grids, mut overrides) = (Vec::new(), Vec::new());
    for entry in &table.entries {
        match &entry.item.value {
            Value::List(items) if entry.key == "grid" => grids.extend(items),
            Value::Table(_) if entry.key == "grid" => grids.push(&entry.item),
            Value::Table(table) if shape.overrides.is_some() => overrides.push((entry, table)),
            _ => {
                let place = format!("[{}]", shape.name);
                read_key(reader, shape, entry, &place, Some(&mut own.axes), &mut section.flags);
            }
        }
    }
    section.grids = grids.into_iter().filter_map(|item| read_grid(reader, shape, item, &own)).collect();
    if section.grids.is_empty() {
        section.grids.push(own);
    }
    for (entry, table) in overrides {
        // A task without runs needs no files.
        let needs_files = shape.overrides != Some("task") || section.tasks().any(|name| name == entry.key);
        let reader = Reader { needs_files, ..*reader };
        let place = format!("[{}.{}]", shape.name, entry.key);
        let mut flags = Flags::default();
        for entry in &table.entries {
            read_key(&reader, shape, entry, &place, None, &mut flags);
        }
        section.overrides.insert(entry.key.clone(), (entry.line.max(table.line), flags));
    }
    match shape.overrides {
        Some("method") => check_methods(reader, &section),
        Some("task") => check_tasks(reader, &section),
        _ => {}
    }
    section
}

/// A grid, whose axes replace those of the section.
fn read_grid(reader: &Reader<'_>, shape: &Shape, item: &Item, own: &Grid) -> Option<Grid> {
    let Value::Table(table) = &item.value else {
        reader.problems.add(item.line, format!("a grid is a table, not {}", item.value.kind()));
        return None;
    };
    let place = format!("[[{}.grid]]", shape.name);
    let mut grid = Grid { line: table.line, ..own.clone() };
    let mut axes = BTreeMap::new();
    for entry in &table.entries {
        read_key(reader, shape, entry, &place, Some(&mut axes), &mut grid.flags);
    }
    grid.axes.extend(axes);
    Some(grid)
}

/// Reads an axis, where axes may stand, or a flag.
fn read_key(
    reader: &Reader<'_>,
    shape: &Shape,
    entry: &Entry,
    place: &str,
    axes: Option<&mut BTreeMap<&'static str, AxisValues>>,
    flags: &mut Flags,
) {
    let Entry { key, line, item } = entry;
    let name = key.replace('_', "-");
    let axis = shape.axes.iter().find(|axis| axis.name == name);
    if let (Some(axis), Some(axes)) = (axis, axes) {
        axes.insert(axis.name, read_axis(reader, axis, *line, item));
        return;
    }
    let told = shape.elsewhere.iter().find(|(flag, _)| *flag == name).map(|(_, advice)| *advice);
    let told = told.or_else(|| CALL_FLAGS.contains(&name.as_str()).then_some(OF_A_CALL));
    if let Some(advice) = told {
        reader.problems.add(*line, format!("`{key}` cannot stand in {place}: {advice}"));
    } else if reader.commands.form(shape.verb, &name).is_none() {
        let advice = axis.map(|_| format!("`{key}` is an axis: it stands in [{}] or in a grid", shape.name));
        match advice {
            Some(advice) => reader.problems.add(*line, advice),
            None => {
                let mut known: Vec<String> = shape.axes.iter().map(|axis| axis.name.to_owned()).collect();
                known.push("grid".to_owned());
                let is_elsewhere = |flag: &String| {
                    shape.elsewhere.iter().any(|(other, _)| other == flag) || CALL_FLAGS.contains(&flag.as_str())
                };
                known.extend(reader.commands.flags(shape.verb).into_iter().filter(|flag| !is_elsewhere(flag)));
                reader.unknown(*line, key, place, known);
            }
        }
    } else if let Some(flag) = flags::read(reader, shape.verb, (&name, *line), item, shape.overrides.is_some()) {
        flags.set(flag);
    }
}

fn read_axis(reader: &Reader<'_>, axis: &AxisShape, line: usize, item: &Item) -> AxisValues {
    let mut values: Vec<Word> = Vec::new();
    let items: Vec<&Item> = match &item.value {
        Value::List(items) => items.iter().collect(),
        _ => vec![item],
    };
    if items.is_empty() {
        reader.problems.add(line, format!("`{}` has no value", axis.name));
    }
    for item in items {
        let Value::Word(text) = &item.value else {
            reader.problems.add(item.line, format!("`{}` holds single values, not {}", axis.name, item.value.kind()));
            continue;
        };
        let text = match axis.flag {
            Some(_) if axis.keyword == Some(text) => Some(text.clone()),
            Some((verb, flag)) => flags::value(reader, verb, flag, item.line, text),
            None if axis.name == "steps" && text.parse::<u64>().is_err() => {
                reader.problems.add(item.line, format!("`steps`: {text} is no number of steps"));
                None
            }
            None => Some(text.clone()),
        };
        let Some(text) = text else { continue };
        if values.iter().any(|word| word.text == text) {
            reader.problems.add(item.line, format!("`{}` has {text} twice: two runs with one name", axis.name));
        } else {
            values.push(Word { text, line: item.line });
        }
    }
    AxisValues { line, values }
}

/// Tables of [tickets] are named after methods.
fn check_methods(reader: &Reader<'_>, section: &Section) {
    for (name, (line, _)) in &section.overrides {
        if let Err(problem) = reader.commands.check(Verb::Find, "method", name) {
            reader.problems.add(*line, format!("[tickets.{name}] is no method: {problem}"));
        }
    }
}

/// Tables of [tasks] are named after tasks: those that grids name, or others, which a plan may keep without runs.
fn check_tasks(reader: &Reader<'_>, section: &Section) {
    let named: BTreeSet<&str> = section.tasks().collect();
    for (name, (line, flags)) in &section.overrides {
        let is_task = reader.commands.has_task(name) || flags.get("task-file").is_some();
        if !is_task && !named.contains(name.as_str()) {
            let known: Vec<String> = named.iter().map(ToString::to_string).collect();
            reader.problems.add(*line, format!("[tasks.{name}] is for no task of `names`{}", advice(name, &known)));
        }
    }
}
