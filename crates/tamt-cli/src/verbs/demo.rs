//! `tamt demo`: all steps on an invented language, from pre-training to tickets of every method and tasks.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};
use tamt::demo::{
    DemoReport, DemoSettings, Loss, MODEL_DIR, TASKS_DIR, TRAIN_FILE, VALID_FILE, percent, run as demonstrate,
    write_data,
};
use tamt::find::Method;
use tamt_study::record::quoted;

use crate::args::demo::DemoArgs;
use crate::printer::{Printer, Table};
use crate::progress::{Progress, duration, text_of};
use crate::resolve;
use crate::signals::Signals;

pub(super) fn run(args: &DemoArgs, printer: Printer) -> Result<()> {
    let stop = Signals::listen(printer)?.stop();
    let mut settings = DemoSettings::default();
    settings.seed = args.seed.unwrap_or(settings.seed);
    settings.compute = resolve::compute(&args.common);
    if let Some(directory) = &args.data_only {
        write_data(&settings, directory)?;
        let json = serde_json::json!({ "output_dir": directory.to_string_lossy(), "seed": settings.seed });
        let shown = directory.display();
        let text = format!("tokenizer/, {TRAIN_FILE}, {VALID_FILE} and {TASKS_DIR}/ of the language are in {shown}");
        return printer.result(&json, &text);
    }
    let output = args.output_dir.display();
    printer.info(&format!("a demonstration with seed {}, minutes on two cores; output: {output}", settings.seed))?;
    let mut progress = Progress::new(printer);
    let report = demonstrate(&settings, &args.output_dir, args.resume, &mut progress, &stop)?;
    drop(progress);
    let json = serde_json::to_value(&report).context("the results are no JSON")?;
    printer.result(&json, &text(&report))
}

fn text(report: &DemoReport) -> String {
    let mut text = String::new();
    let on = text_of(report.eval_tokens, report.eval_block_size as u64);
    for loss in Loss::ALL {
        let (name, explanation, table) = (loss.name(), loss.explanation(), table(report, loss));
        text.push_str(&format!("\n{name}, {explanation}, by sparsity {on}\n\n{table}"));
    }
    if !report.scores.is_empty() {
        let table = score_table(report);
        text.push_str(&format!("\nScores on tasks, best on the development set, mean over seeds\n\n{table}"));
    }
    text.push_str(&format!("\n{}\n", report.findings().join("\n")));
    text.push_str(&format!("\n{} of runs; results.json, .md and .csv are in ", duration(report.seconds)));
    text.push_str(&format!("{}\n", report.output_dir.display()));
    let commands = commands(report);
    if !commands.is_empty() {
        text.push_str(&format!("\nTo look further:\n  {}\n", commands.join("\n  ")));
    }
    text
}

fn table(report: &DemoReport, loss: Loss) -> String {
    let headings: Vec<String> = report.sparsities().into_iter().map(percent).collect();
    let headings: Vec<&str> = ["method"].into_iter().chain(headings.iter().map(String::as_str)).collect();
    let mut table = Table::new(&headings);
    report.rows(loss).into_iter().for_each(|row| table.row(row));
    table.render()
}

fn score_table(report: &DemoReport) -> String {
    let tasks = report.tasks();
    let headings = ["ticket", "MLM loss", "KD loss"].into_iter().chain(tasks.iter().map(|(task, _)| *task));
    let headings: Vec<&str> = headings.chain(["average"]).collect();
    let mut table = Table::new(&headings);
    report.score_rows().iter().for_each(|row| table.row(row.cells()));
    table.render()
}

/// Commands to continue with on the files of the demonstration, for a shell in the working directory.
fn commands(report: &DemoReport) -> Vec<String> {
    let Some(at) = report.usual_sparsity() else { return Vec::new() };
    let Some(best) = report.best_trained(Loss::Mlm, at) else { return Vec::new() };
    // The path of the program as it was called, which need not be in the shell's search path.
    let program = env::args_os().next().map_or_else(|| "tamt".to_owned(), |name| quoted(&name.to_string_lossy()));
    let shown = |path: &Path| quoted(&path.to_string_lossy());
    let output = |name: &str| shown(&report.output_dir.join(name));
    let (model, ticket) = (output(MODEL_DIR), shown(&best.ticket));
    let mut commands = Vec::new();
    if let Some(magnitude) = report.ticket(Method::Magnitude, at) {
        commands.push(format!("{program} inspect {ticket} --against {}", shown(&magnitude.ticket)));
    }
    commands.push(format!(
        "{program} eval --model {model} --ticket {ticket} --corpus {} --objective all",
        output(VALID_FILE)
    ));
    commands.push(format!("{program} apply --model {model} --ticket {ticket} --output-dir {}", output("applied")));
    commands
}
