//! The plan of a study: bases, and grids of tickets, losses and tasks.
//!
//! ```toml
//! [base]
//! model = "bert-base-uncased"
//! corpus = ["wiki.train.txt"]
//! validation = ["wiki.valid.txt"]
//!
//! [tickets]
//! methods = ["random", "magnitude", "tamt-mlm"]
//! sparsities = [0.5, 0.7]
//! seeds = [1, 2]
//! max-steps = 1000
//! [tickets.tamt-mlm]
//! learning-rate = 2e-4
//!
//! [losses]
//!
//! [tasks]
//! names = ["sst2", "trec"]
//! seeds = [1, 2]
//! data = "glue"
//! [tasks.trec]
//! task-file = "trec.toml"
//! data = "trec"
//! ```
//!
//! A section has *axes*, whose values are combined, and flags of its command. A table named after a method or a task has
//! flags for that one alone. Several `[[tickets.grid]]` or `[[tasks.grid]]` are several grids, with axes and flags that
//! replace those of the section. Relative paths begin at the plan's directory.

mod base;
mod flags;
mod lines;
mod reader;
mod section;

use std::fs;
use std::path::{Path, PathBuf};

pub use base::Base;
pub use flags::{Flag, Flags, Setting};
pub use section::{AxisValues, Grid, Section, Word};

use crate::commands::Commands;
use crate::error::{Error, Result};
use crate::plan::lines::{Table, Value};
use crate::plan::reader::Reader;
use crate::plan::section::Shape;
use crate::problems::{Problems, advice};

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The plan's name: that of its file, unless the plan says another.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The base models.
    pub bases: Vec<Base>,
    /// Searches for tickets.
    pub tickets: Option<Section>,
    /// Losses on held-out text.
    pub losses: Option<Section>,
    /// Fine-tunings.
    pub tasks: Option<Section>,
}

impl Plan {
    /// Reads the plan in the file `path`. Mistakes go to `problems`; the plan is what remains without them.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read as text.
    pub fn read(path: &Path, commands: &dyn Commands, problems: &Problems) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let root = lines::parse(&text, problems);
        let path = std::path::absolute(path).map_err(Error::io("read", path))?;
        let reader =
            Reader { directory: path.parent().unwrap_or(Path::new("/")), commands, problems, needs_files: true };
        let known = ["name", "base", "tickets", "losses", "tasks"];
        for entry in root.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let known = known.map(str::to_owned);
            problems.add(entry.line, format!("unknown key `{}`{}", entry.key, advice(&entry.key, &known)));
        }
        let plan = Self {
            name: name(&reader, &root).unwrap_or_else(|| stem(&path)),
            bases: root.get("base").map_or_else(Vec::new, |entry| base::read_all(&reader, entry)),
            tickets: section(&reader, &root, &section::TICKETS),
            losses: section(&reader, &root, &section::LOSSES),
            tasks: section(&reader, &root, &section::TASKS),
            path,
        };
        if root.get("base").is_none() && problems.is_empty() {
            problems.add(1, "there is no [base]: a plan names a model".to_owned());
        }
        Ok(plan)
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// The plan's own name for itself.
fn name(reader: &Reader<'_>, root: &Table) -> Option<String> {
    let entry = root.get("name")?;
    match &entry.item.value {
        Value::Word(name) => Some(name.clone()),
        other => {
            reader.problems.add(entry.line, format!("`name` is a text, not {}", other.kind()));
            None
        }
    }
}

/// The section of a shape, if the plan has one.
fn section(reader: &Reader<'_>, root: &Table, shape: &Shape) -> Option<Section> {
    let entry = root.get(shape.name)?;
    match &entry.item.value {
        Value::Table(table) => Some(section::read(reader, shape, table)),
        other => {
            reader.problems.add(entry.line, format!("`{}` is a table, not {}", shape.name, other.kind()));
            None
        }
    }
}
