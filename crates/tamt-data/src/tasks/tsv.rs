//! The parser of tab-separated values in GLUE's form: without quoting, with an optional byte order mark, with Unix or
//! Windows line ends.

use std::path::Path;

use crate::error::Result;
use crate::line_blocks::Block;
use crate::tasks::layout::Layout;
use crate::tasks::table::{EMPTY_LINE, RequestedColumn, Table};

/// Reads the requested columns. Empty lines at the end are ignored; another empty line, or a line with another number of
/// columns than the first line, is unusable.
#[derive(Debug)]
pub(super) struct Parser {
    layout: Layout,
    /// Empty lines that are unusable if another line follows.
    empty: Vec<usize>,
}

impl Parser {
    pub(super) fn new(header: bool, columns: Vec<RequestedColumn>) -> Self {
        Self { layout: Layout::new(header, columns), empty: Vec::new() }
    }

    /// Adds the rows of the next block.
    ///
    /// # Errors
    ///
    /// [`Error::MissingColumn`](crate::Error::MissingColumn), [`Error::RepeatedColumn`](crate::Error::RepeatedColumn).
    pub(super) fn parse(&mut self, block: &Block, path: &Path, table: &mut Table) -> Result<()> {
        // A text of blank lines is empty, whatever the columns.
        if !self.layout.is_known() && block.text.trim().is_empty() {
            return Ok(());
        }
        let mut fields = Vec::new();
        for (i, line) in block.text.split_terminator('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            fields.clear();
            fields.extend(line.split('\t'));
            let number = block.line + i;
            let Some(layout) = self.layout.next(path, number, &fields)? else { continue };
            if line.is_empty() {
                self.empty.push(number);
                continue;
            }
            if table.quoted.is_none() && fields.iter().any(|field| is_quoted(field)) {
                table.quoted = Some(number);
            }
            self.empty.drain(..).for_each(|empty| table.skip(empty, EMPTY_LINE.to_owned()));
            layout.add(number, &fields, table);
        }
        Ok(())
    }
}

/// Whether a value is written as in CSV: in quotation marks, with two marks for one inside.
fn is_quoted(value: &str) -> bool {
    let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.is_some_and(|inside| inside.contains("\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_quotation_marks_with_doubled_ones_inside_is_quoted() {
        for (value, quoted) in [
            (r#""she said ""no"".""#, true),
            (r#""""no"" she said""#, true),
            (r#""""""#, true),
            (r#""she said no""#, false),
            (r#"she said ""no"""#, false),
            (r#""no"" she said"#, false),
            (r#"""""#, false),
            (r#""""#, false),
            (r#"""#, false),
            ("", false),
        ] {
            assert_eq!(is_quoted(value), quoted, "{value}");
        }
    }
}
