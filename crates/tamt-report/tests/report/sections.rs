//! Which sections a report has, what it says, and what it leaves out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tamt_report::error::Error;
use tamt_report::report::{Report, report};

use crate::study::{self, Builder, DENSE, Of, Reader};

/// A report and its page.
struct Written {
    report: Report,
    page: String,
    directory: PathBuf,
}

fn write(root: &Path) -> Written {
    let directory = root.join("out");
    let report = report(&[root.to_owned()], &directory, &Reader).unwrap();
    let page = fs::read_to_string(&report.written.page).unwrap();
    Written { report, page, directory }
}

fn sections(page: &str) -> Vec<&str> {
    page.split("<section id=\"").skip(1).map(|rest| &rest[..rest.find('"').unwrap()]).collect()
}

/// A small study: magnitude and tamt-mlm at 70 %, two tasks.
fn small(root: &Path) -> Builder {
    let mut study = Builder::new(root);
    for task in ["cola", "sst2"] {
        for seed in 1..=3 {
            study.tune(&DENSE, task, seed, 8000);
            for method in ["magnitude", "tamt-mlm"] {
                study.tune(&Of::new(method, 0.7, 1), task, seed, 8000);
            }
        }
    }
    study
}

#[test]
fn a_whole_study_has_every_section_and_every_format() {
    let directory = tempfile::tempdir().unwrap();
    study::whole(directory.path());
    let Written { report, page, directory } = write(directory.path());
    let expected = [
        "findings",
        "scores",
        "winning",
        "sparsity",
        "correlation",
        "steps",
        "scarcity",
        "masks",
        "rates",
        "transfer",
        "cost",
    ];
    assert_eq!(sections(&page), expected);
    assert!(report.study.left_out.is_empty(), "{:?}", report.study.left_out);
    let count = |folder: &str, extension: &str| {
        let files = fs::read_dir(directory.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
    };
    assert_eq!((count("tables", "csv"), count("tables", "tex")), (report.written.tables, report.written.tables));
    assert_eq!(count("figures", "svg"), report.written.figures);
    let figure = fs::read_to_string(directory.join("figures/mlm-loss-sparsity.svg")).unwrap();
    assert!(
        figure.contains("@media (prefers-color-scheme: dark)") && figure.contains("<rect width=\"100%\""),
        "{figure}"
    );
    let markdown = fs::read_to_string(directory.join("report.md")).unwrap();
    assert!(markdown.contains("\n| method | CoLA (Matthews) |"), "{markdown}");
    let linked = markdown.lines().filter_map(|line| line.strip_prefix("![")?.split_once("](")?.1.strip_suffix(')'));
    let links: Vec<&str> = linked.collect();
    assert_eq!(links.len(), report.written.figures);
    assert!(links.iter().all(|link| directory.join(link).is_file()), "{links:?}");
}

#[test]
fn every_run_has_a_line_with_what_it_measured() {
    let directory = tempfile::tempdir().unwrap();
    study::whole(directory.path());
    let Written { report, directory, .. } = write(directory.path());
    let mut reader = csv::Reader::from_path(directory.join("runs.csv")).unwrap();
    let lines: Vec<HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(lines.len(), report.study.runs.len());
    let number = |text: &str| text.parse::<f64>().ok();
    for (line, run) in lines.iter().zip(&report.study.runs) {
        assert_eq!(line["run"], run.name);
        assert_eq!(line["kind"], run.kind.name());
        assert_eq!(line["method"], run.labels.method);
        assert_eq!(number(&line["sparsity"]), run.labels.sparsity);
        assert_eq!(number(&line["mlm_loss"]), run.results.get("mlm_loss").and_then(Value::as_f64));
        assert_eq!((number(&line["best_score"]), number(&line["last_score"])), (run.score(), run.final_score()));
        assert_eq!(number(&line["kd_loss"]), run.results.get("kd_cosine").and_then(Value::as_f64));
        let whole = |column: &str| line[column].parse::<u64>().ok();
        assert_eq!((whole("ticket_seed"), whole("tuning_seed")), (run.labels.ticket_seed, run.labels.seed));
        assert_eq!((whole("ticket_steps"), whole("train_examples")), (run.labels.steps, run.train_examples()));
        assert_eq!(line["task"], run.labels.task.clone().unwrap_or_default());
        assert_eq!(line["metric"], run.metric().unwrap_or_default());
        assert_eq!(line["digest"], run.id.clone().unwrap_or_default());
    }
    let measured = |column: &str| lines.iter().filter(|line| !line[column].is_empty()).count();
    assert!(measured("best_score") > 0 && measured("mlm_loss") > 0 && measured("ticket") > 0);
}

#[test]
fn a_section_without_data_does_not_appear() {
    let directory = tempfile::tempdir().unwrap();
    small(directory.path()).finish("small");
    let Written { page, .. } = write(directory.path());
    assert_eq!(sections(&page), ["findings", "scores", "winning", "sparsity", "transfer", "cost"]);
}

#[test]
fn the_same_study_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    small(directory.path()).finish("small");
    let first = write(directory.path()).page;
    assert_eq!(first, write(directory.path()).page);
}

