//! The tables of docs/results.md, docs/analysis.md and the README about runs that docs/data has show the numbers of these
//! runs. The curve of the base, kept weights, masks and similarity of sentences come from no such run.

use std::collections::{BTreeMap, BTreeSet};

use tamt_report::names::{Level, Method};
use tamt_report::stats::rank::RankCorrelation;
use tamt_report::study::TicketKey;

use crate::runs::{Run, Runs, Scores, Tickets, mean};
use crate::tables::{Comparison, Table, sparsity, tables, whole};

mod figures;
mod runs;
mod tables;

/// The paper's claims.
const RESULTS: &str = "docs/results.md";

/// What decides the score of a ticket.
const ANALYSIS: &str = "docs/analysis.md";

/// The sparsity of the tickets that the tables have where they name no other.
const SPARSITY: f64 = 0.7;

/// The name of a task in `runs.csv` and in the tables; those of the averages come first.
const TASKS: [(&str, &str); 8] = [
    ("cola", "CoLA"),
    ("mrpc", "MRPC"),
    ("stsb", "STS-B"),
    ("sst2", "SST-2"),
    ("trec", "TREC"),
    ("subj", "Subj"),
    ("mr", "MR"),
    ("squad", "SQuAD"),
];

/// The tasks of the averages.
fn averaged() -> Vec<&'static str> {
    TASKS[..6].iter().map(|(task, _)| *task).collect()
}

fn task(shown: &str) -> Option<&'static str> {
    TASKS.iter().find(|(_, name)| *name == shown).map(|(task, _)| *task)
}

/// Expects each cell of the first table below the heading `title` of a document to be what `measured` says of its row
/// and column, and the table to have so many numbers.
#[track_caller]
fn compare_cells(document: &str, title: &str, count: usize, measured: impl Fn(&str, &str) -> f64) {
    let mut comparison = Comparison::default();
    for (row, column, printed) in tables(document, title)[0].cells() {
        comparison.number(printed, measured(row, column), &format!("{column}, {row}"));
    }
    comparison.finish(count);
}

/// Compares tables of losses and scores: a row for each method, columns for losses, tasks, and the average of the tasks.
fn compare_methods(comparison: &mut Comparison, runs: &Runs, table: &Table) {
    let (sparsity, seed) = (sparsity(&table.caption), (!table.has_deviations()).then_some(1));
    let tasks: Vec<&str> = table.header.iter().filter_map(|name| task(name)).collect();
    for (method, column, printed) in table.cells() {
        let tickets = Tickets { seed, ..Tickets::all(method, sparsity) };
        let place = format!("{column} of {method} at {sparsity}");
        if column.ends_with("loss") {
            comparison.number(printed, runs.loss(tickets, column), &place);
        } else if let Some(task) = task(column) {
            let scores: Vec<f64> = runs.scores(tickets, task, None).into_values().collect();
            comparison.mean(printed, &scores, &place);
        } else {
            assert_eq!(column, "average");
            let scores: Vec<Scores> = tasks.iter().map(|task| runs.scores(tickets, task, None)).collect();
            comparison.average(printed, &scores, &place);
        }
    }
}

#[test]
fn losses_and_scores_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let mut comparison = Comparison::default();
    let tables = tables(RESULTS, "Scores of the methods");
    let of_methods = tables.iter().filter(|table| table.rows.iter().any(|row| row[0] == "tamt-kd"));
    of_methods.for_each(|table| compare_methods(&mut comparison, &runs, table));
    comparison.finish(238);
}

#[test]
fn scores_on_squad_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    compare_cells(RESULTS, "Questions about a text", 7, |row, method| {
        runs.score(Tickets::first(method, SPARSITY), task(row).unwrap(), None)
    });
}

#[test]
fn losses_at_each_sparsity_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let mut comparison = Comparison::default();
    for table in tables(RESULTS, "Losses and scores").iter().filter(|table| table.header[0].ends_with("loss")) {
        for (method, column, printed) in table.cells() {
            let loss = runs.loss(Tickets::all(method, sparsity(column)), &table.header[0]);
            comparison.number(printed, loss, &format!("{} of {method} at {column}", table.header[0]));
        }
    }
    comparison.finish(2 * 6 * 6);
}

