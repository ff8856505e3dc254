//! A document as Markdown.

use std::fmt::Write as _;

use crate::document::{Block, Cell, Document, Number, Table};
use crate::write::latex::is_numeric;

/// The document as Markdown; figures are links to files.
pub(super) fn document(document: &Document) -> String {
    let mut text = format!("# {}\n\n{}\n\n", escape(&document.title), escape(&document.subtitle));
    for finding in &document.findings {
        let _ = writeln!(text, "* {}", escape(finding));
    }
    for section in &document.sections {
        let _ = write!(text, "\n## {}\n", escape(&section.title));
        section.blocks.iter().for_each(|block| push(&mut text, block));
    }
    text
}

fn push(text: &mut String, block: &Block) {
    match block {
        Block::Finding(sentence) => {
            let _ = write!(text, "\n**{}**\n", escape(sentence));
        }
        Block::Text(sentence) => {
            let _ = write!(text, "\n{}\n", escape(sentence));
        }
        Block::Figures(figures, caption) => {
            text.push('\n');
            for figure in figures {
                let _ = writeln!(text, "![{}](figures/{}.svg)", escape(&figure.title), figure.id);
            }
            let _ = write!(text, "\n{}\n", escape(caption));
        }
        Block::Table(one) => table(text, one),
        Block::Details(title, inner) => {
            let _ = write!(text, "\n<details><summary>{}</summary>\n", escape(title));
            inner.iter().for_each(|block| push(text, block));
            text.push_str("\n</details>\n");
        }
    }
}

fn table(text: &mut String, table: &Table) {
    let _ = write!(text, "\n{}\n\n|", escape(&table.caption));
    for column in &table.columns {
        let note = if column.note.is_empty() { String::new() } else { format!(" ({})", escape(&column.note)) };
        let _ = write!(text, " {}{note} |", escape(&column.title));
    }
    text.push_str("\n|");
    for column in 0..table.columns.len() {
        text.push_str(if is_numeric(table, column) { "---:|" } else { "---|" });
    }
    for row in &table.rows {
        text.push_str("\n|");
        for cell in row {
            let _ = write!(text, " {} |", self::cell(cell));
        }
    }
    text.push('\n');
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => escape(text),
        Cell::Code(text) if text.is_empty() => String::new(),
        Cell::Code(text) => format!("`{}`", text.replace('|', "\\|")),
        Cell::Number(number) => self::number(number),
        Cell::Empty => "–".to_owned(),
    }
}

fn number(number: &Number) -> String {
    let shown = escape(&number.shown());
    let mut text = if number.best { format!("**{shown}**") } else { shown };
    if let Some(deviation) = number.deviation_shown() {
        let _ = write!(text, " ± {deviation}");
    }
    if let Some(difference) = number.difference_shown() {
        let _ = write!(text, " ({})", escape(&difference));
    }
    text
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '<' => escaped.push_str("&lt;"),
            c => escaped.push(c),
        }
    }
    escaped
}
