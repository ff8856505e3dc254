//! Predictions in the format of the GLUE server.

use std::fmt::Write as _;

use crate::error::{Error, Result, same_count};
use crate::head::{Head, Label};
use crate::tasks::example::Example;
use crate::tasks::task::Task;

/// The text of a submission file: the header `index`, `prediction`, then a line per example with its id and the label's
/// spelling, or the number with three decimal places.
///
/// The server accepts only numbers in the range of the labels (STS-B: 0 to 5), so numbers are clamped to the range.
///
/// # Errors
///
/// [`Error::Count`] if examples and predictions differ in number, [`Error::OutOfRange`] if a class is not one of the
/// task's, [`Error::WrongKind`] for a class in a regression or a number in a classification.
pub fn submission(task: &Task, examples: &[Example], predictions: &[Label]) -> Result<String> {
    same_count("predictions", examples.len(), predictions.len())?;
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
        // A tab or a line end in an id would end the value. Writing to a string cannot fail.
        let id = example.id.replace(char::is_control, " ");
        let _ = writeln!(text, "{id}\t{spelling}");
    }
    Ok(text)
}
