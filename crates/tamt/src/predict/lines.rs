//! The lines of an output: a header and tab-separated values, or a JSON object for each record.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tamt_data::tasks::Head;

/// The form of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// A line with the names of the columns, then a line for each record. Tabs, line ends and other control characters in
    /// a value become blanks.
    Tsv,
    /// A JSON object for each record.
    JsonLines,
}

/// What was predicted for a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The class and the probabilities of all classes.
    Class { class: usize, probabilities: Vec<f64> },
    /// The number of a regression.
    Value(f32),
    /// An answer.
    Span(Span),
    /// Nothing: the reason why the record is unusable.
    Unusable(String),
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    /// A piece of the context; empty for no answer.
    pub(super) answer: String,
    /// The place in the context, in characters; `None` for no answer.
    pub(super) range: Option<Range<usize>>,
    /// The probability of the answer among the candidates.
    pub(super) score: f64,
    /// The probability of no answer, if questions may have none.
    pub(super) no_answer: Option<f64>,
}

/// Writes lines of a format for a head.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    format: OutputFormat,
    head: Head,
    has_ids: bool,
}

/// A line as a JSON object, with the keys that a record has.
#[derive(Default, Serialize)]
struct Object<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Option<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Option<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_answer: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Probabilities by label, in the order of the labels.
struct Named<'a>(&'a [String], &'a [f64]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().zip(self.1).try_for_each(|(label, probability)| map.serialize_entry(label, probability))?;
        map.end()
    }
}

impl Lines {
    pub(super) fn new(format: OutputFormat, head: &Head, has_ids: bool) -> Self {
        Self { format, head: head.clone(), has_ids }
    }

    fn labels(&self) -> &[String] {
        match &self.head {
            Head::Classification { labels } => labels,
            Head::Regression { .. } | Head::Span { .. } => &[],
        }
    }

    /// Appends the names of the columns, if the format has them.
    pub(super) fn header(&self, text: &mut String) {
        if self.format == OutputFormat::JsonLines {
            return;
        }
        let mut names: Vec<String> = Vec::new();
        names.extend(self.has_ids.then(|| "id".to_owned()));
        match &self.head {
            Head::Classification { labels } => {
                names.extend(["label", "score"].map(str::to_owned));
                names.extend(labels.iter().map(|label| format!("probabilities.{label}")));
            }
            Head::Regression { .. } => names.push("value".to_owned()),
            Head::Span { unanswerable } => {
                names.extend(["answer", "start", "end", "score"].map(str::to_owned));
                names.extend(unanswerable.then(|| "no_answer".to_owned()));
            }
        }
        tab_separated(&names, text);
    }

    /// Appends the line of a record.
    pub(super) fn line(&self, id: Option<&str>, outcome: &Outcome, text: &mut String) {
        match self.format {
            OutputFormat::Tsv => self.row(id, outcome, text),
            OutputFormat::JsonLines => {
                let object =
                    serde_json::to_string(&self.object(id, outcome)).expect("texts and finite numbers are JSON");
                text.push_str(&object);
                text.push('\n');
            }
        }
    }

    fn row(&self, id: Option<&str>, outcome: &Outcome, text: &mut String) {
        let mut cells: Vec<String> = Vec::new();
        cells.extend(self.has_ids.then(|| id.unwrap_or_default().to_owned()));
        match outcome {
            Outcome::Class { class, probabilities } => {
                cells.extend([self.labels()[*class].clone(), probabilities[*class].to_string()]);
                cells.extend(probabilities.iter().map(f64::to_string));
            }
            Outcome::Value(value) => cells.push(value.to_string()),
            Outcome::Span(Span { answer, range, score, no_answer }) => {
                let place = |at: Option<usize>| at.map_or_else(String::new, |at| at.to_string());
                let [start, end] = [range.as_ref().map(|r| r.start), range.as_ref().map(|r| r.end)].map(place);
                cells.extend([answer.clone(), start, end, score.to_string()]);
                cells.extend(no_answer.map(|p| p.to_string()));
            }
            Outcome::Unusable(_) => {
                let columns = match &self.head {
                    Head::Classification { labels } => 2 + labels.len(),
                    Head::Regression { .. } => 1,
                    Head::Span { unanswerable } => 4 + usize::from(*unanswerable),
                };
                cells.resize(cells.len() + columns, String::new());
            }
        }
        tab_separated(&cells, text);
    }

