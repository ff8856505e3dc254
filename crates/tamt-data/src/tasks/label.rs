//! Labels in the cells of a table.

use crate::head::{Head, Label};
use crate::tasks::table::Cell;

/// The mark of a missing label in data sets of the Hugging Face hub.
const NO_LABEL: f64 = -1.0;

/// Reads labels by one rule for all formats: a number means the same as an integer, as a float and as text.
///
/// * No value, an empty text, and a -1 that is no label of the task, mean that the example has no label.
/// * A label of a regression is a finite number in the task's range.
/// * A label of a classification is one of the task's spellings, or a number. Where a spelling is a number, the number
///   is compared with the spellings (1 and 1.0 are `1`). Where all spellings are names, the number is a position among
///   them, from 0.
pub(super) struct LabelReader<'a> {
    pub(super) head: &'a Head,
    /// The names that positions refer to; if empty, the spellings of the head.
    pub(super) names: &'a [String],
}

impl LabelReader<'_> {
    /// The label in a cell, or `None` if the cell says that there is no label.
    ///
    /// # Errors
    ///
    /// The known labels, or a description of them, if the cell holds another value.
    pub(super) fn read(&self, cell: &Cell) -> Result<Option<Label>, Vec<String>> {
        let text = cell.clone().into_text().unwrap_or_default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let label = match self.head {
            Head::Classification { labels } => self.class(labels, text).map(|class| Label::Class(class as u32)),
            Head::Regression { range } => value(cell, text, *range).map(Label::Value),
            Head::Span { .. } => None,
        };
        match label {
            None if number(text) == Some(NO_LABEL) => Ok(None),
            Some(label) => Ok(Some(label)),
            None => Err(self.known()),
        }
    }

    fn class(&self, labels: &[String], text: &str) -> Option<usize> {
        let spelled = |spelling: &str| labels.iter().position(|label| label == spelling);
        spelled(text).or_else(|| {
            let number = number(text)?;
            // Numbers among the labels are values, such as stars from 1 to 5, so that a missing one is no position.
            if labels.iter().any(|label| self::number(label).is_some()) {
                return labels.iter().position(|label| self::number(label) == Some(number));
            }
            let names = if self.names.is_empty() { labels } else { self.names };
            let is_position = number.fract() == 0.0 && (0.0..names.len() as f64).contains(&number);
            is_position.then(|| spelled(&names[number as usize])).flatten()
        })
    }

    fn known(&self) -> Vec<String> {
        match self.head {
            Head::Classification { labels } => labels.clone(),
            Head::Regression { range: Some((least, greatest)) } => vec![format!("a number from {least} to {greatest}")],
            Head::Regression { range: None } => vec!["a number".to_owned()],
            Head::Span { .. } => Vec::new(),
        }
    }
}

/// The number of a regression in a cell with this text, if the number is finite and in the range.
fn value(cell: &Cell, text: &str, range: Option<(f32, f32)>) -> Option<f32> {
    let value: f32 = match cell {
        Cell::Text(_) => text.parse().ok()?,
        Cell::Integer(i) => *i as f32,
        Cell::Number(number) => *number as f32,
        Cell::Missing => return None,
    };
    let is_within = range.is_none_or(|(least, greatest)| (least..=greatest).contains(&value));
    (value.is_finite() && is_within).then_some(value)
}

/// The finite number that a text spells.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
