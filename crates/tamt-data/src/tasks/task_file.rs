//! The task file: a user's own task, declared in TOML.

use std::cmp::Ordering;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Result, bad_file};
use crate::head::Head;
use crate::metrics::Metric;
use crate::nearest::did_you_mean;
use crate::tasks::source::{Column, Columns, Format, Layout, Source, Split};
use crate::tasks::task::{Defaults, Task};
use crate::text::read_text;

/// The keys of a task file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    name: String,
    kind: TaskKind,
    labels: Option<Vec<String>>,
    range: Option<(f32, f32)>,
    metrics: Option<Vec<String>>,
    primary: Option<String>,
    format: Option<Format>,
    header: Option<bool>,
    files: Files,
    columns: Columns,
    #[serde(default)]
    defaults: Defaults,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum TaskKind {
    Classification,
    Regression,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    train: Option<String>,
    dev: Option<String>,
    test: Option<String>,
}

impl Task {
    /// Reads a task file: the declaration of a classification or a regression of texts or pairs of texts.
    ///
    /// ```toml
    /// name = "reviews"
    /// kind = "classification"            # or "regression", which has no labels
    /// labels = ["negative", "positive"]  # in the order of the head's outputs
    /// range = [0.0, 5.0]                 # of a regression: the least and the greatest label; optional
    /// metrics = ["accuracy", "f1"]       # default: accuracy, or pearson and spearmanr
    /// primary = "f1"                     # selects the best checkpoint; default: the first metric
    /// format = "tsv"                     # tsv, csv, jsonl or parquet; default: by the extension of each file
    /// header = true                      # default; false for TSV and CSV files without column names
    ///
    /// [files]                            # paths in the data directory; `*` stands for any text
    /// train = "train.tsv"
    /// dev = "dev.tsv"
    /// test = "test.tsv"                  # optional; its label column is optional
    ///
    /// [columns]                          # names, or positions from 0
    /// first = "text"
    /// second = "title"                   # only for pairs
    /// label = "stars"
    /// id = "id"                          # optional: the ids in the predictions
    ///
    /// [defaults]                         # all keys optional
    /// batch_size = 32
    /// learning_rate = 2e-5
    /// epochs = 3
    /// max_length = 128
    /// eval_every = 50
    /// ```
    ///
    /// `docs/tasks.md` documents all keys and their constraints.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io), [`Error::NotText`](crate::Error::NotText);
    /// [`Error::BadFile`](crate::Error::BadFile) with the reason if the declaration is not valid.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let bad = bad_file(path, "task");
        let declaration: Declaration = toml::from_str(&text)
            .map_err(|e| bad(format!("{}{}", e.to_string().trim_end(), suggestion(e.message()))))?;
        task(declaration).map_err(bad)
    }
}

/// The known name that the first name of a message stands for. The messages of `serde` list the names in backticks: an
/// unknown key or value, then the known ones.
fn suggestion(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    names.next().map_or_else(String::new, |unknown| did_you_mean(unknown, names))
}

/// The task of a declaration, or the reason why the declaration is not valid.
fn task(declaration: Declaration) -> Result<Task, String> {
    let Declaration { name, kind, labels, range, metrics, primary, format, header, files, columns, defaults } =
        declaration;
    // The name is part of a file name.
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(format!("name = {name:?} must be of letters, digits, - and _"));
    }
    let head = head(kind, labels, range)?;
    let (metrics, primary) = task_metrics(metrics, primary, &head)?;
    check_label(&columns)?;
    let sources = sources(files, format, header.unwrap_or(true), &columns)?;
    check_defaults(&defaults)?;
    let submissions = vec![(Split::Test, format!("{name}.tsv"))];
    Ok(Task { name, folders: Vec::new(), head, sources, metrics, primary, defaults, submissions })
}

fn head(kind: TaskKind, labels: Option<Vec<String>>, range: Option<(f32, f32)>) -> Result<Head, String> {
    match (kind, labels, range) {
        (TaskKind::Classification, Some(labels), None) => {
            if labels.len() < 2 {
                return Err("a classification needs at least two labels".to_owned());
            }
            // Readers trim labels, and predictions are tab-separated.
            if let Some(odd) = labels.iter().find(|l| l.is_empty() || l.trim() != **l || l.contains(char::is_control)) {
                return Err(format!("the label {odd:?} cannot be told from others in a file"));
            }
            match repeated(&labels) {
                Some(twice) => Err(format!("the label {twice:?} is listed twice")),
                None => Ok(Head::Classification { labels }),
            }
        }
        (TaskKind::Classification, None, _) => Err("a classification needs labels".to_owned()),
        (TaskKind::Classification, Some(_), Some(_)) => Err("a classification has no range".to_owned()),
        (TaskKind::Regression, Some(_), _) => Err("a regression has no labels".to_owned()),
        // `partial_cmp` is `None` for NaN.
        (TaskKind::Regression, None, Some((least, greatest)))
            if least.partial_cmp(&greatest) != Some(Ordering::Less) =>
        {
            Err(format!("range = [{least}, {greatest}] is no range"))
        }
        (TaskKind::Regression, None, range) => Ok(Head::Regression { range }),
    }
}

