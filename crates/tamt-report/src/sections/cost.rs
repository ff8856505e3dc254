//! What it took: steps, tokens, operations, seconds, machines, settings and commands.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Block, Cell, Column, Number, Section, Statistic, Table, duration, scientific};
use crate::names::{Level, Method, count};
use crate::run::{Kind, Machine, Run};
use crate::sections::work::Works;
use crate::study::Study;

/// The section.
pub(super) fn section(study: &Study, works: &Works) -> Section {
    let seconds: f64 = study.runs.iter().filter_map(|run| run.seconds).sum();
    let kinds: Vec<String> = [Kind::Pretrain, Kind::Find, Kind::Losses, Kind::Tune]
        .into_iter()
        .filter_map(|kind| {
            let n = study.runs.iter().filter(|run| run.kind == kind).count();
            (n > 0).then(|| format!("{n} {}", kind.name()))
        })
        .collect();
    let sentence = format!(
        "{} ({}), {} of computation in all.",
        count(study.runs.len(), "run"),
        kinds.join(", "),
        duration(seconds)
    );
    let mut blocks = vec![Block::Finding(sentence), Block::Table(searches(study, works)), Block::Table(tunings(study))];
    blocks.retain(|block| !matches!(block, Block::Table(table) if table.rows.is_empty()));
    blocks.push(Block::Table(machines(study)));
    for kind in [Kind::Pretrain, Kind::Find, Kind::Losses, Kind::Tune] {
        let table = settings(study, kind);
        if !table.rows.is_empty() {
            blocks.push(Block::Details(format!("Settings of {} runs", kind.name()), vec![Block::Table(table)]));
        }
    }
    blocks.push(Block::Details("All runs, with their commands".to_owned(), vec![Block::Table(runs(study))]));
    Section { id: "cost", title: "Cost and commands".to_owned(), short: "Cost".to_owned(), blocks }
}

