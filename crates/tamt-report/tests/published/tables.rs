//! The tables of the documents, and their numbers beside those that were measured.

use tamt_report::stats::paired::PairedT;
use tamt_report::stats::summary::Summary;

use crate::runs::{Scores, mean, read};

/// A Markdown table with the paragraph above it. Names of rows have no stars; other cells have those of bold type.
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn has_deviations(&self) -> bool {
        self.rows.iter().flatten().any(|cell| cell.contains('±'))
    }

    /// The cells with a number: name of the row, name of the column, text.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.rows.iter().flat_map(|row| {
            let cells = self.header.iter().zip(row).skip(1).filter(|(_, text)| !text.is_empty());
            cells.map(|(column, text)| (row[0].as_str(), column.as_str(), text.as_str()))
        })
    }
}

/// The tables below the heading `title`, up to the next heading.
pub(crate) fn tables(path: &str, title: &str) -> Vec<Table> {
    let text = read(path);
    let is_title = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == title;
    let section = text.lines().skip_while(|line| !is_title(line)).skip(1).take_while(|line| !line.starts_with('#'));
    let section: Vec<&str> = section.map(str::trim).collect();
    let blocks: Vec<&[&str]> = section.split(|line| line.is_empty()).filter(|block| !block.is_empty()).collect();
    let cells = |line: &&str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    };
    let row = |line: &&str| {
        let mut row = cells(line);
        row[0] = row[0].replace('*', "");
        row
    };
    let pairs = blocks.windows(2).filter(|pair| pair[1][0].starts_with('|'));
    let found = pairs.map(|pair| Table {
        caption: pair[0].join(" "),
        header: cells(&pair[1][0]),
        rows: pair[1].iter().skip(2).map(row).collect(),
    });
    found.collect()
}

/// A whole number as it is printed (1,000); `None` for a word.
pub(crate) fn whole(text: &str) -> Option<u64> {
    text.replace(',', "").parse().ok()
}

/// The first percentage of a text as a share.
pub(crate) fn sparsity(text: &str) -> f64 {
    let number = text.split_once(" %").and_then(|(text, _)| text.rsplit(' ').next()?.parse().ok());
    number.map_or_else(|| panic!("no percentage in {text:?}"), |percent: f64| percent / 100.0)
}

/// Printed numbers beside those that were measured.
#[derive(Default)]
pub(crate) struct Comparison {
    compared: usize,
    wrong: Vec<String>,
}

impl Comparison {
    /// Expects a printed number to be `value`, rounded to as many decimals.
    pub(crate) fn number(&mut self, printed: &str, value: f64, place: &str) {
        self.compared += 1;
        let plain = printed.replace(['*', ','], "").replace('−', "-");
        let decimals = plain.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let half = 0.5 * 10f64.powi(-i32::try_from(decimals).unwrap());
        if plain.parse::<f64>().is_ok_and(|printed| (printed - value).abs() <= half + 1e-9) {
            return;
        }
        self.wrong.push(format!("{place}: {printed} is printed, {value:.4} was measured"));
    }

    /// Expects a cell to have these numbers, and the first of them in bold type where it `stands_out`.
    pub(crate) fn numbers(&mut self, printed: &str, values: &[f64], stands_out: bool, place: &str) {
        let words = printed.split([' ', '(', ')']).map(|word| word.trim_end_matches(','));
        let numbers: Vec<&str> = words.filter(|word| word.contains(|c: char| c.is_ascii_digit())).collect();
        assert_eq!(numbers.len(), values.len(), "{place}: {printed}");
        numbers.iter().zip(values).for_each(|(number, value)| self.number(number, *value, place));
        if numbers[0].starts_with("**") != stands_out {
            self.wrong.push(format!("{place}: the type of {printed} is wrong"));
        }
    }

    /// Expects the mean of the values, and where one is printed their deviation.
    pub(crate) fn mean(&mut self, printed: &str, values: &[f64], place: &str) {
        let (printed, spread) =
            printed.split_once(" ± ").map_or((printed, None), |(mean, spread)| (mean, Some(spread)));
        self.number(printed, mean(values.iter().copied()), place);
        if let Some(spread) = spread {
            self.number(spread, Summary::of(values).and_then(|of| of.deviation).unwrap(), place);
        }
    }

    /// Expects the average over tasks, which all have the same seeds; its deviation is that of the averages of each pair
    /// of seeds.
    pub(crate) fn average(&mut self, printed: &str, scores: &[Scores], place: &str) {
        assert!(scores.iter().all(|of_task| of_task.keys().eq(scores[0].keys())), "{place}");
        let of_seeds = scores[0].keys().map(|seeds| mean(scores.iter().map(|of_task| of_task[seeds])));
        self.mean(printed, &of_seeds.collect::<Vec<_>>(), place);
    }

    /// Expects the mean difference over tasks of two methods that `row` names, its interval, and the number of tasks on
    /// which the first is higher; in bold type where these are all tasks.
    pub(crate) fn difference(
        &mut self,
        printed: &str,
        row: &str,
        tasks: &[&str],
        score: impl Fn(&str, &str) -> f64,
        place: &str,
    ) {
        let (one, other) = row.split_once(" − ").unwrap();
        let differences: Vec<f64> = tasks.iter().map(|task| score(one, task) - score(other, task)).collect();
        let higher = differences.iter().filter(|difference| **difference > 0.0).count();
        let test = PairedT::of(&differences).unwrap();
        let values = [test.mean, test.interval.0, test.interval.1, higher as f64];
        self.numbers(printed, &values, higher == tasks.len(), &format!("{row}, {place}"));
    }

    /// Expects so many numbers, and all to be those that were measured.
    #[track_caller]
    pub(crate) fn finish(self, count: usize) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert_eq!(self.compared, count, "numbers");
    }
}
