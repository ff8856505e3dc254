//! The result of `tamt eval` in a directory: `eval_results.json`, and the settings in `config.toml`.

use anyhow::Result;
use serde_json::{Map, Value};
use tamt::run::{RunDir, VerbSettings, write_eval_results};
use tamt::ticket::Ticket;
use tamt_data::Tokenizer;
use tamt_model::digest::sha256_file;
use toml::Table;

use crate::args::eval::EvalArgs;
use crate::record;
use crate::recorded_path;
use crate::resolve;

/// Refuses a directory that holds a run, ahead of the work.
pub(super) fn check(args: &EvalArgs) -> Result<()> {
    args.output_dir.as_deref().map_or(Ok(()), |directory| Ok(RunDir::check(directory, false)?))
}

/// Adds the digests of the model's weights and of its tokenizer.
pub(super) fn add_digests_of_model(settings: &mut Table, weights: &str, tokenizer: &Tokenizer) {
    settings.insert("base-sha256".to_owned(), weights.into());
    settings.insert("tokenizer-sha256".to_owned(), record::tokenizer_digest(tokenizer).into());
}

/// Writes a result where the flags ask for it. `settings` gives those of the measurement, with digests of its inputs, which
/// are read for a record alone.
pub(super) fn write(args: &EvalArgs, settings: impl FnOnce() -> Result<Table>, result: &Value) -> Result<()> {
    let Some(path) = &args.output_dir else { return Ok(()) };
    let Value::Object(result) = result else { return Ok(()) };
    let mut settings = settings()?;
    settings.insert("model".to_owned(), recorded_path::model(&args.subject.model).into());
    if let Some(ticket) = &args.subject.ticket {
        settings.insert("ticket".to_owned(), recorded_path::path(ticket).into());
        settings.insert("ticket-sha256".to_owned(), sha256_file(&Ticket::locate(ticket))?.into());
    }
    if args.subject.allow_other_base {
        settings.insert("allow-other-base".to_owned(), true.into());
    }
    let compute = Table::try_from(resolve::compute(&args.common))?;
    settings.extend(compute);
    let directory = RunDir::create(path, &VerbSettings::new("eval", &settings), false)?;
    let mut result: Map<String, Value> = result.clone();
    result.insert("output_dir".to_owned(), path.to_string_lossy().into());
    write_eval_results(directory.path(), &result)?;
    Ok(())
}
