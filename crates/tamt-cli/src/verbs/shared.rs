//! Shared parts of the verbs: reading texts and tickets, and showing finished runs, rates and metrics.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use tamt::Kernel;
use tamt::base::Base;
use tamt::find::Texts;
use tamt::inspect::Rates;
use tamt::metrics::{EVALUATION, label};
use tamt::run::{RunDir, SETTINGS_FILE, read_eval_results};
use tamt::ticket::{TICKET_FILE, Ticket};
use tamt_data::{Corpus, LONGEST_LINE, ReadOptions, Tokenizer};
use tamt_files::same_file;
use tamt_model::sentence::{MODULES_FILE, SENTENCE_FILE};
use tamt_model::{Checkpoint, Masks, Model, Storage, hub};

use crate::args::common::{Common, SubjectArgs};
use crate::args::values::TextSource;
use crate::audience::Audience;
use crate::cache;
use crate::exit::UsageError;
use crate::places::{nearest_directory, what_is_at};
use crate::printer::{Printer, Table, grouped, metric};
use crate::progress::{Heartbeat, Reading, duration, text_of};
use crate::record::Record;
use crate::signals::Signals;

/// Files of a run; a directory with one of them takes no new ticket.
pub(super) const RUN_FILES: &[&str] = &[SETTINGS_FILE, TICKET_FILE];
/// Files of a model, an export or a run; a directory with one of them takes no new model.
pub(super) const MODEL_FILES: &[&str] = &[
    "config.json",
    "model.safetensors",
    "model.packed.safetensors",
    "pytorch_model.bin",
    "model.onnx",
    "mask.pt",
    SETTINGS_FILE,
    TICKET_FILE,
];

/// Refuses a directory that holds one of these files.
pub(super) fn check_unoccupied(directory: &Path, files: &[&str]) -> Result<()> {
    match files.iter().find(|name| directory.join(name).exists()) {
        Some(found) => bail!("{} already holds {found}; give another --output-dir", directory.display()),
        None => Ok(()),
    }
}

/// Loads a model and prints what its checkpoint took for granted.
pub(super) fn base(name: &OsStr, printer: Printer) -> Result<Base> {
    base_as(name, Storage::Dense, printer)
}

/// How a verb that computes forward passes stores the matrices of a packed model.
pub(super) fn storage(subject: &SubjectArgs) -> Storage {
    if subject.ticket.is_some() { Storage::Dense } else { Storage::Compact }
}

/// [`base`] with a choice of how packed matrices are stored.
pub(super) fn base_as(name: &OsStr, storage: Storage, printer: Printer) -> Result<Base> {
    note_hub_id(name, printer);
    let heartbeat = Heartbeat::start(printer, "reading the model");
    let base = Base::load_as(name, storage)?;
    drop(heartbeat);
    notes(&base.model, printer)?;
    Ok(base)
}

/// Says that a model's name is taken as a hub id where a directory with nearly that name is here: the requests to the hub
/// may take a minute, and their failure says little to somebody who mistyped a directory.
pub(super) fn note_hub_id(name: &OsStr, printer: Printer) {
    // A path where nothing is fails at once, with the same advice.
    if !hub::is_hub_id(name) {
        return;
    }
    if let Some(near) = nearest_directory(Path::new(name)).filter(|near| near.join("config.json").is_file()) {
        let (id, near) = (name.to_string_lossy(), near.display());
        printer.progress(&format!("there is no directory {id}, so that it is taken as a hub id; did you mean {near}?"));
    }
}

/// Prints what a user should know about the reading of a model.
pub(super) fn notes(model: &Model, printer: Printer) -> Result<()> {
    model.notes.iter().try_for_each(|note| printer.info(note))
}

/// Reads the texts of a run, each file once. A file that cannot be opened is an error ahead of the reading.
pub(super) fn read_texts(
    tokenizer: &Tokenizer,
    train: &[PathBuf],
    eval: &[PathBuf],
    printer: Printer,
) -> Result<Texts> {
    for path in train.iter().chain(eval) {
        File::open(path).map_err(|source| tamt_data::Error::Io { action: "read", path: path.clone(), source })?;
    }
    let read = |files: &[PathBuf]| -> Result<Option<Arc<Corpus>>> {
        if files.is_empty() { Ok(None) } else { Ok(Some(Arc::new(read_corpus(tokenizer, files, printer)?))) }
    };
    let train_text = read(train)?;
    let eval_text = if eval == train { train_text.clone() } else { read(eval)? };
    Ok(Texts { train: train_text, eval: eval_text })
}

