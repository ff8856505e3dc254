//! `tamt eval`: measures a model, dense or under a ticket, on text or on a task.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tamt::base::Base;
use tamt::evaluate::{EvalConditions, EvalLosses, EvalText, Evaluation};
use tamt::metrics::label;
use tamt::mlm_head::{HEAD_FILE, HeadWeights};
use tamt::ticket::{EvalRecord, Ticket};
use tamt_data::Corruption;
use tamt_model::Model;
use tamt_model::digest::sha256_file;
use toml::Table;

use crate::args::eval::EvalArgs;
use crate::args::values::EvalHead;
use crate::exit::UsageError;
use crate::printer::{self, Printer, grouped, metric};
use crate::progress::Counter;
use crate::recorded_path;
use crate::resolve;
use crate::verbs::{kept, shared, task};

pub(super) fn run(args: &EvalArgs, printer: Printer) -> Result<()> {
    kept::check(args)?;
    if args.corpus.is_empty() {
        return task::evaluate(args, printer);
    }
    let head = head_file(args)?;
    let mut base = shared::base_as(&args.subject.model, shared::storage(&args.subject), printer)?;
    let ticket = args.subject.ticket.as_deref().map(Ticket::read).transpose()?;
    let masks_of = |ticket| base.masks_of(ticket, args.subject.allow_other_base);
    let masks = ticket.as_ref().map(masks_of).transpose()?;
    let recorded = ticket.as_ref().and_then(|ticket| ticket.provenance.evaluation.as_ref());
    let conditions = conditions(args, recorded, &base, printer)?;
    if let Some(path) = &head {
        if base.model.untied_decoder.is_some() {
            base.model.decoding_head().map_err(tamt::Error::from)?;
        }
        // A model without a head needs one to swap with.
        base.model = base.model.with_new_mlm_head(conditions.seed);
        HeadWeights::read(&base.model, path)?.swap(&mut base.model);
    }
    let wanted = wanted(args.objective, &base.model)?;
    let text = text(args, conditions, &base, printer)?;
    if recorded.is_some_and(|record| record.corpus_sha256 != text.corpus().digest) {
        printer.info("the text is not the one that `find` evaluated the ticket on, so losses differ")?;
    }

    let mut counter = Counter::new(printer, "eval", "tokens", text.tokens());
    // The distance of the dense model from itself is 0.
    let computed = EvalLosses { kd: wanted.kd && masks.is_some(), ..wanted };
    let mut evaluation = text.evaluate(&mut base.model, masks.as_ref(), computed, None, |done| counter.at(done))?;
    drop(counter);
    if wanted.kd && masks.is_none() {
        evaluation = Evaluation { kd_cosine: Some(0.0), kd_mse: Some(0.0), ..evaluation };
    }
    if wanted.mlm && evaluation.mlm_loss.is_none() {
        printer.info("no token was chosen to be predicted, so there is no MLM loss; give more text")?;
    }
    let result = serde_json::to_value(evaluation)?;
    kept::write(args, || settings(args, &base, &text, wanted, head.as_deref()), &result)?;
    printer.result(&result, &result_text(&evaluation))
}

/// The settings of a measurement, for its directory.
fn settings(
    args: &EvalArgs,
    base: &Base,
    text: &EvalText,
    wanted: EvalLosses,
    head_file: Option<&Path>,
) -> Result<Table> {
    let conditions = Table::try_from(text.conditions())?;
    let mut settings: Table = conditions.into_iter().map(|(key, value)| (key.replace('_', "-"), value)).collect();
    let objective = match (wanted.mlm, wanted.kd) {
        (true, true) => "all",
        (true, false) => "mlm",
        (false, _) => "kd",
    };
    let named_head = match &args.mlm_head {
        EvalHead::Pretrained => "pretrained".to_owned(),
        EvalHead::Ticket => "ticket".to_owned(),
        EvalHead::File(path) => recorded_path::path(path),
    };
    settings.insert("objective".to_owned(), objective.into());
    settings.insert("mlm-head".to_owned(), named_head.into());
    if let Some(path) = head_file {
        settings.insert("mlm-head-sha256".to_owned(), sha256_file(path)?.into());
    }
    if let Some(limit) = args.max_tokens {
        settings.insert("max-tokens".to_owned(), i64::try_from(limit.get()).unwrap_or(i64::MAX).into());
    }
    kept::add_digests_of_model(&mut settings, &base.sha256, &base.tokenizer);
    settings.insert("corpus".to_owned(), recorded_path::paths(&args.corpus));
    settings.insert("corpus-sha256".to_owned(), text.corpus().digest.clone().into());
    Ok(settings)
}