#[test]
fn losses_under_global_scope_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    compare_cells(ANALYSIS, "Global scope", 3 * 4, |method, column| {
        let (loss, scope) = column.split_once(", ").unwrap();
        runs.loss(Tickets { scope, ..Tickets::first(method, SPARSITY) }, loss)
    });
}

/// The rank correlation of a loss and the mean score on tasks with seed 1 of fine-tuning, over the tickets of local scope
/// that have these scores; with the order and the groups of the report, on which the bootstrap depends.
fn correlation(runs: &Runs, tasks: &[&str], loss: &str) -> RankCorrelation {
    let mut tickets = Vec::new();
    for run in runs.0.iter().filter(|run| run.kind == "losses" && run.scope.as_deref() == Some("local")) {
        let is_of_ticket = |tuned: &Run| {
            (&tuned.ticket, tuned.ticket_steps, tuned.tuning_seed) == (&run.ticket, run.ticket_steps, Some(1))
        };
        let of_task = |task: &&str| runs.tunings(task, None).find(|tuned| is_of_ticket(tuned))?.best_score;
        let Some(scores) = tasks.iter().map(of_task).collect::<Option<Vec<f64>>>() else { continue };
        let key = TicketKey {
            base: String::new(),
            method: Method { name: run.method.clone(), variant: String::new() },
            level: Level::of(run.sparsity.unwrap()),
            steps: run.ticket_steps.unwrap_or(0),
            seed: run.ticket_seed,
        };
        tickets.push((key, run, (mean(scores) * 1e9).round()));
    }
    tickets.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    // Tickets with one mask count once.
    let mut known = BTreeSet::new();
    tickets.retain(|(key, run, _)| {
        known.insert((key.level, ["MLM loss", "KD loss"].map(|loss| run.loss(loss).to_bits())))
    });
    let losses: Vec<f64> = tickets.iter().map(|(_, run, _)| run.loss(loss)).collect();
    let scores: Vec<f64> = tickets.iter().map(|(.., score)| *score).collect();
    let groups: Vec<_> = tickets.iter().map(|(key, ..)| (&key.method, key.level)).collect();
    RankCorrelation::of_clusters(&losses, &scores, &groups).unwrap()
}

#[test]
fn correlations_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let tables = tables(RESULTS, "Losses and scores");
    let table = tables.iter().find(|table| table.header[1] == "average").unwrap();
    let mut comparison = Comparison::default();
    for (loss, column, printed) in table.cells() {
        let (name, tickets) = column.split_once(", ").unwrap_or((column, "23 tickets"));
        let found = correlation(&runs, &task(name).map_or_else(averaged, |task| vec![task]), loss);
        let place = format!("{loss}, {column}");
        assert_eq!((format!("{} tickets", found.n).as_str(), found.clusters), (tickets, 18), "{place}");
        let (low, high) = found.interval.unwrap();
        comparison.numbers(printed, &[found.rho, low, high], found.is_clear(), &place);
    }
    comparison.finish(2 * 7 * 3);
}

#[test]
fn differences_of_methods_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let tables = tables(RESULTS, "Scores of the methods");
    let table = tables.iter().find(|table| table.rows[0][0].contains('−')).unwrap();
    let mut comparison = Comparison::default();
    for (row, column, printed) in table.cells() {
        let score = |method: &str, task: &str| runs.score(Tickets::all(method, sparsity(column)), task, None);
        comparison.difference(printed, row, &averaged(), score, column);
    }
    comparison.finish(9 * 3 * 4);
}

#[test]
fn averages_in_the_readme_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let mut comparison = Comparison::default();
    for (row, method, printed) in tables("README.md", "On a real encoder")[0].cells() {
        let seed = (!printed.contains('±')).then_some(1);
        let tickets = Tickets { seed, ..Tickets::all(method, sparsity(row)) };
        let scores: Vec<Scores> = averaged().iter().map(|task| runs.scores(tickets, task, None)).collect();
        comparison.average(printed, &scores, &format!("{method} at {row}"));
    }
    comparison.finish(28);
}

#[test]
fn scores_on_another_task_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm-mr.csv");
    compare_cells(RESULTS, "Another task", 7 + 5 + 7 + 3, |row, method| {
        let settings = recipe(row, &BTreeMap::new());
        let ticket_seed = if row.ends_with("second tickets") { 2 } else { 1 };
        let of_row =
            runs.chosen(|run| follows(run, &settings) && run.ticket_seed.is_none_or(|seed| seed == ticket_seed));
        of_row.score(Tickets::all(method, SPARSITY), "mr", None)
    });
}

