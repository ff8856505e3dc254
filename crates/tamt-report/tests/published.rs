//! The tables of docs/results.md and of the README have the numbers of the runs in docs/data.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

/// The steps of the searches whose tickets the tables have where they name no others.
const STEPS: u64 = 1000;

/// The name of a task in `runs.csv` and in the tables.
const TASKS: [(&str, &str); 7] = [
    ("cola", "CoLA"),
    ("mrpc", "MRPC"),
    ("stsb", "STS-B"),
    ("sst2", "SST-2"),
    ("trec", "TREC"),
    ("subj", "Subj"),
    ("mr", "MR"),
];

fn task(shown: &str) -> Option<&'static str> {
    TASKS.iter().find(|(_, name)| *name == shown).map(|(task, _)| *task)
}

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a run measured, by the columns of `runs.csv`.
#[derive(Clone, Debug, Deserialize)]
struct Run {
    run: String,
    kind: String,
    method: String,
    sparsity: Option<f64>,
    ticket_seed: Option<u64>,
    ticket_steps: Option<u64>,
    /// The search that the measured ticket comes from.
    ticket: Option<String>,
    task: Option<String>,
    train_examples: Option<u64>,
    tuning_seed: Option<u64>,
    mlm_loss: Option<f64>,
    kd_loss: Option<f64>,
    best_score: Option<f64>,
    /// The values of the flags that a plan gives several values.
    settings: Option<String>,
}

impl Run {
    fn loss(&self, name: &str) -> f64 {
        if name == "MLM loss" { self.mlm_loss } else { self.kd_loss }.unwrap()
    }
}

/// Tickets of one method. The dense model has no sparsity, and tickets that are not searched for have no seed or steps.
#[derive(Clone, Copy, Debug)]
struct Tickets<'a> {
    method: &'a str,
    sparsity: f64,
    steps: u64,
    /// All seeds of tickets and of fine-tuning, or the first of each.
    all_seeds: bool,
}

impl<'a> Tickets<'a> {
    /// Those at 70 % with the first seeds.
    fn first(method: &'a str, steps: u64) -> Self {
        Self { method, sparsity: 0.7, steps, all_seeds: false }
    }

    fn have(&self, run: &Run) -> bool {
        run.method == self.method
            && run.sparsity.is_none_or(|of| of == self.sparsity)
            && run.ticket_steps.is_none_or(|of| of == self.steps)
            && [run.ticket_seed, run.tuning_seed].iter().flatten().all(|seed| self.all_seeds || *seed == 1)
    }
}

/// Scores in percent points by the seeds of ticket and of fine-tuning.
type Scores = BTreeMap<(Option<u64>, Option<u64>), f64>;

struct Runs(Vec<Run>);

impl Runs {
    fn read(path: &str) -> Self {
        Self(csv::Reader::from_reader(read(path).as_bytes()).deserialize().map(Result::unwrap).collect())
    }

    /// The runs that `is_chosen` chooses.
    fn chosen(&self, is_chosen: impl Fn(&Run) -> bool) -> Self {
        Self(self.0.iter().filter(|run| is_chosen(run)).cloned().collect())
    }

    fn loss(&self, tickets: Tickets<'_>, name: &str) -> f64 {
        let runs = self.0.iter().filter(|run| run.kind == "losses" && tickets.have(run));
        mean(runs.map(|run| run.loss(name)))
    }

    /// Scores of fine-tunings with so many examples, or with the most.
    fn scores(&self, tickets: Tickets<'_>, task: &str, examples: Option<u64>) -> Scores {
        let of_task = |run: &&Run| run.kind == "tune" && run.task.as_deref() == Some(task);
        let most = self.0.iter().filter(of_task).filter_map(|run| run.train_examples).max();
        let has_examples = |run: &&Run| run.train_examples == examples.or(most);
        let runs = self.0.iter().filter(of_task).filter(has_examples).filter(|run| tickets.have(run));
        runs.map(|run| ((run.ticket_seed, run.tuning_seed), run.best_score.unwrap())).collect()
    }

    fn score(&self, tickets: Tickets<'_>, task: &str, examples: Option<u64>) -> f64 {
        mean(self.scores(tickets, task, examples).into_values())
    }
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values.iter().copied());
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// A Markdown table with the paragraph above it.
struct Table {
    caption: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn has_deviations(&self) -> bool {
        self.rows.iter().flatten().any(|cell| cell.contains('±'))
    }

    /// The cells with a number: name of the row, name of the column, text.
    fn cells(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.rows.iter().flat_map(|row| {
            let cells = self.header.iter().zip(row).skip(1).filter(|(_, text)| !text.is_empty());
            cells.map(|(column, text)| (row[0].as_str(), column.as_str(), text.as_str()))
        })
    }
}

