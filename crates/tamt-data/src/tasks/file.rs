//! A user's own task, declared in a TOML file.

use std::cmp::Ordering;
use std::path::Path;

use serde::Deserialize;

use super::{Column, Columns, Defaults, Format, Head, Layout, Source, Split, Task};
use crate::metrics::Metric;
use crate::text::read_text;
use crate::{Error, Result};

/// What may stand in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    name: String,
    kind: Kind,
    labels: Option<Vec<String>>,
    range: Option<(f32, f32)>,
    metrics: Option<Vec<String>>,
    primary: Option<String>,
    format: Option<FormatName>,
    header: Option<bool>,
    files: Files,
    columns: ColumnNames,
    #[serde(default)]
    defaults: Settings,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Classification,
    Regression,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormatName {
    Tsv,
    Csv,
    Jsonl,
    Parquet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    train: Option<String>,
    dev: Option<String>,
    test: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnNames {
    id: Option<ColumnName>,
    first: ColumnName,
    second: Option<ColumnName>,
    label: ColumnName,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ColumnName {
    Name(String),
    Index(usize),
}

impl From<ColumnName> for Column {
    fn from(column: ColumnName) -> Self {
        match column {
            ColumnName::Name(name) => Self::Name(name),
            ColumnName::Index(index) => Self::Index(index),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    batch_size: Option<usize>,
    learning_rate: Option<f64>,
    epochs: Option<u32>,
    max_length: Option<usize>,
    eval_every: Option<u64>,
}

impl Task {
    /// Reads a task's declaration: one text or a pair of texts, with a label or a number.
    ///
    /// ```toml
    /// name = "reviews"
    /// kind = "classification"            # or "regression", which has no labels
    /// labels = ["negative", "positive"]  # in the order of the head's outputs
    /// range = [0.0, 5.0]                 # regression: the least and the greatest label; optional
    /// metrics = ["accuracy", "f1"]       # default: accuracy, or pearson and spearmanr
    /// primary = "f1"                     # by which a checkpoint is chosen; default: the first
    /// format = "tsv"                     # tsv, csv, jsonl, parquet; default: by the files' endings
    /// header = true                      # default; false for TSV and CSV without column names
    ///
    /// [files]                            # in the data directory, or in one inside it; `*` stands for any text
    /// train = "train.tsv"
    /// dev = "dev.tsv"
    /// test = "test.tsv"                  # optional, as is its label column
    ///
    /// [columns]                          # by name, or by number from 0
    /// first = "text"
    /// second = "title"                   # only for pairs
    /// label = "stars"
    /// id = "id"                          # optional: what predictions are listed by
    ///
    /// [defaults]                         # each optional
    /// batch_size = 32
    /// learning_rate = 2e-5
    /// epochs = 3
    /// max_length = 128
    /// eval_every = 50
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NotText`]; [`Error::BadFile`] saying what is wrong with the declaration.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let declaration: Declaration =
            toml::from_str(&text).map_err(|e| bad(path, e.to_string().trim_end().to_owned()))?;
        task(declaration).map_err(|reason| bad(path, reason))
    }
}

fn bad(path: &Path, reason: String) -> Error {
    Error::BadFile { path: path.to_owned(), kind: "task", reason }
}

fn task(declaration: Declaration) -> Result<Task, String> {
    let Declaration { name, kind, labels, range, metrics, primary, format, header, files, columns, defaults } =
        declaration;
    // Predictions are written to a file of that name.
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(format!("name = {name:?} must be of letters, digits, - and _"));
    }
    let head = head(kind, labels, range)?;
    let metrics = match metrics {
        Some(keys) => keys.iter().map(|key| metric(key, &head)).collect::<Result<Vec<_>, _>>()?,
        None if kind == Kind::Classification => vec![Metric::Accuracy],
        None => vec![Metric::Pearson, Metric::Spearman],
    };
    let primary = match primary {
        Some(key) => metric(&key, &head)?,
        None => *metrics.first().ok_or("metrics is empty")?,
    };
    if let Some((_, twice)) = metrics.iter().enumerate().find(|(i, metric)| metrics[..*i].contains(metric)) {
        return Err(format!("the metric {:?} is listed twice", twice.key()));
    }
    if !metrics.contains(&primary) {
        return Err(format!("primary = {:?} is not among the metrics", primary.key()));
    }

    let columns = Columns {
        id: columns.id.map(Column::from),
        first: columns.first.into(),
        second: columns.second.map(Column::from),
        label: Some(columns.label.into()),
    };
    let mut sources = Vec::new();
    for (split, file) in [(Split::Train, files.train), (Split::Dev, files.dev), (Split::Test, files.test)] {
        let Some(file) = file else {
            continue;
        };
        let format = match format {
            Some(format) => format.into(),
            None => format_of(&file).ok_or_else(|| {
                format!("no format for {file:?}: set format to \"tsv\", \"csv\", \"jsonl\" or \"parquet\"")
            })?,
        };
        if let Some((folder, _)) = file.rsplit_once('/')
            && folder.contains('*')
        {
            return Err(format!("{file:?}: * can stand in a file's name, not in a directory's"));
        }
        let layout = Layout::Table {
            format,
            header: header.unwrap_or(true),
            columns: columns.clone(),
            integer_labels: Vec::new(),
        };
        check_columns(&layout)?;
        sources.push(Source { split, file, layout });
    }
    if sources.is_empty() {
        return Err("files names no file".to_owned());
    }

    let defaults = settings(&defaults)?;
    let submissions = vec![(Split::Test, format!("{name}.tsv"))];
    Ok(Task { name, folders: Vec::new(), head, sources, metrics, primary, defaults, submissions })
}

fn settings(given: &Settings) -> Result<Defaults, String> {
    let usual = Defaults::default();
    let defaults = Defaults {
        batch_size: given.batch_size.unwrap_or(usual.batch_size),
        learning_rate: given.learning_rate.unwrap_or(usual.learning_rate),
        epochs: given.epochs.unwrap_or(usual.epochs),
        max_length: given.max_length.unwrap_or(usual.max_length),
        eval_every: given.eval_every.unwrap_or(usual.eval_every),
    };
    let Defaults { batch_size, learning_rate, epochs, max_length, eval_every } = defaults;
    if batch_size == 0 || epochs == 0 || max_length == 0 || eval_every == 0 {
        return Err("batch_size, epochs, max_length and eval_every must be at least 1".to_owned());
    }
    if !(learning_rate > 0.0 && learning_rate.is_finite()) {
        return Err(format!("learning_rate = {learning_rate} must be above 0"));
    }
    Ok(defaults)
}

fn head(kind: Kind, labels: Option<Vec<String>>, range: Option<(f32, f32)>) -> Result<Head, String> {
    match (kind, labels, range) {
        (Kind::Classification, Some(labels), None) => {
            if labels.len() < 2 {
                return Err("a classification needs at least two labels".to_owned());
            }
            // Files are read without white space around labels, and predictions written between tabs.
            if let Some(odd) = labels.iter().find(|l| l.is_empty() || l.trim() != **l || l.contains(char::is_control)) {
                return Err(format!("the label {odd:?} cannot be told from others in a file"));
            }
            match labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
                Some((_, twice)) => Err(format!("the label {twice:?} is listed twice")),
                None => Ok(Head::Classification { labels }),
            }
        }
        (Kind::Classification, None, _) => Err("a classification needs labels".to_owned()),
        (Kind::Classification, Some(_), Some(_)) => Err("a classification has no range".to_owned()),
        (Kind::Regression, Some(_), _) => Err("a regression has no labels".to_owned()),
        // A NaN has no place in an order.
        (Kind::Regression, None, Some((least, greatest))) if least.partial_cmp(&greatest) != Some(Ordering::Less) => {
            Err(format!("range = [{least}, {greatest}] is no range"))
        }
        (Kind::Regression, None, range) => Ok(Head::Regression { range }),
    }
}

fn metric(key: &str, head: &Head) -> Result<Metric, String> {
    let metric = Metric::by_key(key).ok_or_else(|| format!("unknown metric {key:?}; known are {}", keys(head)))?;
    if metric.fits(head) { Ok(metric) } else { Err(format!("{key} does not fit this task; {} do", keys(head))) }
}

fn keys(head: &Head) -> String {
    let fitting = Metric::ALL.iter().filter(|metric| metric.fits(head));
    fitting.map(|metric| metric.key()).collect::<Vec<_>>().join(", ")
}

fn check_columns(layout: &Layout) -> Result<(), String> {
    let Layout::Table { format, header, columns, .. } = layout else {
        return Ok(());
    };
    let Columns { id, first, second, label } = columns;
    let mut all = [Some(first), second.as_ref(), label.as_ref(), id.as_ref()].into_iter().flatten();
    let named = matches!(format, Format::JsonLines | Format::Parquet);
    match (header, named) {
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

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Tsv => Self::Tsv,
            FormatName::Csv => Self::Csv,
            FormatName::Jsonl => Self::JsonLines,
            FormatName::Parquet => Self::Parquet,
        }
    }
}

fn format_of(file: &str) -> Option<Format> {
    match Path::new(file).extension()?.to_str()? {
        "tsv" => Some(Format::Tsv),
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::JsonLines),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}