#[test]
fn a_page_asks_for_nothing_outside_of_itself() {
    let directory = tempfile::tempdir().unwrap();
    study::whole(directory.path());
    let Written { page, .. } = write(directory.path());
    let namespace = page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count();
    assert_eq!(page.matches("http").count(), namespace + "http-equiv".matches("http").count());
    for forbidden in ["src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<link rel=\"stylesheet"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn damaged_failed_and_unfinished_runs_are_named_and_not_averaged() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = small(directory.path());
    let of = Of::new("tamt-mlm", 0.7, 1);
    let run = |study: &mut Builder, seed: u64| study.tune(&of, "cola", seed, 8000);
    let half = run(&mut study, 11);
    let text = fs::read_to_string(half.join("eval_results.json")).unwrap();
    fs::write(half.join("eval_results.json"), &text[..text.len() / 2]).unwrap();
    fs::write(run(&mut study, 12).join("eval_results.json"), "").unwrap();
    fs::remove_file(run(&mut study, 13).join("eval_results.json")).unwrap();
    let nan = run(&mut study, 14);
    let text = fs::read_to_string(nan.join("eval_results.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["best_matthews_correlation"] = Value::Null;
    fs::write(nan.join("eval_results.json"), value.to_string()).unwrap();
    edit(&run(&mut study, 15), |record| {
        record["status"] = "failed".into();
        record["error"] = "the loss is not finite at step 30".into();
    });
    fs::remove_file(run(&mut study, 16).join("study-run.json")).unwrap();
    edit(&run(&mut study, 17), |record| {
        record["files"] = json!([{ "path": "eval_results.json", "bytes": 3, "sha256": "00" }]);
    });
    fs::write(run(&mut study, 18).join("study-run.json"), "{\"format\":1,").unwrap();
    study.finish("damaged");
    let Written { report, page, .. } = write(directory.path());
    let reason = |seed: u64| {
        let name = format!("-{seed}-8000");
        report
            .study
            .left_out
            .iter()
            .find(|run| run.name.contains(&name))
            .map(|run| run.reason.as_str())
            .unwrap_or_default()
    };
    assert!(reason(11).contains("eval_results.json is damaged"), "{}", reason(11));
    assert!(reason(12).contains("is empty"), "{}", reason(12));
    assert!(reason(13).contains("there is no eval_results.json"), "{}", reason(13));
    assert!(reason(14).contains("no finite matthews_correlation"), "{}", reason(14));
    assert!(reason(15).contains("the loss is not finite at step 30"), "{}", reason(15));
    assert!(reason(16).contains("has not finished"), "{}", reason(16));
    assert!(reason(17).contains("changed after the run"), "{}", reason(17));
    assert!(reason(18).contains("study-run.json is damaged"), "{}", reason(18));
    assert_eq!(report.study.left_out.len(), 8);
    assert!(sections(&page).contains(&"left-out") && page.contains("8 runs are left out"), "{:?}", sections(&page));
    let undisturbed = tempfile::tempdir().unwrap();
    small(undisturbed.path()).finish("damaged");
    let csv = |root: &Path| fs::read_to_string(root.join("out/tables/scores-70.csv")).unwrap();
    write(undisturbed.path());
    assert_eq!(csv(directory.path()), csv(undisturbed.path()));
}

fn edit(directory: &Path, change: impl FnOnce(&mut Value)) {
    let path = directory.join("study-run.json");
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut record);
    fs::write(path, record.to_string()).unwrap();
}

#[test]
fn directories_without_runs_and_studies_without_results_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let error = report(&[directory.path().to_owned()], &directory.path().join("out"), &Reader).unwrap_err();
    assert!(matches!(&error, Error::NoRuns { path } if path == directory.path()), "{error}");
    let mut study = Builder::new(directory.path());
    let run = study.tune(&DENSE, "cola", 1, 8000);
    fs::write(run.join("eval_results.json"), "[1]").unwrap();
    let error = report(&[directory.path().to_owned()], &directory.path().join("out"), &Reader).unwrap_err();
    assert!(matches!(&error, Error::NoResults { runs: 1, .. }), "{error}");
}

#[test]
fn runs_of_one_seed_give_an_order_without_a_claim() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = Builder::new(directory.path());
    for method in ["magnitude", "tamt-mlm", "random"] {
        study.tune(&Of::new(method, 0.7, 1), "cola", 1, 8000);
    }
    let Written { report, page, .. } = write(directory.path());
    let finding =
        "At 70 %: tamt-mlm, magnitude, random (highest first; one pair of runs each, so that no test is possible)";
    assert_eq!(report.findings[0], finding);
    assert!(page.contains("this order is an observation only"), "{page}");
}

