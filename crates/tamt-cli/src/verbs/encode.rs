//! `tamt encode`: turns texts into vectors.

use std::fs;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tamt::encode::encode;
use tamt::sentence::encode_settings;
use tamt_files::text::BYTE_ORDER_MARK;

use crate::args::encode::EncodeArgs;
use crate::args::values::TextSource;
use crate::exit::UsageError;
use crate::printer::{Printer, grouped};
use crate::progress::{Counter, Heartbeat};
use crate::resolve;
use crate::verbs::shared;

pub(super) fn run(args: &EncodeArgs, printer: Printer) -> Result<()> {
    if args.output.as_os_str() == "-" {
        bail!(UsageError("--output: vectors are written to a file, not to stdout".to_owned()));
    }
    shared::check_output(&args.output, &args.subject, &args.input, None)?;
    let base = shared::base_as(&args.subject.model, shared::storage(&args.subject), printer)?;
    let choices = args.vectors.choices(args.pool);
    let (settings, notes) = encode_settings(&base, choices)?;
    notes.iter().try_for_each(|note| printer.info(note))?;
    let masks = shared::masks(&base, args.subject.ticket.as_deref(), args.subject.allow_other_base)?;
    let text = read(&args.input)?;
    let texts: Vec<&str> = text.lines().collect();
    if texts.is_empty() {
        bail!("{} holds no line to encode", args.input.name().display());
    }
    let mut counter = Counter::new(printer, "encode", "texts", texts.len() as u64);
    let compute = resolve::compute(&args.common);
    let encoded = encode(&base, masks.as_ref(), compute, &texts, &settings, |done| counter.at(done))?;
    drop(counter);
    let heartbeat = Heartbeat::start(printer, "writing the vectors");
    encoded.write(&args.output)?;
    drop(heartbeat);
    let (count, hidden) = (encoded.texts(), base.model.config.hidden_size);
    let json = json!({ "output": args.output.to_string_lossy(), "texts": count, "hidden_size": hidden });
    let shown = grouped(count as u64);
    printer.result(&json, &format!("{shown} texts, {hidden} values a vector: {}", args.output.display()))
}

/// The input, as text without a byte order mark.
fn read(source: &TextSource) -> Result<String> {
    let bytes = match source {
        TextSource::Stdin => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
            bytes
        }
        TextSource::File(path) => {
            fs::read(path).map_err(|source| tamt_data::Error::Io { action: "read", path: path.clone(), source })?
        }
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        not_text(source, error.as_bytes(), offset, &format!("byte {:#04x}", error.as_bytes()[offset]))
    })?;
    match text.find('\0') {
        Some(offset) => Err(not_text(source, text.as_bytes(), offset, "a NUL byte").into()),
        None => Ok(text.strip_prefix(BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text)),
    }
}

fn not_text(source: &TextSource, bytes: &[u8], offset: usize, what: &str) -> tamt_data::Error {
    let line = 1 + bytes[..offset].iter().filter(|&&byte| byte == b'\n').count();
    tamt_data::Error::NotText { path: source.name(), line, offset, what: what.to_owned() }
}