/// The tables below the heading `title`, up to the next heading.
fn tables(path: &str, title: &str) -> Vec<Table> {
    let text = read(path);
    let is_title = |line: &&str| line.starts_with('#') && line.trim_start_matches('#').trim() == title;
    let section = text.lines().skip_while(|line| !is_title(line)).skip(1).take_while(|line| !line.starts_with('#'));
    let section: Vec<&str> = section.map(str::trim).collect();
    let blocks: Vec<&[&str]> = section.split(|line| line.is_empty()).filter(|block| !block.is_empty()).collect();
    let cells = |line: &&str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.replace(['*', '`'], "").trim().to_owned()).collect()
    };
    let pairs = blocks.windows(2).filter(|pair| pair[1][0].starts_with('|'));
    let found = pairs.map(|pair| Table {
        caption: pair[0].join(" "),
        header: cells(&pair[1][0]),
        rows: pair[1].iter().skip(2).map(cells).collect(),
    });
    found.collect()
}

/// A whole number as it is printed (1,000); `None` for a word.
fn whole(text: &str) -> Option<u64> {
    text.replace(',', "").parse().ok()
}

/// The first percentage of a text as a share.
fn sparsity(text: &str) -> f64 {
    let number =
        text.split(" %").next().and_then(|text| text.split(' ').next_back()).and_then(|text| text.parse().ok());
    number.map_or_else(|| panic!("no percentage in {text:?}"), |percent: f64| percent / 100.0)
}

/// Printed numbers beside those that were measured.
#[derive(Default)]
struct Comparison {
    compared: usize,
    wrong: Vec<String>,
}

impl Comparison {
    /// Expects a printed number to be `value`, rounded to as many decimals.
    fn number(&mut self, printed: &str, value: f64, place: &str) {
        self.compared += 1;
        let plain = printed.replace('−', "-").replace(',', "");
        let decimals = plain.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let half = 0.5 * 10f64.powi(-i32::try_from(decimals).unwrap());
        if plain.parse::<f64>().is_ok_and(|printed| (printed - value).abs() <= half + 1e-9) {
            return;
        }
        self.wrong.push(format!("{place}: {printed} is printed, {value:.4} was measured"));
    }

    /// Expects the mean, and where one is printed the deviation of the values.
    fn cell(&mut self, printed: &str, mean: f64, values: &[f64], place: &str) {
        let (printed, spread) =
            printed.split_once(" ± ").map_or((printed, None), |(mean, spread)| (mean, Some(spread)));
        self.number(printed, mean, place);
        if let Some(spread) = spread {
            self.number(spread, deviation(values), place);
        }
    }

    /// Expects the average of the mean scores of tasks; its deviation is that of the averages of each pair of seeds.
    fn average(&mut self, printed: &str, scores: &[Scores], place: &str) {
        let average = mean(scores.iter().map(|of_task| mean(of_task.values().copied())));
        let of_seeds = scores[0].keys().map(|seeds| mean(scores.iter().map(|of_task| of_task[seeds])));
        self.cell(printed, average, &of_seeds.collect::<Vec<_>>(), place);
    }

    /// Expects at least so many numbers, and all to be those that were measured.
    #[track_caller]
    fn finish(self, least: usize) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert!(self.compared >= least, "only {} numbers", self.compared);
    }
}

/// Expects each cell of the first table below the heading `title` of docs/results.md to be what `measured` says of its row
/// and column, and the table to have at least so many numbers.
#[track_caller]
fn compare_cells(title: &str, least: usize, measured: impl Fn(&str, &str) -> f64) {
    let mut comparison = Comparison::default();
    for (row, column, printed) in tables("docs/results.md", title)[0].cells() {
        comparison.number(printed, measured(row, column), &format!("{column}, {row}"));
    }
    comparison.finish(least);
}

/// Compares tables of losses and scores: a row for each method, columns for losses, tasks, and the average of the tasks.
fn compare_methods(comparison: &mut Comparison, runs: &Runs, table: &Table) {
    let (sparsity, all_seeds) = (sparsity(&table.caption), table.has_deviations());
    let tasks: Vec<&str> = table.header.iter().filter_map(|name| task(name)).collect();
    for (method, column, printed) in table.cells() {
        let tickets = Tickets { method, sparsity, steps: STEPS, all_seeds };
        let place = format!("{column} of {method} at {sparsity}");
        if column.ends_with("loss") {
            comparison.number(printed, runs.loss(tickets, column), &place);
        } else if let Some(task) = task(column) {
            let scores: Vec<f64> = runs.scores(tickets, task, None).into_values().collect();
            comparison.cell(printed, mean(scores.iter().copied()), &scores, &place);
        } else {
            let scores: Vec<Scores> = tasks.iter().map(|task| runs.scores(tickets, task, None)).collect();
            comparison.average(printed, &scores, &place);
        }
    }
}

#[test]
fn losses_and_scores_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let mut comparison = Comparison::default();
    let tables = tables("docs/results.md", "Losses and scores");
    let of_methods = tables.iter().filter(|table| table.rows.iter().any(|row| row[0] == "tamt-kd"));
    of_methods.for_each(|table| compare_methods(&mut comparison, &runs, table));
    comparison.finish(150);
}

