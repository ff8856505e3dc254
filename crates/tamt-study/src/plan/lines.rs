//! TOML with the line of every key and value.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problems::Problems;

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Switch(bool),
    /// A text or a number, as a command line has it.
    Word(String),
    List(Vec<Item>),
    Table(Table),
    /// A value without a meaning in a plan, by its kind.
    Other(&'static str),
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Switch(_) => "a boolean",
            Self::Word(_) => "a single value",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A table's entries in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) line: usize,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) item: Item,
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Reads the text of a plan; what the parser refuses goes to `problems`.
pub(super) fn parse(text: &str, problems: &Problems) -> Table {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(1, |span| lines.at(span.start));
        problems.add(line, error.message().to_owned());
    }
    lines.table(table.get_ref(), 1)
}

/// The positions at which the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line of a position, from 1.
    fn at(&self, position: usize) -> usize {
        self.0.partition_point(|&start| start <= position)
    }

    fn table(&self, table: &DeTable<'_>, line: usize) -> Table {
        let mut entries: Vec<(usize, Entry)> = table
            .iter()
            .map(|(key, value)| {
                let line = self.at(key.span().start);
                let item = self.item(value, line);
                (key.span().start, Entry { key: key.get_ref().clone().into_owned(), line, item })
            })
            .collect();
        entries.sort_by_key(|(at, _)| *at);
        Table { line, entries: entries.into_iter().map(|(_, entry)| entry).collect() }
    }

    /// A value; `line` is the one of its key, where a table begins.
    fn item(&self, value: &Spanned<DeValue<'_>>, line: usize) -> Item {
        let at = self.at(value.span().start);
        let value = match value.get_ref() {
            DeValue::Boolean(value) => Value::Switch(*value),
            DeValue::String(text) => Value::Word(text.clone().into_owned()),
            DeValue::Float(number) => Value::Word(number.as_str().to_owned()),
            DeValue::Integer(number) if number.radix() == 10 => Value::Word(number.as_str().to_owned()),
            DeValue::Integer(_) => Value::Other("a number that is not decimal"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(values) => Value::List(values.iter().map(|value| self.item(value, at)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table, line.max(at))),
        };
        Item { line: at, value }
    }
}
