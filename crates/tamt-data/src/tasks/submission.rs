//! Predictions for test files, in the form that the GLUE server wants.

use std::fmt::Write as _;

use super::{Example, Head, Label, Task};
use crate::{Error, Result};

/// A file of predictions: a header `index`, `prediction`, then a line for each example with its id and the label's
/// spelling, or the number with three digits.
///
/// The server takes numbers within the labels' range only (STS-B: 0 to 5), so what lies outside is moved to the
/// nearer end.
///
/// # Errors
///
/// [`Error::Count`] unless there is a prediction for each example, [`Error::OutOfRange`] for a class that the task does
/// not have, [`Error::WrongKind`] for a class in a regression or a number in a classification.
pub fn submission(task: &Task, examples: &[Example], predictions: &[Label]) -> Result<String> {
    if examples.len() != predictions.len() {
        return Err(Error::Count { what: "predictions", expected: examples.len(), found: predictions.len() });
    }
    let mut text = "index\tprediction\n".to_owned();
    for (example, prediction) in examples.iter().zip(predictions) {
        let spelling = match (&task.head, *prediction) {
            (Head::Classification { labels }, Label::Class(class)) => {
                labels.get(class as usize).cloned().ok_or(Error::OutOfRange {
                    name: "class",
                    value: f64::from(class),
                    expected: "must be one of the task's classes",
                })?
            }
            (Head::Regression { range }, Label::Value(value)) => {
                let value = range.map_or(value, |(least, greatest)| value.max(least).min(greatest));
                format!("{value:.3}")
            }
            (_, Label::Class(_)) => return Err(Error::WrongKind { what: "a submission", given: "a class" }),
            (_, Label::Value(_)) => return Err(Error::WrongKind { what: "a submission", given: "a number" }),
        };
        // A tab or a line end in it would be taken for the end of a value; writing to a string cannot fail.
        let id = example.id.replace(char::is_control, " ");
        let _ = writeln!(text, "{id}\t{spelling}");
    }
    Ok(text)
}