/// The file of the MLM head to predict with; `None` for the model's own head.
fn head_file(args: &EvalArgs) -> Result<Option<PathBuf>> {
    match (&args.mlm_head, &args.subject.ticket) {
        (EvalHead::Pretrained, _) => Ok(None),
        (EvalHead::File(path), _) => Ok(Some(path.clone())),
        (EvalHead::Ticket, Some(ticket)) => {
            let ticket = Ticket::locate(ticket);
            Ok(Some(ticket.parent().unwrap_or(Path::new("")).join(HEAD_FILE)))
        }
        (EvalHead::Ticket, None) => Err(UsageError("--mlm-head ticket: there is no --ticket".to_owned()).into()),
    }
}

fn wanted(objective: Option<EvalLosses>, model: &Model) -> Result<EvalLosses> {
    let wanted = objective.unwrap_or(EvalLosses { mlm: model.mlm_head.is_some(), kd: true });
    if wanted.mlm {
        model.decoding_head().map_err(tamt::Error::from)?;
    }
    Ok(wanted)
}

/// The block size and the masked positions: those of the flags, else those under which `find` evaluated the ticket, so that
/// the losses agree, else the defaults.
fn conditions(args: &EvalArgs, recorded: Option<&EvalRecord>, base: &Base, printer: Printer) -> Result<EvalConditions> {
    let usual = recorded.map_or_else(EvalConditions::default, |record| record.conditions);
    let conditions = EvalConditions {
        block_size: args.block_size.map_or_else(|| usual.block_size.min(base.max_length()), usize::from),
        seed: args.seed.unwrap_or(usual.seed),
        mlm_probability: args.mlm_probability.unwrap_or(usual.mlm_probability),
    };
    if recorded.is_some() && conditions == usual {
        let EvalConditions { block_size, seed, .. } = usual;
        printer
            .info(&format!("as `find` evaluated the ticket: blocks of {block_size} tokens, masked with seed {seed}"))?;
    } else if recorded.is_some() {
        let differences = [
            ("block size", usual.block_size.to_string(), conditions.block_size.to_string()),
            ("seed", usual.seed.to_string(), conditions.seed.to_string()),
            ("MLM probability", usual.mlm_probability.to_string(), conditions.mlm_probability.to_string()),
        ];
        let differences = differences.iter().filter(|(_, usual, here)| usual != here);
        let differences: Vec<String> =
            differences.map(|(name, usual, here)| format!("{name} {here} instead of {usual}")).collect();
        printer.info(&format!("not as `find` evaluated the ticket, so losses differ: {}", differences.join(", ")))?;
    }
    Ok(conditions)
}

fn text(args: &EvalArgs, conditions: EvalConditions, base: &Base, printer: Printer) -> Result<EvalText> {
    let EvalConditions { block_size, seed, mlm_probability } = conditions;
    base.check_block_size(block_size)?;
    let corruption = Corruption { probability: mlm_probability as f32, ..Corruption::default() };
    corruption.validate()?;
    let mut corpus = shared::read_corpus(&base.tokenizer, &args.corpus, printer)?;
    let all = corpus.tokens.len();
    if let Some(limit) = args.max_tokens.map(usize::from).filter(|limit| *limit < all) {
        corpus.tokens.truncate(limit);
        let (limit, all) = (grouped(limit as u64), grouped(all as u64));
        printer.info(&format!("only the first {limit} of {all} tokens of the text are evaluated"))?;
    }
    let compute = resolve::compute(&args.common);
    let text = EvalText::new(Arc::new(corpus), &base.tokenizer, block_size, corruption.probability, compute)?;
    Ok(text.with_seed(seed))
}

fn result_text(evaluation: &Evaluation) -> String {
    let mut table = printer::Table::new(&["measure", "value"]);
    table.row(["block size".to_owned(), grouped(evaluation.conditions.block_size as u64)]);
    table.row(["tokens".to_owned(), grouped(evaluation.tokens)]);
    if let Some(masked) = evaluation.masked_tokens {
        table.row(["masked tokens".to_owned(), grouped(masked)]);
    }
    for (name, value) in evaluation.metrics() {
        table.row([label(name).to_owned(), metric(value)]);
    }
    table.render()
}
