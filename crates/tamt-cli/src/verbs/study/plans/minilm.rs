//! The plans `minilm.toml`, `minilm-recipe.toml`, `minilm-search.toml`, `minilm-sst2.toml`, `minilm-mr.toml` and
//! `minilm-pooler.toml`.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use tamt_study::labels::Kind;
use tamt_study::run::Run;

use crate::verbs::study::plans::stand_ins::{expanded, repository, stand_in_model, write};

const METHODS: [&str; 6] = ["random", "magnitude", "imp", "tamt-mlm", "tamt-kd", "tamt-mlm-kd"];
const TASKS: [&str; 6] = ["cola", "mrpc", "sst2", "stsb", "subj", "trec"];

/// The runs of a plan beside stand-ins for the model and the data.
fn runs_of(plan: &str) -> Vec<(Run, serde_json::Value)> {
    runs_of_edited(plan, |text| text)
}

/// The runs of a plan whose text was changed.
fn runs_of_edited(plan: &str, edited: impl FnOnce(String) -> String) -> Vec<(Run, serde_json::Value)> {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    stand_in_model(here, "minilm-mlm", "bert", [30522, 512, 384, 6]);
    for name in ["wiki.train.tokens", "wikipedia.train.txt", "wikipedia.valid.txt"] {
        write(here, &format!("corpus/{name}"), b"text\n");
    }
    for task in ["glue/CoLA", "glue/MRPC", "glue/STS-B", "glue/SST-2", "suite/TREC", "suite/Subj", "suite/MR"] {
        ["train", "dev"].iter().for_each(|split| write(here, &format!("{task}/{split}.tsv"), b"text\n"));
    }
    ["train", "dev"].iter().for_each(|split| write(here, &format!("squad/{split}-v1.1.json"), b"{}"));
    for task in ["TREC", "Subj", "MR"] {
        let task_file = fs::read(repository(&format!("plans/{}.toml", task.to_lowercase()))).unwrap();
        write(here, &format!("suite/{task}/task.toml"), &task_file);
    }
    let text = fs::read_to_string(repository(&format!("plans/{plan}"))).unwrap();
    write(here, plan, edited(text).as_bytes());
    expanded(here, plan)
}

/// Whether a run is one of `runs`.
fn is_known(run: &Run, runs: &[(Run, serde_json::Value)]) -> bool {
    runs.iter().any(|(other, _)| other.id == run.id)
}

fn is_global(run: &Run) -> bool {
    run.labels.scope.as_deref() == Some("global")
}