    fn object<'a>(&'a self, id: Option<&'a str>, outcome: &'a Outcome) -> Object<'a> {
        let mut object = Object { id: self.has_ids.then_some(id), ..Object::default() };
        match outcome {
            Outcome::Class { class, probabilities } => {
                object.label = Some(Some(&self.labels()[*class]));
                object.score = Some(probabilities[*class]);
                object.probabilities = Some(Named(self.labels(), probabilities));
            }
            Outcome::Value(value) => object.value = Some(Some(*value)),
            Outcome::Span(Span { answer, range, score, no_answer }) => {
                object.answer = Some(Some(answer));
                object.start = Some(range.as_ref().map(|range| range.start));
                object.end = Some(range.as_ref().map(|range| range.end));
                object.score = Some(*score);
                object.no_answer = *no_answer;
            }
            Outcome::Unusable(reason) => {
                match &self.head {
                    Head::Classification { .. } => object.label = Some(None),
                    Head::Regression { .. } => object.value = Some(None),
                    Head::Span { .. } => object.answer = Some(None),
                }
                object.error = Some(reason);
            }
        }
        object
    }
}

/// Appends a line of values.
fn tab_separated(cells: &[String], text: &mut String) {
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            text.push('\t');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", cell.replace(char::is_control, " "));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: OutputFormat, head: &Head, has_ids: bool, outcomes: &[(Option<&str>, Outcome)]) -> String {
        let lines = Lines::new(format, head, has_ids);
        let mut text = String::new();
        lines.header(&mut text);
        outcomes.iter().for_each(|(id, outcome)| lines.line(*id, outcome, &mut text));
        text
    }

    #[test]
    fn a_class_has_its_probability_as_score() {
        let head = Head::Classification { labels: vec!["no".to_owned(), "yes, \"sure\"".to_owned()] };
        let class = Outcome::Class { class: 1, probabilities: vec![0.25, 0.75] };
        let outcomes = [(Some("a\tb"), class), (None, Outcome::Unusable("2 columns, not 3".to_owned()))];
        assert_eq!(
            written(OutputFormat::Tsv, &head, true, &outcomes),
            "id\tlabel\tscore\tprobabilities.no\tprobabilities.yes, \"sure\"\n\
             a b\tyes, \"sure\"\t0.75\t0.25\t0.75\n\t\t\t\t\n"
        );
        assert_eq!(
            written(OutputFormat::JsonLines, &head, true, &outcomes),
            "{\"id\":\"a\\tb\",\"label\":\"yes, \\\"sure\\\"\",\"score\":0.75,\
             \"probabilities\":{\"no\":0.25,\"yes, \\\"sure\\\"\":0.75}}\n\
             {\"id\":null,\"label\":null,\"error\":\"2 columns, not 3\"}\n"
        );
    }

    #[test]
    fn a_number_has_the_digits_of_single_precision() {
        let head = Head::Regression { range: None };
        let outcomes = [(None, Outcome::Value(0.1)), (None, Outcome::Value(-3.0))];
        assert_eq!(written(OutputFormat::Tsv, &head, false, &outcomes), "value\n0.1\n-3\n");
        assert_eq!(written(OutputFormat::JsonLines, &head, false, &outcomes), "{\"value\":0.1}\n{\"value\":-3.0}\n");
    }

    #[test]
    fn no_answer_has_no_place() {
        let answer = Span { answer: "a\nb".to_owned(), range: Some(3..6), score: 0.5, no_answer: Some(0.125) };
        let none = Span { answer: String::new(), range: None, score: 0.75, no_answer: Some(0.75) };
        let outcomes = [(Some("q"), Outcome::Span(answer)), (Some("r"), Outcome::Span(none))];
        let head = Head::Span { unanswerable: true };
        assert_eq!(
            written(OutputFormat::Tsv, &head, true, &outcomes),
            "id\tanswer\tstart\tend\tscore\tno_answer\nq\ta b\t3\t6\t0.5\t0.125\nr\t\t\t\t0.75\t0.75\n"
        );
        assert_eq!(
            written(OutputFormat::JsonLines, &head, true, &outcomes),
            "{\"id\":\"q\",\"answer\":\"a\\nb\",\"start\":3,\"end\":6,\"score\":0.5,\"no_answer\":0.125}\n\
             {\"id\":\"r\",\"answer\":\"\",\"start\":null,\"end\":null,\"score\":0.75,\"no_answer\":0.75}\n"
        );
    }
}
