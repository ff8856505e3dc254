//! The plans in `plans/paper` have the runs of the reference's scripts, whose calls are in
//! `tests/fixtures/reference/runs.tsv` (`make.py` beside the file says how).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tamt_study::labels::{Kind, Labels};
use tamt_study::run::Run;

use crate::verbs::study::plans::stand_ins::{expanded, repository, stand_in_model, write};

/// Steps of an epoch over WikiText-103 with the reference's batches and blocks: 2,792 are a tenth of two epochs.
const EPOCH: u64 = 13_960;

/// Below `directory`: files with the names that the plans expect, and a copy of each plan.
fn beside_stand_ins(directory: &Path) {
    stand_in_model(directory, "bert-base-uncased", "bert", [30522, 512, 768, 12]);
    stand_in_model(directory, "roberta-base", "roberta", [50265, 514, 768, 12]);
    let stand_in = |name: &str| write(directory, name, b"text\n");
    ["train", "valid"].iter().for_each(|split| stand_in(&format!("wikitext-103/wiki.{split}.raw")));
    for task in ["CoLA", "SST-2", "STS-B", "MRPC", "RTE"] {
        ["train", "dev"].iter().for_each(|split| stand_in(&format!("glue/{task}/{split}.tsv")));
    }
    ["train", "dev_matched", "dev_mismatched"].iter().for_each(|split| stand_in(&format!("glue/MNLI/{split}.tsv")));
    ["train", "dev"].iter().for_each(|split| stand_in(&format!("squad/{split}-v1.1.json")));
    for plan in fs::read_dir(repository("plans/paper")).unwrap() {
        let path = plan.unwrap().path();
        fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
}

/// The lines of one kind in the fixture, as cells by the names of the columns.
fn calls(kind: &str) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(repository("crates/tamt-cli/tests/fixtures/reference/runs.tsv")).unwrap();
    let header = text.lines().find_map(|line| line.strip_prefix(&format!("#{kind}\t"))).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix(&format!("{kind}\t")));
    let cells = |row: &str| {
        let values = row.split('\t').chain(std::iter::repeat(""));
        header.split('\t').map(str::to_owned).zip(values.map(str::to_owned)).collect()
    };
    rows.map(cells).collect()
}

/// The values of a cell, of which there is one at least.
fn each(cell: &str) -> impl Iterator<Item = &str> {
    cell.split(',')
}

/// A ticket: method, start, sparsity, steps, seed.
type Ticket = [String; 5];

/// The tickets of a line with points `sparsity:steps`.
fn tickets(call: &BTreeMap<String, String>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for point in each(&call["points"]) {
        let (sparsity, steps) = point.split_once(':').unwrap_or_default();
        for seed in each(&call["ticket-seeds"]) {
            tickets.push([&call["method"], &call["start"], sparsity, steps, seed].map(str::to_owned));
        }
    }
    tickets
}

/// The ticket of a run.
fn ticket(labels: &Labels) -> Ticket {
    let text = |value: Option<String>| value.unwrap_or_default();
    [
        labels.method.clone(),
        text(labels.start.clone()),
        text(labels.sparsity.map(|sparsity| sparsity.to_string())),
        text(labels.steps.map(|steps| steps.to_string())),
        text(labels.ticket_seed.map(|seed| seed.to_string())),
    ]
}

fn rate(text: &str) -> String {
    text.parse::<f64>().unwrap().to_string()
}

/// A fine-tuning: its ticket; task, examples, seed; epochs, batch, learning rate, length, steps between evaluations.
type Tuning = (Ticket, [String; 3], [String; 5]);

fn tunings_of_scripts(experiment: &str, model: &str) -> BTreeSet<Tuning> {
    let mut tunings = BTreeSet::new();
    for call in calls("tune").iter().filter(|call| call["experiment"] == experiment && call["model"] == model) {
        let recipe = ["epochs", "batch", "rate", "length", "eval-every"].map(|column| rate(&call[column]));
        for ticket in tickets(call) {
            for seed in each(&call["seeds"]) {
                let fit = [&call["task"], &call["examples"], seed].map(str::to_owned);
                tunings.insert((ticket.clone(), fit, recipe.clone()));
            }
        }
    }
    tunings
}