/// A quantity that is recorded or counted, the mean over runs.
fn recorded(values: &[f64], runs: &[usize], shown: impl Fn(f64) -> String) -> Cell {
    if values.is_empty() {
        return Cell::Empty;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let number = Number::new(mean, 0, Statistic::Recorded, "", runs.to_vec());
    Cell::Number(Number { text: Some(shown(mean)), ..number })
}

fn whole(value: f64) -> String {
    crate::document::fixed(value, 0)
}

fn searches(study: &Study, works: &Works) -> Table {
    let mut groups: BTreeMap<(String, _, _, u64), Vec<usize>> = BTreeMap::new();
    for file in study.tickets.iter().filter(|file| study.runs[file.run].labels.steps.unwrap_or(0) == file.ticket.steps)
    {
        let key = (file.ticket.base.clone(), file.ticket.method.clone(), file.ticket.level, file.ticket.steps);
        groups.entry(key).or_default().push(file.run);
    }
    let row = |((base, method, level, _), runs): (&(String, Method, Level, u64), &Vec<usize>)| {
        let of = |value: &dyn Fn(usize) -> Option<f64>| runs.iter().filter_map(|&run| value(run)).collect::<Vec<f64>>();
        let steps = |run: usize| study.runs[run].number("steps");
        let work = |run: usize| Some((works.of(run)?, steps(run)?));
        vec![
            Cell::text(base.clone()),
            Cell::text(method.to_string()),
            Cell::text(level.to_string()),
            Cell::text(runs.len().to_string()),
            recorded(&of(&steps), runs, whole),
            recorded(&of(&|run| work(run).map(|(work, steps)| work.tokens * steps)), runs, scientific),
            recorded(&of(&|run| work(run).and_then(|(work, steps)| Some(work.flop? * steps))), runs, scientific),
            recorded(&of(&|run| study.runs[run].seconds), runs, duration),
        ]
    };
    let mut table = Table {
        id: "cost-search".to_owned(),
        caption: "Searches for tickets: means over seeds. Tokens are those of all batches; operations are those of \
                  products with weight matrices, counted as if dense."
            .to_owned(),
        columns: ["base", "method", "sparsity", "runs", "steps", "tokens", "operations", "time"]
            .map(Column::new)
            .into(),
        rows: groups.iter().map(row).collect(),
    };
    if study.bases().len() == 1 {
        drop_first(&mut table);
    }
    table
}

/// Drops the column of base models, where there is one.
fn drop_first(table: &mut Table) {
    table.columns.remove(0);
    table.rows.iter_mut().for_each(|row| drop(row.remove(0)));
}

fn tunings(study: &Study) -> Table {
    let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for score in &study.scores {
        let key = (score.ticket.base.clone(), score.task.clone(), score.examples);
        groups.entry(key).or_default().push(score.run);
    }
    let mut rows = Vec::new();
    for ((base, task, examples), runs) in &groups {
        let of = |value: &dyn Fn(&Run) -> Option<f64>| {
            runs.iter().filter_map(|&run| value(&study.runs[run])).collect::<Vec<f64>>()
        };
        rows.push(vec![
            Cell::text(base.clone()),
            Cell::text(task.to_string()),
            recorded(&[*examples as f64], runs, whole),
            Cell::text(runs.len().to_string()),
            recorded(&of(&|run| run.number("steps")), runs, whole),
            recorded(&of(&|run| run.seconds), runs, duration),
        ]);
    }
    let mut table = Table {
        id: "cost-tuning".to_owned(),
        caption: "Fine-tuning: means over tickets and seeds.".to_owned(),
        columns: ["base", "task", "training examples", "runs", "steps", "time"].map(Column::new).into(),
        rows,
    };
    if study.bases().len() == 1 {
        drop_first(&mut table);
    }
    table
}

fn machines(study: &Study) -> Table {
    let mut groups: BTreeMap<(&Machine, Option<&String>), Vec<usize>> = BTreeMap::new();
    for (i, run) in study.runs.iter().enumerate() {
        groups.entry((&run.machine, run.tool_version.as_ref())).or_default().push(i);
    }
    let text = |value: Option<String>| value.map_or(Cell::Empty, Cell::text);
    let row = |((machine, version), runs): (&(&Machine, Option<&String>), &Vec<usize>)| {
        let seconds: f64 = runs.iter().filter_map(|&run| study.runs[run].seconds).sum();
        let time = Number::new(seconds, 0, Statistic::Recorded, "", runs.clone());
        vec![
            text(machine.cpu.clone()),
            text(machine.threads.map(|threads| threads.to_string())),
            text(machine.precision.clone()),
            text(version.cloned()),
            Cell::text(runs.len().to_string()),
            Cell::Number(Number { text: Some(duration(seconds)), ..time }),
        ]
    };
    Table {
        id: "machines".to_owned(),
        caption: "Machines, with the time of all their runs.".to_owned(),
        columns: ["processor", "threads", "precision", "tamt", "runs", "time"].map(Column::new).into(),
        rows: groups.iter().map(row).collect(),
    }
}

/// Most values of a setting that are listed.
const MOST_VALUES: usize = 8;

/// The settings of a kind of run: the value that all have, or the values.
fn settings(study: &Study, kind: Kind) -> Table {
    let runs: Vec<&Run> = study.runs.iter().filter(|run| run.kind == kind && !run.settings.is_empty()).collect();
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    let row = |key: &&String| {
        let values: BTreeSet<&str> =
            runs.iter().map(|run| run.settings.get(*key).map_or("(not set)", String::as_str)).collect();
        let shown: Vec<&str> = values.iter().copied().take(MOST_VALUES).collect();
        let more = values.len().saturating_sub(MOST_VALUES);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        vec![Cell::Code((*key).clone()), Cell::Code(format!("{}{more}", shown.join(", ")))]
    };
    Table {
        id: format!("settings-{}", kind.name()),
        caption: format!("Settings of {}, from their config.toml.", count(runs.len(), &format!("{} run", kind.name()))),
        columns: ["setting", "values"].map(Column::new).into(),
        rows: keys.iter().map(row).collect(),
    }
}

fn runs(study: &Study) -> Table {
    let row = |run: &Run| {
        vec![
            Cell::text(run.name.clone()),
            Cell::text(run.kind.name()),
            Cell::text(run.seconds.map(duration).unwrap_or_default()),
            Cell::Code(run.command_line()),
            Cell::Code(run.id.clone().unwrap_or_default()),
        ]
    };
    Table {
        id: "runs".to_owned(),
        caption: "All runs of the report. The digest is that of settings and inputs.".to_owned(),
        columns: ["run", "kind", "time", "command", "digest"].map(Column::new).into(),
        rows: study.runs.iter().map(row).collect(),
    }
}