/// Reads a corpus, or takes its tokens from those of an earlier run, and shows the progress of a long reading.
pub(super) fn read_corpus(tokenizer: &Tokenizer, files: &[PathBuf], printer: Printer) -> Result<Corpus> {
    let cache = cache::tokens()?;
    let reading = Reading::new(printer);
    let progress = |read| reading.at(read);
    let note = |text: &str| reading.note(text);
    let options = ReadOptions { progress: Some(&progress), cache: cache.as_ref(), note: Some(&note) };
    let corpus = Corpus::read(files, tokenizer, options)?;
    drop(reading);
    printer.audience().map_or(Ok(()), Audience::check)?;
    if corpus.cut_lines > 0 {
        let (lines, bytes) = (grouped(corpus.cut_lines as u64), grouped(LONGEST_LINE as u64));
        printer
            .info(&format!("lines of more than {bytes} bytes in the text, which are cut ahead of a space: {lines}"))?;
    }
    Ok(corpus)
}

/// Opens the directory of a run, and tells what a person should know about it. A signal meanwhile waits, so that no traces
/// are missed.
pub(super) fn open(
    path: &Path,
    table: &toml::Table,
    record: &Record,
    resume: bool,
    signals: &Signals,
    printer: Printer,
) -> Result<RunDir> {
    let directory = signals.watch(|| RunDir::create_with_defaults(path, table, record.defaults(), resume))?;
    directory.notes().iter().for_each(|note| printer.progress(note));
    Ok(directory)
}

/// Says that a chosen kernel has no effect, where no matrix is masked.
pub(super) fn note_kernel(common: &Common, printer: Printer) -> Result<()> {
    match common.kernel {
        None | Some(Kernel::Auto) => Ok(()),
        Some(_) => printer.info("no effect without masks: --kernel"),
    }
}

/// Refuses an output that is not a regular file, such as a device, or that the verb reads by whatever name: the atomic
/// rename would replace it.
///
/// # Errors
/// [`UsageError`] for a file that the verb reads: the text, the task file, or one of the subject.
pub(super) fn check_output(
    path: &Path,
    subject: &SubjectArgs,
    input: &TextSource,
    task_file: Option<&Path>,
) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => bail!("--output: {} is a directory", path.display()),
        Ok(metadata) if !metadata.is_file() => bail!("--output: {} is no regular file", path.display()),
        Ok(_) => {
            let mut read = subject_files(subject);
            read.push(("--input", file_of(input).to_owned()));
            read.extend(task_file.map(|file| ("--task-file", file.to_owned())));
            if let Some((flag, _)) = read.iter().find(|(_, file)| same_file(path, file)) {
                let path = path.display();
                bail!(UsageError(format!("--output: {path} is a file of {flag}, which it would replace")));
            }
        }
        Err(_) => {}
    }
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        bail!("--output: there is no directory {}; {}", directory.display(), what_is_at(directory));
    }
    Ok(())
}

/// The file of a source of texts.
fn file_of(source: &TextSource) -> &Path {
    match source {
        // Where a shell reads stdin from a file, this name leads to the file.
        TextSource::Stdin => Path::new("/dev/stdin"),
        TextSource::File(path) => path,
    }
}

/// The ticket's file, and the configuration, the tokenizer and the weights of a model in a directory, each with its
/// flag. What is no model has none: its reading fails with the reason. Files of the hub's cache are left out.
fn subject_files(subject: &SubjectArgs) -> Vec<(&'static str, PathBuf)> {
    let mut files: Vec<_> = subject.ticket.iter().map(|path| ("--ticket", Ticket::locate(path))).collect();
    if hub::is_hub_id(&subject.model) {
        return files;
    }
    let Ok(directory) = hub::resolve(&subject.model) else { return files };
    let settings = ["config.json", MODULES_FILE, SENTENCE_FILE].map(|name| directory.join(name));
    files.extend(settings.into_iter().chain(Tokenizer::files_in(&directory)).map(|file| ("--model", file)));
    if let Ok(weights) = Checkpoint::open(&directory) {
        files.extend(iter::once(weights.path()).chain(weights.files()).map(|file| ("--model", file.to_owned())));
    }
    files
}