fn tunings_of_plan(runs: &[(Run, Value)]) -> BTreeSet<Tuning> {
    let tuning = |(run, settings): &(Run, Value)| {
        let labels = &run.labels;
        let examples = labels.train_examples.map_or_else(|| "all".to_owned(), |n| n.to_string());
        assert_eq!(settings["train-examples"], json!(labels.train_examples));
        let fit = [labels.task.clone().unwrap(), examples, settings["seed"].to_string()];
        let numbers = [
            &settings["duration"]["epochs"],
            &settings["batch-size"],
            &settings["optimizer"]["learning-rate"],
            &settings["inputs"]["max-length"],
            &settings["eval-every"],
        ];
        (ticket(labels), fit, numbers.map(|number| rate(&number.to_string())))
    };
    runs.iter().filter(|(run, _)| run.kind == Kind::Tune).map(tuning).collect()
}

/// Compares a plan's fine-tunings with those of the scripts: the plan has them all, and besides the dense model and
/// what `added` accepts, of which there is something.
fn compare(plan: &[(Run, Value)], scripts: &BTreeSet<Tuning>, added: Option<fn(&Tuning) -> bool>) {
    let plan = tunings_of_plan(plan);
    let missing: Vec<_> = scripts.difference(&plan).take(3).collect();
    assert!(missing.is_empty(), "not in the plan, among others: {missing:#?}");
    let more = plan.difference(scripts).filter(|tuning| tuning.0[0] != "dense");
    let (more, unknown): (Vec<_>, Vec<_>) = more.partition(|tuning| added.is_some_and(|is_added| is_added(tuning)));
    assert!(unknown.is_empty(), "not of the scripts: {:#?}", &unknown[..unknown.len().min(3)]);
    assert_eq!(added.is_some(), !more.is_empty(), "the plan adds nothing, against its comment");
}

#[test]
fn the_main_tables_have_the_fine_tunings_of_the_scripts() {
    let directory = tempfile::tempdir().unwrap();
    beside_stand_ins(directory.path());
    let bert = expanded(directory.path(), "bert.toml");
    compare(
        &bert,
        &tunings_of_scripts("main", "bert"),
        Some(|(ticket, [task, ..], _)| {
            // The scripts load masks of `tamt-mlm` under this name.
            ticket[0] == "tamt-mlm-kd" && task == "cola" && ["0.2", "0.3", "0.4"].contains(&ticket[2].as_str())
        }),
    );
    let roberta = expanded(directory.path(), "roberta.toml");
    compare(
        &roberta,
        &tunings_of_scripts("main", "roberta"),
        Some(|(ticket, [task, ..], _)| {
            // The script is empty.
            ticket[0] == "imp" && task == "squad" && ticket[2] == "0.5"
        }),
    );
    let dense = |(run, _): &&(Run, Value)| run.kind == Kind::Tune && run.labels.method == "dense";
    assert_eq!([&bert, &roberta].map(|runs| runs.iter().filter(dense).count()), [21, 21]);
    searches(&[
        (&bert, "bert"),
        (&expanded(directory.path(), "bert-random-start.toml"), "bert"),
        (&roberta, "roberta"),
    ]);
}

#[test]
fn the_steps_and_the_random_starts_have_the_fine_tunings_of_the_scripts() {
    let directory = tempfile::tempdir().unwrap();
    beside_stand_ins(directory.path());
    for (plan, experiment) in [("bert-steps.toml", "steps"), ("bert-random-start.toml", "random-start")] {
        let runs = expanded(directory.path(), plan);
        compare(&runs, &tunings_of_scripts(experiment, "bert"), None);
        rounds(&runs);
        // All tickets of a seed are of one search.
        let searches = runs.iter().filter(|(run, _)| run.kind == Kind::Find && run.labels.method.starts_with("tamt"));
        assert_eq!(searches.count(), if experiment == "steps" { 2 * 4 * 3 } else { 2 * 3 });
    }
}