#[test]
fn averages_in_the_readme_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    let mut comparison = Comparison::default();
    for (row, method, printed) in tables("README.md", "On a real encoder")[0].cells() {
        let tickets = Tickets { method, sparsity: sparsity(row), steps: STEPS, all_seeds: printed.contains('±') };
        let scores: Vec<Scores> = TASKS[..6].iter().map(|(task, _)| runs.scores(tickets, task, None)).collect();
        comparison.average(printed, &scores, &format!("{method} at {row}"));
    }
    comparison.finish(20);
}

#[test]
fn scores_on_another_task_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm-mr.csv");
    compare_cells("Another task", 10, |rate, method| {
        let settings = format!("learning-rate {}", rate.parse::<f64>().unwrap());
        let of_rate = runs.chosen(|run| run.settings.as_ref() == Some(&settings));
        of_rate.score(Tickets::first(method, STEPS), "mr", None)
    });
}

#[test]
fn scores_with_a_dense_pooler_are_those_of_the_runs() {
    let [masked, dense] = ["docs/data/minilm.csv", "docs/data/minilm-pooler.csv"].map(Runs::read);
    compare_cells("The mask of the pooler", 30, |row, method| {
        let (name, pooler) = row.split_once(", ").unwrap();
        let tickets = Tickets { sparsity: sparsity(pooler), ..Tickets::first(method, STEPS) };
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

#[test]
fn scores_of_recipes_are_those_of_the_runs() {
    let table = &tables("docs/results.md", "Recipes of fine-tuning")[0];
    let [study, grid] = ["docs/data/minilm.csv", "docs/data/minilm-recipe.csv"].map(Runs::read);
    let mut comparison = Comparison::default();
    let (mut name, mut settings) = ("", BTreeMap::new());
    for row in &table.rows {
        settings = recipe(&row[0], &settings);
        name = row[0].split(", ").next().and_then(task).unwrap_or(name);
        // `settings` lacks what all runs of a task have.
        let follows = |run: &Run| {
            let mut named = run.settings.iter().flat_map(|text| text.split(", ")).filter_map(|one| one.split_once(' '));
            named.all(|(key, value)| settings.get(key).is_none_or(|expected| value.parse() == Ok(*expected)))
        };
        let of_recipe = grid.chosen(follows);
        for (method, printed) in table.header.iter().zip(row).skip(2).filter(|(_, printed)| !printed.is_empty()) {
            let tickets = Tickets::first(method, STEPS);
            // The grid lacks two methods in the recipes of the study.
            let found = of_recipe.scores(tickets, name, None);
            let value = if found.is_empty() { study.score(tickets, name, None) } else { mean(found.into_values()) };
            comparison.number(printed, value, &format!("{method}, {}", row[0]));
        }
    }
    comparison.finish(60);
}

#[test]
fn losses_of_the_rates_of_imp_are_those_of_the_runs() {
    let [study, grid] = ["docs/data/minilm.csv", "docs/data/minilm-search.csv"].map(Runs::read);
    let mut comparison = Comparison::default();
    let table = &tables("docs/results.md", "Settings of the searches")[0];
    for (row, column, printed) in table.cells().filter(|(_, column, _)| column.ends_with("loss")) {
        let rate = row.split(',').next().and_then(|rate| rate.parse::<f64>().ok());
        let value = match rate.map(|rate| format!("learning-rate {rate}")) {
            Some(rate) => {
                let is_of_rate = |run: &&Run| run.kind == "find" && run.settings.as_ref() == Some(&rate);
                let search = &grid.0.iter().find(is_of_rate).unwrap().run;
                let losses = grid.0.iter().find(|run| run.kind == "losses" && run.ticket.as_ref() == Some(search));
                losses.unwrap().loss(column)
            }
            None => study.loss(Tickets::first(row, STEPS), column),
        };
        comparison.number(printed, value, &format!("{column} at {row}"));
    }
    comparison.finish(10);
}

#[test]
fn losses_and_scores_after_fewer_steps_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    compare_cells("Fewer steps", 50, |row, steps| {
        let (method, what) = row.split_once(", ").unwrap();
        let tickets = Tickets::first(method, whole(steps).unwrap());
        match task(what) {
            Some(task) => runs.score(tickets, task, None),
            None => runs.loss(tickets, what),
        }
    });
}

#[test]
fn scores_with_few_examples_are_those_of_the_runs() {
    let runs = Runs::read("docs/data/minilm.csv");
    compare_cells("Few examples", 100, |row, column| {
        let (name, examples) = row.split_once(", ").unwrap();
        let score = |method| runs.score(Tickets::first(method, STEPS), task(name).unwrap(), whole(examples));
        match column.split_once(" − ") {
            Some((one, other)) => score(one) - score(other),
            None => score(column),
        }
    });
}
