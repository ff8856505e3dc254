//! The result of a demonstration on a terminal and as JSON.

use std::env;
use std::path::Path;

use serde_json::{Map, Value, json};
use tamt::demo::{MODEL_DIR, PretrainedBase, VALID_FILE};
use tamt_report::document::{Cell, Column, Table as Numbers};
use tamt_report::report::Report;
use tamt_report::sections::overview::overview;
use tamt_report::sections::paper_order::{Outcome as Shown, Step, sentences, steps};

use crate::printer::{Printer, Table};
use crate::shell;
use crate::verbs::demo::plan::{PLAN_FILE, STUDY_DIR};

/// What a demonstration found.
pub(super) struct Outcome<'a> {
    pub(super) root: &'a Path,
    pub(super) seed: u64,
    pub(super) base: PretrainedBase,
    pub(super) report: &'a Report,
}

impl Outcome<'_> {
    pub(super) fn print(&self, printer: Printer) -> anyhow::Result<()> {
        printer.result(&self.json(), &self.text())
    }

    fn json(&self) -> Value {
        let report = self.report;
        json!({
            "output_dir": self.root.to_string_lossy(),
            "seed": self.seed,
            "base": { "mlm_loss": self.base.mlm_loss, "mlm_accuracy": self.base.mlm_accuracy },
            "results": overview(&report.study).iter().flat_map(rows).collect::<Vec<_>>(),
            "order": steps(&report.study).iter().map(step).collect::<Vec<_>>(),
            "runs": report.study.runs.len(),
            "plan": self.root.join(PLAN_FILE).to_string_lossy(),
            "report": report.written.page.to_string_lossy(),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for numbers in overview(&self.report.study) {
            text.push_str(&format!("\n{}\n\n{}", numbers.caption, rendered(&numbers)));
        }
        text.push_str(
            "\nThe paper's order is trained > magnitude > random. Differences, each with its standard error:\n\n",
        );
        for sentence in sentences(&steps(&self.report.study)) {
            text.push_str(&format!("* {sentence}\n"));
        }
        text.push_str(&format!("\nTo look further:\n  {}\n", self.commands().join("\n  ")));
        text.push_str(&format!("\nreport: {}\n", self.report.written.page.display()));
        text
    }

    /// Commands to continue with, for a shell in the working directory.
    fn commands(&self) -> Vec<String> {
        // The path of the program as it was called, which need not be in the shell's search path.
        let program = env::args_os().next().map_or_else(|| "tamt".to_owned(), |name| shell::word(&name));
        let at = |name: &str| shell::word(self.root.join(name).as_os_str());
        let (plan, study, model) = (at(PLAN_FILE), at(STUDY_DIR), at(MODEL_DIR));
        let mut commands = vec![format!("{program} study {plan} --output-dir {study} --status")];
        let ticket = |method: &str| {
            let of_method = self.report.study.tickets.iter().filter(|file| file.ticket.method.name == method);
            let file = of_method.max_by_key(|file| file.ticket.level)?;
            Some(shell::word(file.path.as_ref()?.as_os_str()))
        };
        if let (Some(trained), Some(magnitude)) = (ticket("tamt-mlm"), ticket("magnitude")) {
            commands.push(format!("{program} inspect {trained} --against {magnitude}"));
            commands.push(format!("{program} eval --model {model} --ticket {trained} --corpus {}", at(VALID_FILE)));
        }
        commands
    }
}

fn rendered(numbers: &Numbers) -> String {
    let headings: Vec<String> = numbers.columns.iter().map(heading).collect();
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &numbers.rows {
        table.row(row.iter().map(|cell| match cell {
            Cell::Text(text) | Cell::Code(text) => text.clone(),
            Cell::Number(number) => number.shown(),
            Cell::Empty => String::new(),
        }));
    }
    table.render()
}

fn heading(column: &Column) -> String {
    if column.note.is_empty() { column.title.clone() } else { format!("{} {}", column.title, column.note) }
}

/// The rows as objects by heading.
fn rows(numbers: &Numbers) -> Vec<Value> {
    let value = |cell: &Cell| match cell {
        Cell::Text(text) | Cell::Code(text) => json!(text),
        Cell::Number(number) => json!(number.value),
        Cell::Empty => Value::Null,
    };
    let object = |row: &Vec<Cell>| -> Map<String, Value> {
        numbers.columns.iter().map(heading).zip(row.iter().map(value)).collect()
    };
    numbers.rows.iter().map(|row| Value::Object(object(row))).collect()
}

fn step(step: &Step) -> Value {
    let outcome = match step.outcome() {
        Shown::Shown => "shown",
        Shown::Reversed => "reversed",
        Shown::Open => "open",
    };
    json!({
        "measure": step.measure.key(),
        "sparsity": step.level.percent() / 100.0,
        "higher": step.higher.to_string(),
        "lower": step.lower.to_string(),
        "gain": step.gain,
        "standard_error": step.error,
        "pairs": step.pairs,
        "outcome": outcome,
    })
}
