//! The input of `tamt predict`: its format and its columns.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use tamt::predict::Source;
use tamt::tune::InputSettings;
use tamt_data::squad::Dataset;
use tamt_data::tasks::{Column, Format, Head, IdColumn, InputLayout, Records, Task, TextColumns};

use crate::args::predict::PredictArgs;
use crate::args::values::{InputFormat, TextSource};
use crate::exit::UsageError;

/// The head of a model, and how the files of its task look.
pub(super) struct Known {
    pub(super) task: Cow<'static, Task>,
    pub(super) settings: InputSettings,
    /// `None` if nothing says how.
    pub(super) inputs: Option<Vec<InputLayout>>,
}

/// The records, and the measure of the progress.
pub(super) struct Input {
    pub(super) source: Source,
    /// The number of all units, if known.
    pub(super) total: Option<u64>,
    pub(super) unit: &'static str,
}

/// Opens the input of a model with this task.
pub(super) fn open(args: &PredictArgs, known: &Known) -> Result<Input> {
    let path = args.input.name();
    let is_span = matches!(known.task.head, Head::Span { .. });
    let format = format(args, &path, is_span)?;
    if !matches!(format, InputFormat::Table(_)) && (!args.columns.is_empty() || args.id_column.is_some()) {
        bail!(UsageError(format!("--columns and --id-column: {} is no table; --format sets its form", path.display())));
    }
    match format {
        InputFormat::Squad => {
            let dataset = match &args.input {
                TextSource::File(path) => Dataset::read_file(path)?,
                TextSource::Stdin => {
                    let mut bytes = Vec::new();
                    io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
                    Dataset::from_bytes(&bytes, &path)?
                }
            };
            let total = Some(dataset.questions.len() as u64);
            Ok(Input { source: Source::Questions(dataset), total, unit: "questions" })
        }
        InputFormat::Text => {
            if has_pairs(known, is_span) == Some(true) {
                let problem = "the model takes pairs of texts, and a line is one text: give tsv, csv or jsonl";
                bail!(UsageError(format!("--format: {problem}")));
            }
            let (source, total) = stream(&args.input)?;
            Ok(Input { source: Source::Records(Box::new(Records::lines(source, &path)?)), total, unit: "bytes" })
        }
        InputFormat::Table(format) => {
            let candidates = candidates(args, known, format, &path, is_span)?;
            let (source, total) = stream(&args.input)?;
            let records = Records::table(source, &path, format, &candidates)?;
            Ok(Input { source: Source::Records(Box::new(records)), total, unit: "bytes" })
        }
    }
}

/// The bytes of the input, and their number if known.
fn stream(source: &TextSource) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    let TextSource::File(path) = source else { return Ok((Box::new(io::stdin()), None)) };
    let file =
        File::open(path).map_err(|source| tamt_data::Error::Io { action: "read", path: path.clone(), source })?;
    // A pipe has no size.
    let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(file), size))
}

fn format(args: &PredictArgs, path: &Path, is_span: bool) -> Result<InputFormat> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let format = match (args.format, ending) {
        (Some(format), _) => format,
        (None, "tsv") => InputFormat::Table(Format::Tsv),
        (None, "csv") => InputFormat::Table(Format::Csv),
        (None, "jsonl" | "ndjson") => InputFormat::Table(Format::JsonLines),
        (None, "json") => InputFormat::Squad,
        (None, "parquet") => {
            let path = path.display();
            bail!(UsageError(format!(
                "--input: {path} is Parquet; predict reads text, tsv, csv, jsonl and SQuAD's JSON"
            )));
        }
        (None, _) => InputFormat::Text,
    };
    let problem = match format {
        InputFormat::Text if is_span => "the model answers questions about contexts: give squad, tsv, csv or jsonl",
        InputFormat::Squad if !is_span => {
            "SQuAD's JSON holds questions, and the model predicts labels or numbers: give jsonl, tsv, csv or text"
        }
        _ => return Ok(format),
    };
    bail!(UsageError(format!("--format: {problem}")))
}

/// Whether the model takes pairs of texts, if that is known.
fn has_pairs(known: &Known, is_span: bool) -> Option<bool> {
    if is_span {
        return Some(true);
    }
    known.inputs.as_ref()?.first().map(|layout| layout.columns.second.is_some())
}

/// The columns that the input may have.
fn candidates(
    args: &PredictArgs,
    known: &Known,
    format: Format,
    path: &Path,
    is_span: bool,
) -> Result<Vec<TextColumns>> {
    if args.no_header && format == Format::JsonLines {
        bail!(UsageError("--no-header: JSON lines have names".to_owned()));
    }
    let mut candidates = match args.columns.as_slice() {
        [] => {
            let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let layouts = known.inputs.as_deref().unwrap_or_default();
            let mut known = InputLayout::candidates(layouts, format, file_name);
            if is_span && known.is_empty() {
                known.push(TextColumns::named("question", Some("context")));
            }
            known
        }
        given => vec![named(args, given, has_pairs(known, is_span))?],
    };
    if candidates.is_empty() {
        let path = path.display();
        bail!(UsageError(format!(
            "--columns: nothing says which column of {path} holds the text; name it, or the two of a pair"
        )));
    }
    if let Some(id) = &args.id_column {
        let id = IdColumn { column: column(args, id)?, required: true };
        candidates.iter_mut().for_each(|columns| columns.id = Some(id.clone()));
    }
    Ok(candidates)
}

/// The columns of `--columns`, for a model that takes pairs or not, if that is known.
fn named(args: &PredictArgs, given: &[String], has_pairs: Option<bool>) -> Result<TextColumns> {
    let (first, second) = match (given, has_pairs) {
        ([first], None | Some(false)) => (first, None),
        ([first, second], None | Some(true)) => (first, Some(second)),
        (_, Some(true)) => bail!(UsageError("--columns: the model takes pairs of texts: name two columns".to_owned())),
        (_, Some(false)) => bail!(UsageError("--columns: the model takes single texts: name one column".to_owned())),
        (_, None) => bail!(UsageError("--columns: name one column, or the two of a pair".to_owned())),
    };
    if args.no_header {
        let second = second.map(|second| column(args, second)).transpose()?;
        return Ok(TextColumns { header: false, id: None, first: column(args, first)?, second });
    }
    Ok(TextColumns::named(first, second.map(String::as_str)))
}

/// A column by its name, or by its number in a file without a header.
fn column(args: &PredictArgs, given: &str) -> Result<Column> {
    if !args.no_header {
        return Ok(given.into());
    }
    let number = given.parse().map_err(|_| UsageError(format!("--no-header: {given:?} is no column number from 0")))?;
    Ok(Column::Index(number))
}