/// The metrics of a task and its primary metric, from their names.
fn task_metrics(
    names: Option<Vec<String>>,
    primary: Option<String>,
    head: &Head,
) -> Result<(Vec<Metric>, Metric), String> {
    let metrics = match (names, head) {
        (Some(names), _) => names.iter().map(|name| metric(name, head)).collect::<Result<Vec<_>, _>>()?,
        (None, Head::Regression { .. }) => vec![Metric::Pearson, Metric::Spearman],
        (None, _) => vec![Metric::Accuracy],
    };
    let primary = match primary {
        Some(name) => metric(&name, head)?,
        None => *metrics.first().ok_or("metrics is empty")?,
    };
    if let Some(twice) = repeated(&metrics) {
        return Err(format!("the metric {:?} is listed twice", twice.key()));
    }
    if !metrics.contains(&primary) {
        return Err(format!("primary = {:?} is not among the metrics", primary.key()));
    }
    Ok((metrics, primary))
}

fn metric(name: &str, head: &Head) -> Result<Metric, String> {
    let fitting: Vec<&str> = Metric::ALL.iter().filter(|metric| metric.fits(head)).map(|metric| metric.key()).collect();
    let known = fitting.join(", ");
    match Metric::by_key(name) {
        Some(metric) if metric.fits(head) => Ok(metric),
        Some(_) => Err(format!("{name} does not fit this task; {known} do")),
        None => Err(format!("unknown metric {name:?}; known are {known}{}", did_you_mean(name, fitting))),
    }
}

/// The first item that equals an earlier one.
fn repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    items.iter().enumerate().find(|(i, item)| items[..*i].contains(item)).map(|(_, item)| item)
}

fn sources(files: Files, format: Option<Format>, header: bool, columns: &Columns) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for (split, file) in [(Split::Train, files.train), (Split::Dev, files.dev), (Split::Test, files.test)] {
        let Some(file) = file else {
            continue;
        };
        let format = format.or_else(|| format_of(&file)).ok_or_else(|| {
            format!("no format for {file:?}: set format to \"tsv\", \"csv\", \"jsonl\" or \"parquet\"")
        })?;
        if let Some((folder, _)) = file.rsplit_once('/')
            && folder.contains('*')
        {
            return Err(format!("{file:?}: * can stand in a file's name, not in a directory's"));
        }
        check_columns(format, header, columns)?;
        let layout = Layout::Table { format, header, columns: columns.clone(), integer_labels: Vec::new() };
        sources.push(Source { split, file, layout });
    }
    if sources.is_empty() { Err("files names no file".to_owned()) } else { Ok(sources) }
}

/// The format of a file by its extension.
fn format_of(file: &str) -> Option<Format> {
    match Path::new(file).extension()?.to_str()? {
        "tsv" => Some(Format::Tsv),
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::JsonLines),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// Refuses a label that is a text, too: the model would read the answer.
fn check_label(columns: &Columns) -> Result<(), String> {
    let Columns { first, second, label, .. } = columns;
    let Some(label) = label else { return Ok(()) };
    match [("first", Some(first)), ("second", second.as_ref())].into_iter().find(|(_, text)| *text == Some(label)) {
        Some((key, _)) => Err(format!("{key} and label are the same column, {label}")),
        None => Ok(()),
    }
}

/// Checks that a format supports columns by name or by position, as declared.
fn check_columns(format: Format, header: bool, columns: &Columns) -> Result<(), String> {
    let Columns { id, first, second, label } = columns;
    let mut all = [Some(first), second.as_ref(), label.as_ref(), id.as_ref()].into_iter().flatten();
    let always_named = matches!(format, Format::JsonLines | Format::Parquet);
    match (header, always_named) {
        (false, true) => Err("only TSV and CSV files can be without a header".to_owned()),
        (false, false) => match all.find(|column| matches!(column, Column::Name(_))) {
            Some(column) => Err(format!("without a header, column {column} must be given by number, from 0")),
            None => Ok(()),
        },
        (true, true) => match all.find(|column| matches!(column, Column::Index(_))) {
            Some(column) => Err(format!("column {column} must be given by name in this format")),
            None => Ok(()),
        },
        (true, false) => Ok(()),
    }
}

fn check_defaults(defaults: &Defaults) -> Result<(), String> {
    let &Defaults { batch_size, learning_rate, epochs, max_length, eval_every } = defaults;
    if batch_size == 0 || epochs == 0 || max_length == 0 || eval_every == 0 {
        return Err("batch_size, epochs, max_length and eval_every must be at least 1".to_owned());
    }
    if !(learning_rate > 0.0 && learning_rate.is_finite()) {
        return Err(format!("learning_rate = {learning_rate} must be above 0"));
    }
    Ok(())
}
