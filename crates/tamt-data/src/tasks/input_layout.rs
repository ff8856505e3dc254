//! Layouts of files without labels, for predictions.

use serde::{Deserialize, Serialize};

use crate::tasks::locate::matches;
use crate::tasks::source::{Column, Columns, Format, Layout, Source, Split};
use crate::tasks::task::Task;

/// The columns of a text or a pair of texts; of a question and its context, for spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextColumns {
    /// Whether the first line names the columns. Only TSV and CSV files may lack this line.
    pub header: bool,
    /// The id of a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<IdColumn>,
    /// The text, the first text of a pair, or the question.
    pub first: Column,
    /// The second text of a pair, or the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Column>,
}

/// The column of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdColumn {
    /// The column.
    pub column: Column,
    /// Whether a file without the column is an error, and a row without an id unusable.
    pub required: bool,
}

impl TextColumns {
    /// Columns by name, and the ids of a column `id` where a file has one.
    pub fn named(first: &str, second: Option<&str>) -> Self {
        let id = Some(IdColumn { column: "id".into(), required: false });
        Self { header: true, id, first: first.into(), second: second.map(Column::from) }
    }
}

/// The layout of some files of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputLayout {
    /// The files' names; `*` stands for any text.
    pub files: Vec<String>,
    /// Their format.
    pub format: Format,
    /// Their columns.
    pub columns: TextColumns,
}

impl InputLayout {
    /// The layouts of a task's tables, those of the test files first, then of the development files. Parquet files and
    /// `SQuAD`'s JSON are left out.
    pub fn of_task(task: &Task) -> Vec<Self> {
        let rank = |source: &&Source| match source.split {
            Split::Test | Split::TestMismatched => 0,
            Split::Dev | Split::DevMismatched => 1,
            Split::Train => 2,
        };
        let mut sources: Vec<&Source> = task.sources.iter().collect();
        sources.sort_by_key(rank);
        let mut layouts: Vec<Self> = Vec::new();
        for source in sources {
            let Layout::Table { format, header, columns: Columns { id, first, second, .. }, .. } = &source.layout
            else {
                continue;
            };
            if *format == Format::Parquet {
                continue;
            }
            let id = id.clone().map(|column| IdColumn { column, required: true });
            let columns = TextColumns { header: *header, id, first: first.clone(), second: second.clone() };
            let same = layouts.iter_mut().find(|other| other.format == *format && other.columns == columns);
            match same {
                Some(same) => same.files.push(source.file.clone()),
                None => layouts.push(Self { files: vec![source.file.clone()], format: *format, columns }),
            }
        }
        layouts
    }

    /// The columns that a file of this format may have, the likeliest first: those of the layouts with the file's name, then
    /// those of the other layouts of the format, or of any layout with named columns. A file without a header fits every
    /// layout by positions, so such a layout counts for files of other names only if no layout has a header.
    pub fn candidates(layouts: &[Self], format: Format, file_name: &str) -> Vec<TextColumns> {
        let is_named = |layout: &&Self| {
            layout.format == format
                && layout.files.iter().any(|file| matches(file.rsplit('/').next().unwrap_or(file), file_name))
        };
        let has_header = layouts.iter().any(|layout| layout.columns.header);
        let of_format = layouts.iter().filter(|layout| layout.format == format);
        let all = layouts.iter().filter(is_named).chain(of_format).chain(layouts);
        let mut candidates: Vec<TextColumns> = Vec::new();
        for layout in all {
            let may_fit = is_named(&layout) || layout.columns.header || !has_header;
            let needs_names = format == Format::JsonLines;
            let columns = &layout.columns;
            let fits = !needs_names || columns.header && matches!(columns.first, Column::Name(_));
            if may_fit && fits && !candidates.contains(columns) {
                candidates.push(columns.clone());
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(task: &str, format: Format, file_name: &str) -> Vec<String> {
        let layouts = InputLayout::of_task(Task::by_name(task).unwrap());
        let candidates = InputLayout::candidates(&layouts, format, file_name);
        candidates.iter().map(|columns| columns.first.to_string()).collect()
    }

    #[test]
    fn the_name_of_a_file_decides_ahead_of_the_order_of_layouts() {
        let (named, third) = ("\"sentence\"".to_owned(), "number 3 (from 0)".to_owned());
        assert_eq!(firsts("cola", Format::Tsv, "dev.tsv"), [third, named.clone()]);
        assert_eq!(firsts("cola", Format::Tsv, "test.tsv"), [named.as_str()]);
        assert_eq!(firsts("cola", Format::JsonLines, "new.jsonl"), [named]);
        // Test files have ids, the others have none.
        assert_eq!(firsts("mrpc", Format::Csv, "new.csv"), ["\"#1 String\"", "\"#1 String\""]);
        assert!(firsts("squad", Format::Tsv, "dev.tsv").is_empty());
    }

    #[test]
    fn layouts_survive_json() {
        let mut layouts = InputLayout::of_task(Task::by_name("cola").unwrap());
        layouts.push(InputLayout {
            files: vec!["*.jsonl".to_owned()],
            format: Format::JsonLines,
            columns: TextColumns::named("left", Some("right")),
        });
        let json = serde_json::to_string(&layouts).unwrap();
        assert_eq!(serde_json::from_str::<Vec<InputLayout>>(&json).unwrap(), layouts);
    }
}