#[test]
fn the_subsets_have_the_fine_tunings_of_the_scripts() {
    let directory = tempfile::tempdir().unwrap();
    beside_stand_ins(directory.path());
    let scripts = tunings_of_scripts("scarce", "bert").into_iter().map(|(ticket, fit, mut recipe)| {
        // The one departure: the scripts' numbers of epochs differ by method here.
        if fit[..2] == ["cola", "2000"] {
            assert!(["5", "6", "8"].contains(&recipe[0].as_str()));
            recipe[0] = "8".to_owned();
        }
        (ticket, fit, recipe)
    });
    compare(&expanded(directory.path(), "bert-scarce.toml"), &scripts.collect(), None);
}

#[test]
fn the_losses_are_those_of_the_scripts_under_the_pre_trained_head() {
    let directory = tempfile::tempdir().unwrap();
    beside_stand_ins(directory.path());
    let runs = expanded(directory.path(), "bert-losses.toml");
    let losses = || runs.iter().filter(|(run, _)| run.kind == Kind::Losses);
    let planned: BTreeSet<Ticket> = losses().map(|(run, _)| ticket(&run.labels)).collect();
    assert_eq!(planned, calls("loss").iter().flat_map(tickets).collect());
    for (_, settings) in losses() {
        assert_eq!((&settings["block-size"], &settings["mlm-head"]), (&json!(512), &json!("pretrained")));
    }
    rounds(&runs);
}

/// Searches by mask training: those of the scripts, with their constants.
fn searches(plans: &[(&Vec<(Run, Value)>, &str)]) {
    let mut planned = BTreeSet::new();
    for (runs, model) in plans {
        for (run, settings) in runs.iter().filter(|(run, _)| run.labels.method.starts_with("tamt")) {
            if run.kind != Kind::Find {
                continue;
            }
            let [method, start, sparsity, _, seed] = ticket(&run.labels);
            let optimizer = &settings["train"]["optimizer"];
            let numbers = ["batch-size", "block-size"].map(|name| settings[name].to_string());
            let [batch, block] = numbers;
            let every = settings["rethreshold-every"].to_string();
            let epochs = settings["horizon-epochs"].to_string();
            let rate = rate(&optimizer["learning-rate"].to_string());
            planned.insert(([model.to_string(), method, start, sparsity, seed], [batch, block, rate, every, epochs]));
        }
        rounds(runs);
    }
    let mut scripts = BTreeSet::new();
    for call in calls("find").iter().filter(|call| call["method"] != "imp") {
        for sparsity in each(&call["sparsities"]) {
            for seed in each(&call["seeds"]) {
                let names = [&call["model"], &call["method"], &call["start"], sparsity, seed].map(str::to_owned);
                let [batch, block, every, epochs] =
                    ["batch", "block", "reset-every", "epochs"].map(|column| call[column].clone());
                scripts.insert((names, [batch, block, rate(&call["rate"]), every, epochs]));
            }
        }
    }
    assert_eq!(planned, scripts);
}

/// Searches in rounds: their constants are those of the scripts.
fn rounds(runs: &[(Run, Value)]) {
    let calls = calls("find");
    for (run, settings) in runs.iter().filter(|(run, _)| run.kind == Kind::Find && run.labels.method == "imp") {
        let rounds = (run.labels.sparsity.unwrap() * 10.0).round() as u64 - 1;
        let per_round = (settings["train"]["max-steps"].as_u64().unwrap() / rounds).to_string();
        let seed = run.labels.ticket_seed.unwrap().to_string();
        let call = calls.iter().find(|call| call["method"] == "imp" && call["steps-per-round"] == per_round);
        let call = call.unwrap_or_else(|| panic!("no script has rounds of {per_round} steps"));
        assert!(each(&call["seeds"]).any(|other| other == seed));
        assert_eq!(settings["batch-size"].to_string(), call["batch"]);
        assert_eq!(settings["block-size"].to_string(), call["block"]);
        let optimizer = &settings["train"]["optimizer"];
        assert_eq!(rate(&optimizer["learning-rate"].to_string()), rate(&call["rate"]));
        let epochs: u64 = call["epochs"].parse().unwrap();
        assert_eq!(settings["train"]["schedule"]["horizon"], epochs * EPOCH);
        assert_eq!(settings["rewind"], "none");
    }
}
