//! All output of the command: results, notices, progress, errors, and the tables in them.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::advice::verb_of;
use crate::audience::Audience;
use crate::hints::hint;
use crate::messages::message;

/// Prints to the stream that the flags choose.
///
/// | | default | `--json` | `--quiet` |
/// |---|---|---|---|
/// | result | text on stdout | one JSON object on stdout | text on stdout |
/// | notices for a person | stdout | stderr | not printed |
/// | progress | stderr | stderr | not printed |
/// | warnings, errors | stderr | stderr | stderr |
///
/// Before an audience, nothing is printed: the audience hears the result, the notices and the warnings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    /// Whether the verb is a run of a study: its result and its notices are in the files of the run.
    nested: bool,
    /// The program that called the verb, if one has.
    audience: Option<Audience>,
}

impl Printer {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        if quiet {
            // Downloads draw their bars themselves.
            tamt_model::hub::hide_progress();
        }
        Self { json, quiet, nested: false, audience: None }
    }

    /// The printer of a verb that a program has called.
    pub(crate) fn before(audience: Audience) -> Self {
        Self { audience: Some(audience), ..Self::new(false, true) }
    }

    /// The program that called the verb, if one has.
    pub(crate) fn audience(self) -> Option<Audience> {
        self.audience
    }

    /// The same streams for a run of a study, which prints progress, warnings and errors only.
    pub(crate) fn nested(self) -> Self {
        Self { nested: true, ..self }
    }

    /// The printer of a verb that writes data to stdout: notices go to stderr.
    pub(crate) fn beside_data(self) -> Self {
        Self { json: true, ..self }
    }

    /// The stream for data.
    #[expect(clippy::unused_self, reason = "the printer is the door to stdout")]
    pub(crate) fn data(self) -> impl Write {
        BufWriter::new(io::stdout().lock())
    }

    /// Whether `--quiet` hides all but errors, warnings and the result.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints the result of a verb: `json` (an object) with `--json`, `text` otherwise. A verb calls it once.
    pub(crate) fn result(self, json: &Value, text: &str) -> Result<()> {
        if let Some(audience) = self.audience {
            audience.end_with(json.clone());
            return Ok(());
        }
        if self.nested {
            return Ok(());
        }
        if self.json { to_stdout(&format!("{json}\n")) } else { to_stdout(&with_newline(text)) }
    }

    /// Prints a notice for a person.
    pub(crate) fn info(self, text: &str) -> Result<()> {
        if let Some(audience) = self.audience {
            audience.tell(|| json!({ "event": "note", "text": text }));
        }
        if self.quiet || self.nested {
            Ok(())
        } else if self.json {
            to_stderr(&with_newline(text));
            Ok(())
        } else {
            to_stdout(&with_newline(text))
        }
    }

    /// Prints that a run is not likely to be what its user wants, whatever the flags: in a study, too.
    pub(crate) fn warning(self, text: &str) {
        match self.audience {
            Some(audience) => audience.tell(|| json!({ "event": "note", "text": text })),
            None => to_stderr(&format!("warning: {text}\n")),
        }
    }

    /// Prints the progress of a run.
    pub(crate) fn progress(self, text: &str) {
        if let Some(audience) = self.audience {
            audience.tell(|| json!({ "event": "note", "text": text }));
        }
        if !self.quiet {
            to_stderr(&with_newline(text));
        }
    }

    /// Prints the end of a verb that no error describes.
    #[expect(clippy::unused_self, reason = "errors are shown whatever the flags")]
    pub(crate) fn failure(self, text: &str) {
        to_stderr(&with_newline(text));
    }

    /// Prints an error, its causes, and advice if there is any; `line` is the command line.
    #[expect(clippy::unused_self, reason = "errors are shown whatever the flags")]
    pub(crate) fn error(self, error: &anyhow::Error, line: &[OsString]) {
        to_stderr(&error_text(error, line));
    }
}

fn error_text(error: &anyhow::Error, line: &[OsString]) -> String {
    let verb = verb_of(line);
    let labels = ["error"].into_iter().chain(std::iter::repeat("  caused by"));
    let causes = labels.zip(error.chain()).map(|(label, cause)| format!("{label}: {}\n", message(cause, &verb)));
    let mut text: String = causes.collect();
    if let Some(hint) = hint(error, line, &verb) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn with_newline(text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

/// Writes to stdout. A closed pipe (`| head`) is no failure.
fn to_stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to stdout"),
    }
}

/// Writes to stderr, and ignores a closed stderr: no stream remains to report the failure to.
fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Rows of text in aligned columns.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, with two spaces between columns: numbers are right-aligned, other columns left-aligned.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let layout: Vec<(usize, bool)> = (0..columns)
            .map(|column| {
                let width = self.rows.iter().map(|row| cell(row, column).chars().count()).max();
                let mut body = self.rows.iter().skip(1).map(|row| cell(row, column));
                (width.unwrap_or(0), body.all(|text| is_numeric(&text)))
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: Vec<String> = layout
                .iter()
                .enumerate()
                .map(|(column, &(width, right))| {
                    let cell = cell(row, column);
                    if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A count with thousands separators: 1,234,567.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A metric to five significant digits: small distances and large perplexities have equally many digits.
pub(crate) fn metric(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    if (-5.0..8.0).contains(&magnitude) {
        let decimals = (4.0 - magnitude).max(0.0) as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value:.4e}")
    }
}

/// Whether a text consists of numbers, signs, `%`, thousands separators and blanks.
fn is_numeric(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || "+-.,% e".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_followed_by_its_causes_and_a_hint() {
        let error = tamt::Error::Locked { path: "run".into() };
        let error = Err::<(), _>(error).context("cannot start").unwrap_err();
        let expected = "error: cannot start\n  caused by: run is being written by another process\n\
            hint: wait for the other process to end, or give another --output-dir\n";
        assert_eq!(error_text(&error, &["tamt", "find"].map(OsString::from)), expected);
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn metrics_have_five_significant_digits() {
        let shown = [0.0, 1.0, 0.000_421_37, 1234.56, 123_456.7, 2.5e12, -0.25].map(metric);
        assert_eq!(shown, ["0", "1.0000", "0.00042137", "1234.6", "123457", "2.5000e12", "-0.25000"]);
    }

    #[test]
    fn tables_align_text_to_the_left_and_numbers_to_the_right() {
        let mut table = Table::new(&["matrix", "kept", "note"]);
        table.row(["query".to_owned(), "7".to_owned(), "a".to_owned()]);
        table.row(["µ".to_owned(), "12,345".to_owned(), String::new()]);
        assert_eq!(table.render(), "matrix    kept  note\nquery        7  a\nµ       12,345\n");
    }
}
