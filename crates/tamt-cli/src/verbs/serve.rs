//! `tamt serve`: vectors and predictions over HTTP.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde_json::json;
use tamt::Compute;
use tamt::base::Base;
use tamt::encode::{EncodeSettings, Encoder};
use tamt::predict::Classifier;
use tamt::sentence::encode_settings;
use tamt::ticket::Ticket;
use tamt::tune::TaskModel;
use tamt_model::digest::sha256_file;
use tamt_model::{Masks, Storage};
use tamt_serve::{Kind, Models, Served, Server, Settings};

use crate::args::serve::{LimitArgs, ServeArgs};
use crate::args::values::Named;
use crate::exit::{ServerEnded, UsageError};
use crate::printer::{Printer, grouped};
use crate::progress::Heartbeat;
use crate::resolve;
use crate::signals::Signals;
use crate::verbs::shared;

/// The variable with the key, which a list of processes does not show.
const KEY_VARIABLE: &str = "TAMT_API_KEY";

/// The longest time-out, in seconds: a year.
const LONGEST: f64 = 365.0 * 86_400.0;

pub(super) fn run(args: &ServeArgs, printer: Printer) -> Result<()> {
    let signals = Signals::listen_without_run(printer)?;
    let settings = settings(args)?;
    let compute = resolve::compute(&args.common);
    let models = Models::new(models(args, compute, printer)?, compute)?;
    let heartbeat = Heartbeat::start(printer, "preparing the largest batches");
    let server = Server::bind(&args.address, models, settings)?;
    drop(heartbeat);

    let ending = server.ending();
    signals.at_stop("answering what was taken; once more to stop at once", move || ending.end());
    // An error is the number of a signal that is ending the process.
    let Ok(_hold) = signals.stop().hold() else { bail!("stopped by a signal") };
    let (address, bound) = (server.address(), server.memory_bound());
    let memory =
        bound.map_or_else(String::new, |bound| format!(", in at most {} MiB", grouped(bound.div_ceil(1 << 20))));
    printer.info(&format!("serving on http://{address}{memory}"))?;
    let answered = server.run()?;
    printer.result(&json!({ "address": address.to_string(), "answered": answered }), &said(answered))?;
    match signals.stop().requested() {
        Some(signal) => Err(ServerEnded { signal }.into()),
        None => Err(anyhow!("the server has ended by itself")),
    }
}

fn said(answered: u64) -> String {
    format!("{} requests answered", grouped(answered))
}

/// The models of the flags: tickets in their order, the dense model, heads in their order.
fn models(args: &ServeArgs, compute: Compute, printer: Printer) -> Result<Vec<Served>> {
    let mut all = Vec::new();
    if let Some(model) = &args.model {
        // A ticket needs the dense matrices.
        let storage = if args.ticket.is_empty() { Storage::Compact } else { Storage::Dense };
        let base = Arc::new(shared::base_as(model, storage, printer)?);
        let choices = args.vectors.choices(args.pool);
        let (settings, notes) = encode_settings(&base, choices)?;
        notes.iter().try_for_each(|note| printer.info(note))?;
        tamt::base::check_length("max-length", settings.max_length, &base.model)?;
        for Named { name, path } in &args.ticket {
            let masks = base.masks_of(&Ticket::read(path)?, args.allow_other_base)?;
            let ticket = Some(sha256_file(&Ticket::locate(path))?);
            all.push(encoder(name.clone(), &base, (Some(masks), ticket), compute, &settings));
        }
        if args.ticket.is_empty() || args.dense {
            let name = args.name.clone().unwrap_or_else(|| last_part(model));
            all.push(encoder(name, &base, (None, None), compute, &settings));
        }
    }
    for Named { name, path } in &args.head {
        let heartbeat = Heartbeat::start(printer, "reading a model");
        let (model, own) = TaskModel::load_own(path, None, Storage::Compact)?;
        drop(heartbeat);
        shared::notes(&model.model, printer)?;
        let sha256 = model.sha256.clone();
        let classifier = Classifier::new(model, own, compute)?;
        let kind = Kind::Classifier(Box::new(classifier));
        all.push(Served { name: name.clone(), sha256, ticket: None, kind });
    }
    Ok(all)
}

fn encoder(
    name: String,
    base: &Arc<Base>,
    (masks, ticket): (Option<Masks>, Option<String>),
    compute: Compute,
    settings: &EncodeSettings,
) -> Served {
    let encoder = Encoder::new(base.clone(), masks, compute);
    Served { name, sha256: base.sha256.clone(), ticket, kind: Kind::Encoder { encoder, settings: settings.clone() } }
}

/// The last part of a path or a hub id.
fn last_part(model: &OsStr) -> String {
    let absolute = Path::new(model).canonicalize().ok();
    let part = absolute.as_deref().unwrap_or(Path::new(model)).file_name();
    part.unwrap_or(model).to_string_lossy().into_owned()
}

fn settings(args: &ServeArgs) -> Result<Settings> {
    let LimitArgs { read_timeout, write_timeout, max_wait, .. } = &args.limits;
    let mut settings = Settings { api_key: api_key(args)?, ..Settings::default() };
    let limits = [
        (&mut settings.max_batch_tokens, args.limits.max_batch_tokens),
        (&mut settings.max_queue_tokens, args.limits.max_queue_tokens),
        (&mut settings.max_queue_bytes, args.limits.max_queue_bytes),
        (&mut settings.max_body_bytes, args.limits.max_body_bytes),
        (&mut settings.max_text_bytes, args.limits.max_text_bytes),
        (&mut settings.max_inputs, args.limits.max_inputs),
        (&mut settings.max_connections, args.limits.max_connections),
    ];
    for (limit, given) in limits {
        *limit = given.map_or(*limit, usize::from);
    }
    let times = [
        (&mut settings.max_wait, max_wait.map(|milliseconds| milliseconds / 1e3), "max-wait"),
        (&mut settings.read_timeout, *read_timeout, "read-timeout"),
        (&mut settings.write_timeout, *write_timeout, "write-timeout"),
    ];
    for (time, given, name) in times {
        let Some(seconds) = given else { continue };
        // A moment so far away may have no representation.
        if seconds > LONGEST {
            bail!(UsageError(format!("--{name}: {seconds} seconds is more than a year")));
        }
        *time = Duration::from_secs_f64(seconds);
    }
    settings.threads = rayon::current_num_threads();
    Ok(settings)
}

/// The key of the flag, or else that of the variable.
fn api_key(args: &ServeArgs) -> Result<Option<String>> {
    let (key, from) = match &args.api_key {
        Some(key) => (key.clone(), "--api-key"),
        None => match env::var(KEY_VARIABLE) {
            Ok(key) => (key, KEY_VARIABLE),
            Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => bail!("{KEY_VARIABLE} is not text"),
        },
    };
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
        bail!(UsageError(format!("{from}: a key is one or more ASCII characters without blanks")));
    }
    Ok(Some(key))
}
