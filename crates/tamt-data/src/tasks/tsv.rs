//! Tables of tab-separated values, as GLUE has them: no quoting, a byte order mark and Windows line ends allowed.

use std::path::Path;

use super::cells::{Rows, Wanted, pick, places};
use crate::Result;
use crate::text::read_text;

/// Reads a file. A line that has another number of columns than the first is skipped, and so is an empty one; empty
/// lines at the end are not even counted.
pub(super) fn read(path: &Path, header: bool, wanted: &[Wanted<'_>]) -> Result<Rows> {
    let text = read_text(path)?;
    // Not `lines`: a file ends where its last line that is not empty ends.
    let mut lines = text.trim_end_matches(['\n', '\r']).split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut rows = Rows::default();
    if text.trim().is_empty() {
        return Ok(rows);
    }
    let first: Vec<&str> = lines.clone().next().unwrap_or_default().split('\t').collect();
    let places = places(path, wanted, header.then_some(first.as_slice()), first.len())?;
    if header {
        lines.next();
    }
    let mut fields = Vec::with_capacity(first.len());
    for (i, line) in lines.enumerate() {
        let number = i + 1 + usize::from(header);
        fields.clear();
        fields.extend(line.split('\t'));
        if line.is_empty() {
            rows.skip(path, number, "the line is empty".to_owned());
        } else if fields.len() == first.len() {
            rows.push(path, number, wanted, pick(&fields, &places));
        } else {
            rows.skip(path, number, format!("{} columns, not {}", fields.len(), first.len()));
        }
    }
    Ok(rows)
}