#[test]
fn scores_with_a_dense_pooler_are_those_of_the_runs() {
    let [masked, dense] = ["docs/data/minilm.csv", "docs/data/minilm-pooler.csv"].map(Runs::read);
    compare_cells(ANALYSIS, "The mask of the pooler", 44, |row, method| {
        let (name, pooler) = row.split_once(", ").unwrap();
        let tickets = Tickets::first(method, sparsity(pooler));
        let runs = if pooler.ends_with("dense") { &dense } else { &masked };
        runs.score(tickets, task(name).unwrap(), None)
    });
}

/// The settings that a row of the recipes names, as `settings` of a run has them. "The same" is the recipe of the row above
/// but for the number of epochs.
fn recipe<'a>(row: &'a str, above: &BTreeMap<&'a str, f64>) -> BTreeMap<&'a str, f64> {
    let mut recipe = if row.starts_with("the same") { above.clone() } else { BTreeMap::new() };
    recipe.extend(row.split(", ").filter_map(|part| match part.split_once(' ') {
        Some((epochs, "epochs")) => Some(("epochs", epochs.parse().ok()?)),
        _ => Some(("learning-rate", part.parse().ok()?)),
    }));
    recipe
}

/// Whether a run has these settings, as far as its own name them: they lack what all runs of a task have.
fn follows(run: &Run, settings: &BTreeMap<&str, f64>) -> bool {
    let mut named = run.settings.iter().flat_map(|text| text.split(", ")).filter_map(|one| one.split_once(' '));
    named.all(|(key, value)| settings.get(key).is_none_or(|expected| value.parse() == Ok(*expected)))
}

#[test]
fn scores_of_recipes_are_those_of_the_runs() {
    let table = &tables(ANALYSIS, "Recipes of fine-tuning")[0];
    let [study, grid] = ["docs/data/minilm.csv", "docs/data/minilm-recipe.csv"].map(Runs::read);
    let mut comparison = Comparison::default();
    let (mut name, mut settings) = ("", BTreeMap::new());
    for row in &table.rows {
        settings = recipe(&row[0], &settings);
        name = row[0].split(", ").next().and_then(task).unwrap_or(name);
        let of_recipe = grid.chosen(|run| follows(run, &settings));
        for (method, printed) in table.header.iter().zip(row).skip(2).filter(|(_, printed)| !printed.is_empty()) {
            let tickets = Tickets::first(method, SPARSITY);
            // The grid lacks two methods in the recipes of the study.
            let found = of_recipe.scores(tickets, name, None);
            let value = if found.is_empty() { study.score(tickets, name, None) } else { mean(found.into_values()) };
            comparison.number(printed, value, &format!("{method}, {}", row[0]));
        }
    }
    comparison.finish(78);
}

#[test]
fn scores_on_sst2_in_another_recipe_are_those_of_the_runs() {
    let [study, other] = ["docs/data/minilm.csv", "docs/data/minilm-sst2.csv"].map(Runs::read);
    let of = |task: &str, tickets: Tickets<'_>| {
        let runs = if task == "sst2" { &other } else { &study };
        runs.scores(tickets, task, None)
    };
    let found = tables(ANALYSIS, "SST-2 at 3e-4");
    let [scores, differences, few_examples @ ..] = &found[..] else { panic!("{} tables", found.len()) };
    let mut comparison = Comparison::default();
    for (row, method, printed) in scores.cells() {
        let tickets = Tickets { seed: (!printed.contains('±')).then_some(1), ..Tickets::all(method, sparsity(row)) };
        let tasks = if row.ends_with("SST-2") { vec!["sst2"] } else { averaged() };
        let scores: Vec<Scores> = tasks.iter().map(|task| of(task, tickets)).collect();
        comparison.average(printed, &scores, &format!("{method}, {row}"));
    }
    for (row, column, printed) in differences.cells() {
        let score = |method: &str, task: &str| mean(of(task, Tickets::all(method, sparsity(column))).into_values());
        comparison.difference(printed, row, &averaged(), score, column);
    }
    compare_few_examples(&mut comparison, &other, few_examples);
    // Two of the six rows of scores have deviations; four rows have few examples with the first seeds, one with the second.
    comparison.finish((6 + 2) * 7 + 6 * 3 * 4 + (4 + 1) * 9);
}