#[test]
fn a_task_is_correlated_with_losses_over_tickets_without_other_tasks_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = Builder::new(directory.path());
    // Each of these methods keeps more than the one ahead of it, of the losses and of the scores.
    for (method, tasks) in [("random", 1), ("magnitude", 3), ("imp", 3), ("tamt-mlm", 3)] {
        let of = Of::new(method, 0.7, 1);
        study.losses(&of);
        ["cola", "sst2", "mrpc"][..tasks].iter().for_each(|task| drop(study.tune(&of, task, 1, 8000)));
    }
    let Written { page, directory, .. } = write(directory.path());
    let table = |name: &str| fs::read_to_string(directory.join("tables").join(name)).unwrap();
    let average = table("rank-correlation.csv");
    assert!(
        average.contains("\naverage,MLM loss,all,3,3,-1,") && average.contains("\naverage,KD loss,all,3,3,-1,"),
        "{average}"
    );
    let tasks = table("rank-correlation-tasks.csv");
    assert!(tasks.contains("\nCoLA,MLM loss,all,4,4,-1,") && tasks.contains("\nCoLA,KD loss,all,4,4,-1,"), "{tasks}");
    assert!(tasks.contains("\nSST-2,MLM loss,all,3,3,"), "{tasks}");
    assert_eq!(tasks.lines().count(), 1 + 2 * 3, "a single sparsity has no rows of its own: {tasks}");
    // Three and four tickets have no interval.
    let sentence = "Of 3 single tasks, the correlation is negative beyond its interval with the MLM loss on none";
    assert!(page.contains(sentence), "{page}");
    assert!(directory.join("figures/score-cola-kd-loss.svg").is_file());
}

#[test]
fn equal_means_are_ties_in_a_rank_correlation() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = Builder::new(directory.path());
    // In percent points, (1 + 7) + 14 is 22 and (14 + 7) + 1 is not, since 100 x 0.07 and 100 x 0.14 are rounded.
    let scores = [("magnitude", [0.01, 0.07, 0.14]), ("imp", [0.14, 0.07, 0.01]), ("tamt-mlm", [0.5, 0.5, 0.5])];
    for (method, scores) in scores {
        let of = Of::new(method, 0.7, 1);
        study.losses(&of);
        for (seed, score) in (1..).zip(scores) {
            let path = study.tune(&of, "cola", seed, 8000).join("eval_results.json");
            let mut results: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            results["best_matthews_correlation"] = score.into();
            fs::write(path, results.to_string()).unwrap();
        }
    }
    let table = fs::read_to_string(write(directory.path()).directory.join("tables/rank-correlation.csv")).unwrap();
    assert!(table.contains("\naverage,MLM loss,all,3,3,-0.866"), "{table}");
}

#[test]
fn equal_scores_are_no_lack_of_runs() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = Builder::new(directory.path());
    for seed in 1..=3 {
        for method in ["magnitude", "tamt-mlm"] {
            let run = study.tune(&Of::new(method, 0.7, 1), "cola", seed, 8000);
            fs::write(
                run.join("eval_results.json"),
                r#"{"primary_metric":"matthews_correlation","matthews_correlation":0.0,"train_examples":8000}"#,
            )
            .unwrap();
        }
    }
    let Written { report, page, .. } = write(directory.path());
    assert!(report.findings[0].starts_with("At 70 %: magnitude ≈ tamt-mlm"), "{:?}", report.findings);
    assert!(page.contains("No step between neighbours is more than noise"), "{page}");
}

