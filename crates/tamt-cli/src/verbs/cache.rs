//! `tamt cache`: lists or removes the stored tokens of texts.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tamt_data::{Stored, TokenCache};

use crate::args::cache::{CacheAction, CacheArgs};
use crate::cache::tokens;
use crate::printer::{Printer, Table, grouped};
use crate::progress::duration;

pub(super) fn run(args: &CacheArgs, printer: Printer) -> Result<()> {
    let Some(cache) = tokens()? else {
        let text = "no tokens are stored: TAMT_CACHE_SIZE is 0, or there is no cache directory";
        return printer.result(&json!({ "path": null, "entries": [] }), text);
    };
    match args.action {
        Some(CacheAction::Clear) => clear(&cache, printer),
        None => list(&cache, printer),
    }
}

fn clear(cache: &TokenCache, printer: Printer) -> Result<()> {
    let folder = cache.folder().display();
    let (removed, bytes) = cache.clear().with_context(|| format!("cannot clear {folder}"))?;
    let json = json!({ "path": cache.folder().to_string_lossy(), "removed": removed, "bytes": bytes });
    let text = format!("{removed} texts removed from {folder}, {} MB", megabytes(bytes));
    printer.result(&json, &text)
}

fn list(cache: &TokenCache, printer: Printer) -> Result<()> {
    let stored = cache.stored().with_context(|| format!("cannot read {}", cache.folder().display()))?;
    let bytes = stored.iter().map(|entry| entry.bytes).sum();
    let json = json!({
        "path": cache.folder().to_string_lossy(),
        "bytes": bytes,
        "limit": cache.limit(),
        "entries": stored.iter().map(object).collect::<Vec<_>>(),
    });
    let mut table = Table::new(&["tokens", "MB", "last used", "text"]);
    for entry in &stored {
        let tokens = entry.tokens.map_or_else(|| "damaged".to_owned(), grouped);
        let age = entry.used.elapsed().unwrap_or_default().as_secs_f64();
        table.row([tokens, megabytes(entry.bytes), format!("{} ago", duration(age)), entry.files.join(", ")]);
    }
    let mut text = format!("{}\n", cache.folder().display());
    if !stored.is_empty() {
        text.push_str(&table.render());
    }
    let limit = megabytes(cache.limit());
    text.push_str(&format!("{} texts, {} of at most {limit} MB\n", stored.len(), megabytes(bytes)));
    printer.result(&json, &text)
}

fn object(entry: &Stored) -> Value {
    json!({
        "file": entry.path.to_string_lossy(),
        "bytes": entry.bytes,
        "tokens": entry.tokens,
        "texts": entry.files,
        "seconds_since_use": entry.used.elapsed().unwrap_or_default().as_secs(),
    })
}

/// Megabytes with a decimal.
fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
