//! `tamt bench`: measures the speed of this machine.

use anyhow::Result;
use serde_json::json;
use tamt::Kernel;
use tamt::base::Base;
use tamt::bench::{BenchSettings, Report, Subject, Timing, bench};
use tamt::inspect::Rates;
use tamt::prune::Sparsity;
use tamt::ticket::Ticket;
use tamt_model::Config;

use crate::args::bench::BenchArgs;
use crate::exit::UsageError;
use crate::printer::{Printer, Table};
use crate::progress::Heartbeat;
use crate::resolve;

/// Default number of tokens in a sequence.
const LENGTH: usize = 128;

pub(super) fn run(args: &BenchArgs, printer: Printer) -> Result<()> {
    let heartbeat = Heartbeat::start(printer, "reading the model");
    let settings = settings(args)?;
    drop(heartbeat);
    let report = bench(&settings, |what| printer.progress(&format!("bench: {what}")))?;
    printer.result(&report.to_json(&settings), &text(&report, &settings))
}

fn settings(args: &BenchArgs) -> Result<BenchSettings> {
    let mut sparsities = args.sparsity.iter().map(|&share| Sparsity::new(share)).collect::<tamt::Result<Vec<_>>>()?;
    let (mut config, mut subject) = (None, None);
    if let Some(name) = &args.model {
        let base = Base::load(name)?;
        let ticket = args.ticket.as_deref().map(Ticket::read).transpose()?;
        if let Some(ticket) = &ticket {
            base.masks_of(ticket, args.allow_other_base)?;
            sparsities = vec![Sparsity::new(Rates::of(ticket, None).sparsity)?];
        }
        config = Some(base.model.config);
        subject = Some(Subject { name: base.name, directory: base.directory, ticket });
    }
    let config = config.map_or_else(|| random_config(args), Ok)?;
    Ok(BenchSettings {
        batch_size: args.batch_size.get(),
        length: args.length.map_or_else(|| LENGTH.min(config.max_length()), usize::from),
        dropout: args.dropout as f32,
        sparsities,
        kernels: match args.common.kernel {
            None => vec![Kernel::Dense, Kernel::Sparse],
            Some(kernel) => vec![kernel],
        },
        work: args.work.clone(),
        operations: !args.no_operations && subject.is_none(),
        config,
        subject,
        warmup: args.warmup,
        steps: args.steps,
        precision: resolve::compute(&args.common).precision,
    })
}

/// The shape that the flags describe.
fn random_config(args: &BenchArgs) -> Result<Config> {
    let ffn = args.ffn.map_or(args.hidden.get().saturating_mul(4), usize::from);
    let config = json!({
        "model_type": "bert",
        "vocab_size": args.vocab,
        "hidden_size": args.hidden,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "intermediate_size": ffn,
        "max_position_embeddings": args.length.map_or(LENGTH, usize::from).max(512),
        "type_vocab_size": 2,
    });
    Config::from_json(&config.to_string()).map_err(|error| of_flag(error, args))
}

/// An error about a size of a random model, with the flag that decides the size.
fn of_flag(error: tamt_model::Error, args: &BenchArgs) -> anyhow::Error {
    let (key, problem) = match error {
        tamt_model::Error::ConfigValue { key, problem } => (key, problem),
        other => return other.into(),
    };
    let (flag, subject) = match key {
        "vocab_size" => ("vocab", "it"),
        "num_hidden_layers" => ("layers", "it"),
        "num_attention_heads" => ("heads", "it"),
        "intermediate_size" if args.ffn.is_none() => ("hidden", "four times it, the inner size of the FFN,"),
        "intermediate_size" => ("ffn", "it"),
        "max_position_embeddings" => ("length", "it"),
        _ => ("hidden", "it"),
    };
    UsageError(format!("--{flag}: {subject} {problem}")).into()
}

fn text(report: &Report, settings: &BenchSettings) -> String {
    let config = &settings.config;
    let model = settings.subject.as_ref().map_or("a random model", |subject| &subject.name);
    let mut text = format!(
        "{}, {} threads; {model}: {} layers of width {}, {} x {} tokens\n",
        report.processor,
        report.threads,
        config.num_hidden_layers,
        config.hidden_size,
        settings.batch_size,
        settings.length
    );
    if let Some(peak) = report.peak_flops {
        text.push_str(&format!("multiply-adds on registers: {:.0} GFLOP/s\n", peak * 1e-9));
    }
    let density = 100.0 * report.sparse_up_to;
    text.push_str(&format!("the sparse kernel is taken up to a density of {density:.0} %\n\n"));
    let mut headings = vec!["operation", "kernel", "sparsity", "ms", "GFLOP/s"];
    headings.extend(report.peak_flops.map(|_| "of peak"));
    let mut table = Table::new(&headings);
    for timing in report.operations.iter().chain(&report.steps) {
        table.row(cells(timing, report.peak_flops));
    }
    text.push_str(&table.render());
    text.push_str("GFLOP/s count products only, and of sparse ones what the dense product would compute.\n");
    if let Some(bytes) = report.peak_rss_bytes {
        text.push_str(&format!("peak memory: {:.0} MiB\n", bytes as f64 / f64::from(1 << 20)));
    }
    text
}

fn cells(timing: &Timing, peak: Option<f64>) -> Vec<String> {
    let kernel = timing.kernel.map_or("", Kernel::name);
    let sparsity = timing.sparsity.map_or(String::new(), |sparsity| format!("{}", (sparsity * 1e4).round() / 1e4));
    let flops = timing.flops().map_or(String::new(), |flops| format!("{:.1}", flops * 1e-9));
    let milliseconds = format!("{:.3}", 1e3 * timing.median());
    let mut cells = vec![timing.name.clone(), kernel.to_owned(), sparsity, milliseconds, flops];
    if let Some(peak) = peak {
        cells.push(timing.flops().map_or(String::new(), |flops| format!("{:.0} %", 100.0 * flops / peak)));
    }
    cells
}