#[test]
fn settings_that_set_runs_apart_become_rows_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = small(directory.path());
    for (i, rate) in ["0.0001", "0.001"].iter().enumerate() {
        let run = study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 1, 8000);
        let renamed = run.with_file_name(format!("grid-{i}"));
        fs::rename(&run, &renamed).unwrap();
        let config = fs::read_to_string(renamed.join("config.toml")).unwrap();
        fs::write(renamed.join("config.toml"), config.replace("0.0003", rate)).unwrap();
        edit(&renamed, |record| {
            record["id"] = format!("grid {i}").into();
            record["name"] = format!("grid-{i}").into();
        });
    }
    // The run whose directory was moved comes back.
    study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 1, 8000);
    let Written { directory, .. } = write(directory.path());
    let csv = fs::read_to_string(directory.join("tables/scores-70.csv")).unwrap();
    let heading = csv.lines().next().unwrap();
    for rate in ["0.0001", "0.0003", "0.001"] {
        assert!(heading.contains(&format!("\"SST-2, learning-rate {rate} (accuracy)\"")), "{heading}");
    }
}

#[test]
fn scores_on_other_data_of_one_name_are_not_averaged() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = small(directory.path());
    let run = study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 1, 8000);
    let other = run.with_file_name("other");
    fs::rename(&run, &other).unwrap();
    edit(&other, |record| record["id"] = "other".into());
    let run = study.tune(&Of::new("tamt-mlm", 0.7, 1), "sst2", 1, 8000);
    for (run, digit) in [(run, "a"), (other, "b")] {
        let config = fs::read_to_string(run.join("config.toml")).unwrap();
        let digest = format!("train-sha256 = [\"{}\", \"{}\"]\n{config}", "c".repeat(64), digit.repeat(64));
        fs::write(run.join("config.toml"), digest).unwrap();
    }
    let Written { directory, .. } = write(directory.path());
    let csv = fs::read_to_string(directory.join("tables/scores-70.csv")).unwrap();
    let heading = csv.lines().next().unwrap();
    for part in ["train cccccccc + aaaaaaaa", "train cccccccc + bbbbbbbb"] {
        assert!(heading.contains(&format!("\"SST-2, {part} (accuracy)\"")), "{heading}");
    }
}

#[test]
fn several_base_models_have_tables_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut study = small(directory.path());
    let (of, results) = (Of::new("magnitude", 0.7, 1), json!({ "mlm_loss": 3.0, "kd_cosine": 0.1 }));
    let labels = tamt_study::labels::Labels {
        base: "Other Base".to_owned(),
        method: of.method.to_owned(),
        sparsity: Some(0.7),
        ..Default::default()
    };
    study.run("losses", "other", &labels, "", &results);
    let Written { directory, page, .. } = write(directory.path());
    assert!(directory.join("tables/scores-70-minilm-base.csv").is_file());
    assert!(directory.join("tables/mlm-loss-other-base.csv").is_file());
    assert!(page.contains("Scores at 70 % sparsity, minilm-base."));
}

/// Makes the search for a ticket one of the first layer alone.
fn prune_first_layer(study: &Builder, of: &Of) {
    let directory = study.root.join("tickets").join(of.name());
    let config = fs::read_to_string(directory.join("config.toml")).unwrap();
    fs::write(directory.join("config.toml"), format!("layers = [0]\n{config}")).unwrap();
    let path = directory.join("ticket.safetensors");
    let mut ticket: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    ticket["matrices"].as_array_mut().unwrap().retain(|matrix| {
        let name = matrix["name"].as_str().unwrap();
        !name.starts_with("encoder") || name.starts_with("encoder.layer.0.")
    });
    fs::write(path, ticket.to_string()).unwrap();
}

#[test]
fn operations_are_those_of_all_layers_whichever_a_search_prunes() {
    // Four layers, and at 15 % of the positions the decoder; three products each.
    let (encoder, decoder) = (4.0 * (4.0 * 256.0 + 2.0 * 1024.0), 120.0 * 16.0);
    let (tokens, per_token) = (400.0 * 16.0 * 128.0, 6.0 * encoder + 6.0 * decoder * 0.15);
    for (others, operations) in [(&[0.7][..], Some(tokens * per_token)), (&[], None)] {
        let directory = tempfile::tempdir().unwrap();
        let mut study = small(directory.path());
        let part = Of::new("tamt-mlm", 0.5, 1);
        study.find(&part, &[]);
        prune_first_layer(&study, &part);
        others.iter().for_each(|&sparsity| study.find(&Of::new("tamt-mlm", sparsity, 1), &[]));
        study.finish("layers");
        let table = fs::read_to_string(write(directory.path()).directory.join("tables/cost-search.csv")).unwrap();
        let rows = table.lines().filter(|row| row.starts_with("tamt-mlm"));
        let measured: Vec<[Option<f64>; 2]> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split(',').collect();
                [4, 5].map(|column| cells[column].parse().ok())
            })
            .collect();
        assert_eq!(measured, vec![[Some(tokens), operations]; 1 + others.len()], "{table}");
    }
}