/// The runs of `minilm.toml` with MR for its six tasks.
fn runs_on_mr() -> Vec<(Run, serde_json::Value)> {
    let names = r#"names = ["trec", "stsb", "sst2", "cola", "mrpc", "subj"]"#;
    runs_of_edited("minilm.toml", |text| {
        assert_eq!(text.matches(names).count(), 1);
        text.replace(names, r#"names = ["mr"]"#)
    })
}

#[test]
fn another_task_is_one_edited_line() {
    let runs = runs_on_mr();
    let tasks: Vec<&str> = runs.iter().filter_map(|(run, _)| run.labels.task.as_deref()).collect();
    // The grids of fewer steps, with the dense model, and of few examples have tasks of their own.
    assert_eq!(tasks.iter().filter(|task| **task == "mr").count(), 12 * 2 + 12);
    assert_eq!(tasks.iter().filter(|task| **task == "trec").count(), 1 + 5 + 12 + 7 * 3 + 7);
    assert_eq!(tasks.iter().filter(|task| **task == "stsb").count(), 1 + 5 + 12);
}

#[test]
fn the_plan_of_another_task_has_its_fine_tunings_of_the_study_in_two_more_recipes() {
    let (study, mr) = (runs_on_mr(), runs_of("minilm-mr.toml"));
    let new: Vec<Kind> = mr.iter().filter(|(run, _)| !is_known(run, &study)).map(|(run, _)| run.kind).collect();
    // Seven models at 3e-4, and three at 1e-4 with half the updates.
    assert_eq!(new, [Kind::Tune; 7 + 3]);
    // Eleven tickets with their losses and those of the dense model; these twelve models in the recipe of the study.
    assert_eq!(mr.len(), 11 + 12 + 12 + new.len());
}

#[test]
fn the_recipe_of_the_study_is_in_the_grid_of_recipes() {
    let (first, grid) = (runs_of("minilm.toml"), runs_of("minilm-recipe.toml"));
    let tuned = |runs: &[(Run, serde_json::Value)]| -> BTreeSet<(String, String)> {
        let runs = runs.iter().map(|(run, _)| run).filter(|run| run.kind == Kind::Tune);
        runs.map(|run| (run.labels.task.clone().unwrap(), run.id.clone())).collect()
    };
    let (first, grid) = (tuned(&first), tuned(&grid));
    // The dense model and four tickets, each with two to five recipes; that of IMP with one on STS-B and two on SST-2,
    // that of tamt-mlm-kd with two on SST-2.
    let tasks = [("trec", 25, 5), ("sst2", 29, 7), ("stsb", 26, 5), ("cola", 15, 5), ("mrpc", 10, 5), ("subj", 10, 5)];
    for (task, count, of_study) in tasks {
        let of_task = |runs: &BTreeSet<(String, String)>| runs.iter().filter(|(name, _)| name == task).count();
        assert_eq!(of_task(&grid), count, "{task}");
        let shared: BTreeSet<_> = first.intersection(&grid).cloned().collect();
        assert_eq!(of_task(&shared), of_study, "{task}");
    }
}

#[test]
fn the_other_recipe_of_sst2_is_of_the_tickets_seeds_and_examples_of_the_study() {
    let (first, other) = (runs_of("minilm.toml"), runs_of("minilm-sst2.toml"));
    let labels_on_sst2 = |runs: &[(Run, serde_json::Value)]| -> Vec<String> {
        let labels = runs.iter().map(|(run, _)| &run.labels).filter(|labels| labels.task.as_deref() == Some("sst2"));
        let mut shown: Vec<_> = labels.map(|labels| format!("{labels:?}")).collect();
        shown.sort();
        shown
    };
    assert_eq!(labels_on_sst2(&first), labels_on_sst2(&other));
    assert!(other.iter().all(|(run, _)| is_known(run, &first) == (run.kind == Kind::Find)));
    // Tickets: eleven at 70 %, twelve at 50 and 80 %.
    assert_eq!(other.len(), 23 + 12 * 2 + 12 + 7 * 3 + 7);
}

#[test]
fn the_searches_of_the_study_are_in_the_grid_of_searches() {
    let (first, grid) = (runs_of("minilm.toml"), runs_of("minilm-search.toml"));
    let trained = |runs: &[(Run, serde_json::Value)]| -> BTreeSet<(String, String)> {
        let runs = runs.iter().map(|(run, _)| run).filter(|run| run.kind == Kind::Find && run.labels.steps.is_some());
        runs.map(|run| (run.labels.method.clone(), run.id.clone())).collect()
    };
    let (first, grid) = (trained(&first), trained(&grid));
    // Four rates of IMP, three of each mask training, three at 30 %, and two settings of tamt-mlm.
    assert_eq!(grid.len(), 4 + 3 * 3 + 3 + 2);
    // Those of 1,000 steps at 70 %, and that of tamt-kd at 30 %.
    let shared: Vec<&str> = first.intersection(&grid).map(|(method, _)| method.as_str()).collect();
    assert_eq!(shared, ["imp", "tamt-kd", "tamt-kd", "tamt-mlm", "tamt-mlm-kd"]);
}

#[test]
fn the_plan_of_dense_poolers_has_the_fine_tunings_of_the_study_and_its_dense_models() {
    let (first, poolers) = (runs_of("minilm.toml"), runs_of("minilm-pooler.toml"));
    for (run, settings) in &poolers {
        let is_new = run.kind == Kind::Tune && run.ticket.is_some();
        assert_eq!(is_known(run, &first), !is_new, "{}", run.name);
        let says = run.command.iter().any(|word| word == "--dense-pooler");
        assert_eq!((says, settings["dense-pooler"] == true), (is_new, is_new), "{}", run.name);
    }
    // Twelve tickets with their losses and those of the dense model; these thirteen models on six tasks.
    assert_eq!(poolers.len(), 12 + 13 + 13 * TASKS.len());
}

#[test]
fn what_is_done_of_the_study_is_a_smaller_study_at_any_time() {
    let runs = runs_of("minilm.toml");
    // Tickets: eleven at 70 %, twelve at 50 and 80 %, eighteen at 30, 60 and 90 %, three of global scope, and five of IMP
    // with fewer steps. Losses: of these, of twelve tickets on the way of two searches, and of the dense model.
    // Fine-tunings: of twelve models with two seeds, of twelve with one, of the tickets of fewer steps on two tasks, of
    // seven models on SQuAD, of seven on three numbers of examples of three tasks, and of seven with second seeds on one.
    let tunings = (12 * 2 + 12) * TASKS.len() + (5 + 12) * 2 + 7 + 7 * 3 * 3 + 7 * 3;
    assert_eq!(runs.len(), (44 + 5) + (44 + 5 + 12 + 1) + tunings);

    // The first runs: the first seeds at 70 %, and nothing of another sparsity.
    let is_first = |run: &&Run| {
        let labels = &run.labels;
        let is_full = labels.train_examples.is_none() && labels.steps.is_none_or(|steps| steps == 1000);
        labels.sparsity.is_none_or(|sparsity| sparsity == 0.7)
            && labels.ticket_seed.is_none_or(|seed| seed == 1)
            && labels.seed.is_none_or(|seed| seed == 1)
            && is_full
    };
    // Six tickets, their losses and the dense model's, and each on six tasks.
    let count = 6 + 7 + 7 * TASKS.len();
    assert!(runs[..count].iter().all(|(run, _)| is_first(&run)));
    let first = &runs[..count];
    let tuned = first.iter().filter(|(run, _)| run.kind == Kind::Tune && run.labels.method != "dense");
    let cells: BTreeSet<(&str, &str)> =
        tuned.map(|(run, _)| (run.labels.method.as_str(), run.labels.task.as_deref().unwrap())).collect();
    let all = METHODS.iter().flat_map(|method| TASKS.iter().map(move |task| (*method, *task)));
    assert_eq!(cells, all.collect());

    // The searches of the steps study are those of the table, and write more tickets.
    let trained = |method: &str| {
        let is_of = |run: &Run| {
            let labels = &run.labels;
            run.kind == Kind::Find
                && labels.method == method
                && labels.sparsity == Some(0.7)
                && labels.ticket_seed == Some(1)
                && !is_global(run)
        };
        runs.iter().filter(|(run, _)| is_of(run)).collect::<Vec<_>>()
    };
    for method in ["tamt-mlm", "tamt-kd"] {
        assert_eq!(trained(method).len(), 1);
        assert_eq!(trained(method)[0].0.ticket_steps, [0, 25, 50, 100, 200, 400]);
    }
    assert_eq!(trained("imp").len(), 6);

    // At 70 % all methods have two seeds of the ticket and two of the fine-tuning on all tasks, at 50 and 80 % one.
    for (sparsity, seeds) in [(0.7, 2), (0.5, 1), (0.8, 1)] {
        let is_full = |run: &&Run| {
            let is_last = run.labels.steps.is_none_or(|steps| steps == 1000);
            run.kind == Kind::Tune
                && run.labels.sparsity == Some(sparsity)
                && run.labels.train_examples.is_none()
                && run.labels.task.as_deref() != Some("squad")
                && is_last
        };
        let drawn = METHODS.len() - 1;
        let count = runs.iter().map(|(run, _)| run).filter(is_full).count();
        assert_eq!(count, (drawn * seeds + 1) * seeds * TASKS.len(), "{sparsity}");
    }

    // Questions about a text: one seed of each, at 70 %. Losses: at all sparsities.
    let of_squad = runs.iter().filter(|(run, _)| run.labels.task.as_deref() == Some("squad"));
    assert_eq!(of_squad.count(), METHODS.len() + 1);
    for sparsity in [0.3, 0.5, 0.6, 0.7, 0.8, 0.9] {
        let of_level = |run: &Run| run.kind == Kind::Losses && run.labels.sparsity == Some(sparsity);
        let methods: BTreeSet<&str> =
            runs.iter().filter(|(run, _)| of_level(run)).map(|(run, _)| run.labels.method.as_str()).collect();
        assert_eq!(methods.len(), METHODS.len(), "{sparsity}");
    }

    // One threshold for all matrices: losses alone.
    let of_global_scope = runs.iter().map(|(run, _)| run).filter(|run| is_global(run));
    let kinds: Vec<Kind> = of_global_scope.map(|run| run.kind).collect();
    assert_eq!(kinds, [[Kind::Find; 3], [Kind::Losses; 3]].concat());

    // A recipe is the same for all tickets and for the dense model.
    for task in TASKS {
        let of_task = runs.iter().filter(|(run, _)| run.labels.task.as_deref() == Some(task));
        let full = of_task.filter(|(run, _)| run.labels.train_examples.is_none());
        let recipes: BTreeSet<String> = full
            .map(|(_, s)| json!([s["duration"], s["optimizer"], s["batch-size"], s["warmup-steps"]]).to_string())
            .collect();
        assert_eq!(recipes.len(), 1, "{task}: {recipes:?}");
    }
}
