//! Labels of a run that no study started, from its settings and from tickets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tamt_files::digest::sha256_file;
use tamt_study::labels::{DENSE, Labels};
use tamt_study::record::{RECORD_FILE, TICKET_FILE};

use crate::names::trains_masks;
use crate::read::settings;
use crate::run::Kind;
use crate::ticket::TicketReader;

/// The tickets that runs are found to use: by the digest of the file.
pub(super) type TicketsByDigest = BTreeMap<String, PathBuf>;

/// The digests of the tickets in `directories`. Runs of a study name their tickets, so no digest is needed among them.
pub(super) fn tickets_by_digest(directories: &[PathBuf]) -> TicketsByDigest {
    if directories.iter().all(|directory| directory.join(RECORD_FILE).exists()) {
        return TicketsByDigest::new();
    }
    let entry = |directory: &PathBuf| {
        let digest = sha256_file(&directory.join(TICKET_FILE)).ok()?;
        Some((digest, directory.clone()))
    };
    directories.iter().filter_map(entry).collect()
}

/// The kind of a run by its settings.
pub(super) fn kind(settings: &BTreeMap<String, String>) -> Result<Kind, String> {
    match settings.get("verb").map(String::as_str) {
        Some("find") => Ok(Kind::Find),
        Some("tune") => Ok(Kind::Tune),
        Some("pretrain") => Ok(Kind::Pretrain),
        Some(other) => Err(format!("a run of `tamt {other}` is no part of a report")),
        None => Err("config.toml names no verb".to_owned()),
    }
}

/// The labels of a run.
pub(super) fn labels(
    kind: Kind,
    settings: &BTreeMap<String, String>,
    tickets: &TicketsByDigest,
    reader: &dyn TicketReader,
) -> Result<Labels, String> {
    let text = |key: &str| settings.get(key).cloned();
    let number = |key: &str| settings.get(key).and_then(|value| value.parse::<u64>().ok());
    let base = text("model").map_or_else(|| "base".to_owned(), |model| last_part(&model));
    match kind {
        Kind::Pretrain => Ok(Labels { base, method: DENSE.to_owned(), ..Labels::default() }),
        Kind::Find => Ok(Labels {
            base,
            method: text("method").ok_or("config.toml names no method")?,
            sparsity: settings.get("sparsity").and_then(|value| value.parse().ok()),
            scope: text("scope"),
            start: start(settings),
            ticket_seed: number("seed"),
            steps: number("train.max-steps"),
            ..Labels::default()
        }),
        Kind::Tune | Kind::Losses => {
            let mut labels = match text("ticket") {
                Some(path) => of_ticket(&path, settings, tickets, reader)?,
                None => Labels { method: DENSE.to_owned(), ..Labels::default() },
            };
            labels.base = base;
            labels.task = text("task");
            labels.seed = number("seed");
            labels.train_examples = number("train-examples");
            Ok(labels)
        }
    }
}

/// The masks that a search starts from, which its record has for every method.
fn start(settings: &BTreeMap<String, String>) -> Option<String> {
    let method = settings.get("method")?;
    settings.get("start").filter(|_| trains_masks(method)).cloned()
}

/// The labels of the ticket that a run was given: of the file with its digest among the runs of the report, else of the
/// file at its path.
fn of_ticket(
    path: &str,
    settings: &BTreeMap<String, String>,
    tickets: &TicketsByDigest,
    reader: &dyn TicketReader,
) -> Result<Labels, String> {
    let known = settings.get("ticket-sha256").and_then(|digest| tickets.get(digest));
    let given = known.cloned().unwrap_or_else(|| PathBuf::from(path));
    let (directory, file) = match given.parent() {
        Some(parent) if !given.is_dir() => (parent.to_owned(), given.clone()),
        _ => (given.clone(), given.join(TICKET_FILE)),
    };
    let ticket = reader.read(&file).map_err(|reason| format!("its ticket {path} cannot be read: {reason}"))?;
    // A ticket does not say which masks its search started from.
    let own_and_outer = directory.ancestors().take(2);
    let start = own_and_outer.map(settings::read).find_map(|settings| start(&settings.ok()?));
    Ok(Labels { ticket: Some(search_name(&directory)), start, ..ticket.labels })
}

/// The name of the search in a directory, with the folder of a ticket that is not the final one.
fn search_name(directory: &Path) -> String {
    let folder = last_part(&directory.display().to_string());
    match directory.parent() {
        // A directory with settings of its own is that of a search.
        Some(search)
            if ["step-", "sparsity-"].iter().any(|start| folder.starts_with(start))
                && !directory.join("config.toml").exists() =>
        {
            format!("{}/{folder}", last_part(&search.display().to_string()))
        }
        _ => folder,
    }
}

/// The last part of a path.
fn last_part(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}
