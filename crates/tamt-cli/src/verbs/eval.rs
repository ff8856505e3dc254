//! `tamt eval`: a model, dense or under a ticket, on text or on a task.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use tamt::base::Base;
use tamt::evaluate::{EvalText, Evaluation, Wanted};
use tamt::mlm_head::{HEAD_FILE, HeadWeights};
use tamt::ticket::Ticket;
use tamt_data::{Blocks, Corruption, Tail};

use super::{shared, task};
use crate::args::EvalArgs;
use crate::args::values::{EvalHead, EvalObjective};
use crate::exit::UsageError;
use crate::printer::{Printer, Table, grouped, metric};
use crate::progress::Counter;
use crate::resolve;

/// Default number of tokens in a sequence.
const BLOCK_SIZE: usize = 512;

pub(super) fn run(args: &EvalArgs, printer: Printer) -> Result<()> {
    if args.corpus.is_empty() {
        return task::evaluate(args, printer);
    }
    let head = head_file(args)?;
    let mut base = Base::load(&args.subject.model)?;
    let masks = shared::masks(&base, args.subject.ticket.as_deref(), args.subject.allow_other_base)?;
    if let Some(path) = head {
        // What a model without a head gets first is replaced at once.
        base.model = base.model.with_new_mlm_head(args.seed);
        HeadWeights::read(&base.model, &path)?.swap(&mut base.model);
    }
    let wanted = wanted(args.objective, base.model.mlm_head.is_some())?;
    let text = text(args, &base, printer)?;

    let mut counter = Counter::new(printer, "eval", "tokens", text.tokens());
    // The dense model is at no distance from itself.
    let computed = Wanted { kd: wanted.kd && masks.is_some(), ..wanted };
    let mut evaluation = text.evaluate(&mut base.model, masks.as_ref(), computed, None, |done| counter.at(done))?;
    drop(counter);
    if wanted.kd && masks.is_none() {
        evaluation = Evaluation { kd_cosine: Some(0.0), kd_mse: Some(0.0), ..evaluation };
    }
    if wanted.mlm && evaluation.mlm_loss.is_none() {
        printer.info("no token was chosen to be predicted, so there is no MLM loss; give more text")?;
    }
    printer.result(&serde_json::to_value(evaluation)?, &result_text(&evaluation))
}

/// The file of the MLM head to predict with, unless it is the model's own.
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

fn wanted(objective: Option<EvalObjective>, has_head: bool) -> Result<Wanted> {
    let wanted = match objective {
        None => Wanted { mlm: has_head, kd: true },
        Some(EvalObjective::Mlm) => Wanted { mlm: true, kd: false },
        Some(EvalObjective::Kd) => Wanted { mlm: false, kd: true },
        Some(EvalObjective::All) => Wanted { mlm: true, kd: true },
    };
    if wanted.mlm && !has_head {
        return Err(tamt::Error::from(tamt_model::Error::NoMlmHead).into());
    }
    Ok(wanted)
}

fn text(args: &EvalArgs, base: &Base, printer: Printer) -> Result<EvalText> {
    let block_size = args.block_size.map_or_else(|| BLOCK_SIZE.min(base.max_length()), usize::from);
    base.check_block_size(block_size)?;
    let corruption = Corruption { probability: args.mlm_probability as f32, ..Corruption::default() };
    corruption.validate().map_err(tamt::Error::from)?;
    let mut corpus = shared::read_corpus(&base.tokenizer, &args.corpus, printer)?;
    let all = corpus.tokens.len();
    if let Some(limit) = args.max_tokens.map(usize::from).filter(|limit| *limit < all) {
        corpus.tokens.truncate(limit);
        let (limit, all) = (grouped(limit as u64), grouped(all as u64));
        printer.info(&format!("only the first {limit} of {all} tokens of the text are evaluated"))?;
    }
    let specials = base.tokenizer.specials();
    let blocks = Blocks::new(Arc::new(corpus), block_size, Tail::Keep, specials).map_err(tamt::Error::from)?;
    Ok(EvalText::new(blocks, *specials, corruption.probability, args.seed).with_compute(resolve::compute(&args.common)))
}

fn result_text(evaluation: &Evaluation) -> String {
    let mut table = Table::new(&["measure", "value"]);
    table.row(["tokens".to_owned(), grouped(evaluation.tokens)]);
    if let Some(masked) = evaluation.masked_tokens {
        table.row(["masked_tokens".to_owned(), grouped(masked)]);
    }
    for (name, value) in evaluation.metrics() {
        table.row([name.to_owned(), metric(value)]);
    }
    table.render()
}