/// The masks of the ticket at `path` for `base`; `None` without a path.
pub(super) fn masks(base: &Base, path: Option<&Path>, allow_other_base: bool) -> Result<Option<Masks>> {
    let Some(path) = path else { return Ok(None) };
    Ok(Some(base.masks_of(&Ticket::read(path)?, allow_other_base)?))
}

/// The result of the run in `directory`, after a notice, if the run has finished. `goes_on_after` says whether more steps
/// than a number can follow.
pub(super) fn finished(
    directory: &RunDir,
    goes_on_after: impl FnOnce(u64) -> bool,
    printer: Printer,
) -> Result<Option<Map<String, Value>>> {
    if !directory.finished() {
        return Ok(None);
    }
    directory.retire_checkpoints_of_finished(goes_on_after)?;
    printer.info("this run has finished; its result was:")?;
    Ok(Some(read_eval_results(directory.path())?))
}

/// The text of a step, for the headline of a run: the losses of steps depend on the block size.
pub(super) fn batch(sequences: usize, block_size: usize) -> String {
    let plural = if sequences == 1 { "" } else { "s" };
    format!("{sequences} sequence{plural} of {block_size} tokens")
}

/// The steps and the time of a result, as a line.
pub(super) fn steps_line(result: &Map<String, Value>) -> String {
    let number = |key: &str| result.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    format!("{} steps in {}\n", number("steps"), duration(number("seconds")))
}

/// The metrics of a result as `name value`, with two spaces between, and the text they were measured on; `None` if there
/// are none.
pub(super) fn metrics_line(result: &Map<String, Value>) -> Option<String> {
    let values = EVALUATION.iter().filter_map(|name| Some((name, result.get(*name)?.as_f64()?)));
    let mut shown: Vec<String> = values.map(|(name, value)| format!("{} {}", label(name), metric(value))).collect();
    if shown.is_empty() {
        return None;
    }
    // The results of old runs do not say what they were measured on.
    let how = |key: &str| result.get("evaluation")?.get(key)?.as_u64();
    shown.extend(how("tokens").zip(how("block_size")).map(|(tokens, block_size)| text_of(tokens, block_size)));
    Some(shown.join("  "))
}

/// The rates of a ticket matrix by matrix.
pub(super) fn rates_table(rates: &Rates) -> String {
    let mut headings = vec!["matrix", "rows", "cols", "kept", "sparsity"];
    headings.extend(rates.jaccard.map(|_| "jaccard"));
    let mut table = Table::new(&headings);
    for matrix in &rates.matrices {
        let cells = [
            matrix.name.clone(),
            grouped(matrix.rows as u64),
            grouped(matrix.cols as u64),
            grouped(matrix.kept as u64),
            format!("{:.6}", matrix.sparsity),
        ];
        let jaccard = matrix.jaccard.map(|jaccard| format!("{jaccard:.6}"));
        table.row(cells.into_iter().chain(jaccard));
    }
    table.render()
}

/// The rates of a ticket overall.
pub(super) fn rates_summary(rates: &Rates) -> String {
    let mut text = String::new();
    let in_encoder = |name: &str| name.contains("encoder.layer.");
    for (label, sparsity, all) in
        [("encoder only", rates.encoder_sparsity, false), ("all prunable", rates.sparsity, true)]
    {
        let counted = rates.matrices.iter().filter(|matrix| all || in_encoder(&matrix.name));
        let (n, kept) = counted.fold((0, 0), |(n, kept), m| (n + m.rows * m.cols, kept + m.kept));
        let (n, kept) = (grouped(n as u64), grouped(kept as u64));
        text.push_str(&format!("{label}: sparsity {sparsity:.6}, {kept} of {n} weights kept\n"));
    }
    let emptied: Vec<&str> = rates.matrices.iter().filter(|m| m.kept == 0).map(|m| m.name.as_str()).collect();
    if !emptied.is_empty() {
        text.push_str(&format!("no weight is kept of {}\n", emptied.join(", ")));
    }
    if let Some(jaccard) = rates.jaccard {
        text.push_str(&format!("similarity: {jaccard:.6}, the mean of the matrices' Jaccard indices\n"));
    }
    text
}