/// Whether a search has the settings that a row of the searches names: "tamt-kd at 30 %, 3e-4, no dropout".
fn is_search_of(row: &str, run: &Run) -> bool {
    let mut parts = row.split(", ");
    let (method, level) = parts.next().map(|name| name.split_once(" at ").unwrap_or((name, "70 %"))).unwrap();
    let settings: BTreeSet<&str> = run.settings.iter().flat_map(|text| text.split(", ")).collect();
    let named: BTreeSet<String> = parts
        .filter(|part| *part != "the study")
        .map(|part| match part {
            "no dropout" => "dropout 0.0".to_owned(),
            "thresholds every 100 steps" => "rethreshold-every 100".to_owned(),
            rate => format!("learning-rate {}", rate.parse::<f64>().unwrap()),
        })
        .collect();
    let has = |setting: &str| settings.contains(setting) == named.contains(setting);
    run.kind == "find"
        && run.method == method
        && run.sparsity == Some(sparsity(level))
        && named.iter().all(|setting| settings.contains(setting.as_str()))
        && has("dropout 0.0")
        && has("rethreshold-every 100")
}

#[test]
fn losses_of_the_settings_of_searches_are_those_of_the_runs() {
    let [study, grid] = ["docs/data/minilm.csv", "docs/data/minilm-search.csv"].map(Runs::read);
    let mut comparison = Comparison::default();
    let table = &tables(ANALYSIS, "Settings of the searches")[0];
    for (row, column, printed) in table.cells().filter(|(_, column, _)| column.ends_with("loss")) {
        let value = if let Some((method, level)) = row.split_once(" at ").filter(|(method, _)| *method == "magnitude") {
            study.loss(Tickets::first(method, sparsity(level)), column)
        } else {
            let searches: Vec<&Run> = grid.0.iter().filter(|run| is_search_of(row, run)).collect();
            let [search] = searches[..] else { panic!("{} searches are {row}", searches.len()) };
            let losses = grid.0.iter().find(|run| run.kind == "losses" && run.ticket.as_ref() == Some(&search.run));
            losses.unwrap().loss(column)
        };
        comparison.number(printed, value, &format!("{column} at {row}"));
    }
    comparison.finish(15 * 2);
}

#[test]
fn losses_and_scores_after_fewer_steps_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let mut comparison = Comparison::default();
    let tables = tables(RESULTS, "Fewer steps");
    for (row, steps, printed) in tables.iter().flat_map(Table::cells) {
        let (method, what) = row.split_once(", ").unwrap();
        let tickets = Tickets { steps: whole(steps).unwrap(), ..Tickets::first(method, SPARSITY) };
        let value = match task(what) {
            Some(task) => runs.score(tickets, task, None),
            None if what == "mean" => mean(["trec", "stsb"].map(|task| runs.score(tickets, task, None))),
            None => runs.loss(tickets, what),
        };
        comparison.number(printed, value, &format!("{row}, {steps}"));
    }
    comparison.finish((2 + 3) * (7 + 7 + 6));
}

/// Compares tables of scores with few examples, of which the first has the first tickets and seeds, the next the second.
fn compare_few_examples<'a>(comparison: &mut Comparison, runs: &Runs, tables: impl IntoIterator<Item = &'a Table>) {
    for (seed, table) in (1..).zip(tables) {
        for (row, column, printed) in table.cells() {
            let (name, examples) = row.split_once(", ").unwrap();
            let score = |method| {
                let tickets = Tickets { seed: Some(seed), ..Tickets::all(method, SPARSITY) };
                runs.score(tickets, task(name).unwrap(), whole(examples))
            };
            let value = match column.split_once(" − ") {
                Some((one, other)) => score(one) - score(other),
                None => score(column),
            };
            comparison.number(printed, value, &format!("{column}, {row}, seed {seed}"));
        }
    }
}

#[test]
fn scores_with_few_examples_are_those_of_the_runs() {
    let mut comparison = Comparison::default();
    compare_few_examples(&mut comparison, &Runs::read("docs/data/minilm.csv"), &tables(RESULTS, "Few examples"));
    // Twelve rows with the first seeds, and three with the second ones.
    comparison.finish((12 + 3) * 9);
}
