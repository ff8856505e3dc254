//! What a report consists of, whatever the format that it is written in.

use std::fmt::Write as _;

/// A report.
#[derive(Debug, Default)]
pub struct Document {
    /// The title.
    pub title: String,
    /// A line under the title.
    pub subtitle: String,
    /// What the report shows, in sentences.
    pub findings: Vec<String>,
    /// The sections.
    pub sections: Vec<Section>,
    /// The runs, by which cells and points refer to them.
    pub runs: Vec<RunCard>,
}

/// A run as a click on a cell shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RunCard {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: String,
    /// Score or loss, as a sentence.
    pub result: String,
    /// The command line.
    pub command: String,
    /// The digest of settings and inputs.
    pub id: String,
    /// The directory.
    pub directory: String,
}

/// A section.
#[derive(Debug, Default)]
pub struct Section {
    /// The name in links and file names.
    pub id: &'static str,
    /// The title.
    pub title: String,
    /// The short title of the contents.
    pub short: String,
    /// The blocks.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Debug)]
pub enum Block {
    /// A paragraph that says what the data show.
    Finding(String),
    /// A paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// Figures side by side, with their caption.
    Figures(Vec<Figure>, String),
    /// Blocks that a reader opens.
    Details(String, Vec<Block>),
}

/// A figure.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The name of the file.
    pub id: String,
    /// What the figure shows, for readers who cannot see it.
    pub title: String,
    /// The SVG.
    pub svg: String,
    /// Whether the figure needs the full width.
    pub wide: bool,
}

/// A table.
#[derive(Debug, Default)]
pub struct Table {
    /// The name of the files.
    pub id: String,
    /// The caption.
    pub caption: String,
    /// The headings, the first for the names of rows.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

/// The heading of a column.
#[derive(Debug, Default, Clone)]
pub struct Column {
    /// The heading.
    pub title: String,
    /// A second line, such as the metric.
    pub note: String,
}

impl Column {
    /// A heading of one line.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), note: String::new() }
    }

    /// A heading with a second line.
    pub fn with_note(title: impl Into<String>, note: impl Into<String>) -> Self {
        Self { title: title.into(), note: note.into() }
    }
}

/// A cell.
#[derive(Debug, Clone)]
pub enum Cell {
    /// Text.
    Text(String),
    /// Text in a fixed-width font, such as a command or a digest.
    Code(String),
    /// A number.
    Number(Number),
    /// Nothing was measured.
    Empty,
}

impl Cell {
    /// A cell of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// How a number follows from the results of its runs; tests compute each number again by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The mean over runs of a value in their results.
    Mean,
    /// The mean over tasks of the mean over runs.
    MeanOfTasks,
    /// A difference of two such numbers, or a result of a test.
    Derived,
    /// A count, a size or a time, from settings, logs or files.
    Recorded,
}

impl Statistic {
    /// The name in the page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::MeanOfTasks => "mean-of-tasks",
            Self::Derived => "derived",
            Self::Recorded => "recorded",
        }
    }
}

/// A number in a table.
#[derive(Debug, Clone)]
pub struct Number {
    /// The value.
    pub value: f64,
    /// Digits after the point.
    pub decimals: usize,
    /// The number in words, in place of the digits: a duration, a power of ten.
    pub text: Option<String>,
    /// Whether a plus sign marks positive numbers.
    pub signed: bool,
    /// The sample deviation over seeds.
    pub deviation: Option<f64>,
    /// Number of values.
    pub n: usize,
    /// The difference to the dense model, and whether it is more than noise: `None` where no test is possible.
    pub difference: Option<(f64, Option<bool>)>,
    /// Whether this is the best number of its column.
    pub best: bool,
    /// How the number follows from results.
    pub statistic: Statistic,
    /// The name in the results of the value, or `score` for the task's metric.
    pub key: &'static str,
    /// The runs.
    pub runs: Vec<usize>,
}

impl Number {
    /// A number of these runs.
    #[must_use]
    pub fn new(value: f64, decimals: usize, statistic: Statistic, key: &'static str, runs: Vec<usize>) -> Self {
        Self {
            value,
            decimals,
            text: None,
            signed: false,
            deviation: None,
            n: runs.len(),
            difference: None,
            best: false,
            statistic,
            key,
            runs,
        }
    }

    /// The number as tables show it.
    #[must_use]
    pub fn shown(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        if self.signed { signed(self.value, self.decimals) } else { fixed(self.value, self.decimals) }
    }

    /// The deviation as tables show it.
    #[must_use]
    pub fn deviation_shown(&self) -> Option<String> {
        self.deviation.map(|deviation| fixed(deviation, self.decimals))
    }

    /// The difference as tables show it, with a star where it is more than noise.
    #[must_use]
    pub fn difference_shown(&self) -> Option<String> {
        self.difference.map(|(value, clear)| {
            format!("{}{}", signed(value, self.decimals), if clear == Some(true) { "*" } else { "" })
        })
    }
}

/// A number with a fixed number of decimals, a true minus sign, and thousands separated from 10,000 on.
#[must_use]
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|c| "0.".contains(c));
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && whole.len() > 4 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if value < 0.0 && !zero { "\u{2212}" } else { "" };
    format!("{sign}{grouped}{point}{rest}")
}

/// A difference, with its sign.
#[must_use]
pub fn signed(value: f64, decimals: usize) -> String {
    let text = fixed(value, decimals);
    let zero = text.chars().all(|c| "0.".contains(c));
    if value > 0.0 && !zero { format!("+{text}") } else { text }
}

/// A probability: three decimals, or a bound.
#[must_use]
pub fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { fixed(p, 3) }
}

/// A large number in powers of ten: 3.2e15 as `3.2 × 10^15` in superscripts.
#[must_use]
pub fn scientific(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let mut exponent = value.abs().log10().floor() as i32;
    // 9.96 has the digits 10.0.
    if format!("{:.1}", value.abs() / 10_f64.powi(exponent)) == "10.0" {
        exponent += 1;
    }
    let mut text = format!("{:.1} × 10", value / 10_f64.powi(exponent));
    for digit in exponent.to_string().chars() {
        let _ = text.write_char(match digit {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            digit => char::from_u32('⁰' as u32 + digit.to_digit(10).unwrap_or(0)).unwrap_or(digit),
        });
    }
    text
}

/// A duration in the unit that suits it.
#[must_use]
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{} s", fixed(s, 1)),
        s if s < 6000.0 => format!("{} min", fixed(s / 60.0, 1)),
        s => format!("{} h", fixed(s / 3600.0, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_true_minus_and_no_negative_zero() {
        assert_eq!([fixed(-1.25, 1), fixed(-0.04, 1), fixed(12345.6, 1)], ["\u{2212}1.2", "0.0", "12,345.6"]);
        assert_eq!([signed(0.31, 1), signed(-0.31, 1), signed(0.01, 1)], ["+0.3", "\u{2212}0.3", "0.0"]);
    }

    #[test]
    fn large_and_small_quantities_are_readable() {
        assert_eq!([scientific(3.24e15), scientific(0.0)], ["3.2 × 10¹⁵", "0"]);
        assert_eq!([scientific(9.96e15), scientific(-9.94e15)], ["1.0 × 10¹⁶", "-9.9 × 10¹⁵"]);
        assert_eq!([duration(1.25), duration(150.0), duration(9000.0)], ["1.2 s", "2.5 min", "2.5 h"]);
        assert_eq!([probability(0.0004), probability(0.0412)], ["< 0.001", "0.041"]);
    }
}
