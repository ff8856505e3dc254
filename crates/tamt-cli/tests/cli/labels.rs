//! The order of a classifier's labels, examples without a label, and scores of chance.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::common::{Tensors, at, bert, bytes, change_json, copy_of_classifier, object, stderr, tamt};
use crate::task_files::{cola, is_marked, pairs, questions, write};

const COURSE: &str = "--batch-size 8 --max-steps 2 --keep none";

const GUESS: &str = "the order of labels is a guess";

/// The golden classifier of three outputs with these names, in a directory of this name.
fn classifier(directory: &TempDir, name: &str, names: [&str; 3]) -> String {
    let model = copy_of_classifier("bert", &directory.path().join(name));
    change_json(format!("{model}/config.json"), |config| {
        config["id2label"] = json!({"0": names[0], "1": names[1], "2": names[2]});
        config["label2id"] = json!({names[0]: 0, names[1]: 1, names[2]: 2});
    });
    model
}

/// MNLI's files, in the directory that is the result.
fn mnli(directory: &TempDir) -> String {
    let labels = ["contradiction", "entailment", "neutral"];
    let label = |a: &str, b: &str| labels[usize::from(is_marked(a)) + usize::from(is_marked(b))];
    let row = |i: u64, a: &str, b: &str, label: &&str| format!("{i}\t{a}\t{b}\t{label}");
    for (name, from, n) in [("train", 0, 40), ("dev_matched", 500, 30), ("dev_mismatched", 600, 25)] {
        let rows = pairs("index\tsentence1\tsentence2\tgold_label", from, n, label, row);
        write(&directory.path().join("MNLI"), &format!("{name}.tsv"), &rows);
    }
    at(directory, "MNLI")
}

/// The result of an evaluation, and what it said beside.
fn eval(line: &str) -> (Map<String, Value>, String) {
    let assert = tamt(&format!("eval {line} --json")).success();
    (object(&assert), stderr(&assert))
}

#[test]
fn an_unknown_order_of_labels_is_said_and_can_be_given() {
    let directory = tempfile::tempdir().unwrap();
    let task = format!("--task mnli --data {}", mnli(&directory));
    let named = classifier(&directory, "named", ["entailment", "neutral", "contradiction"]);
    let numbered = classifier(&directory, "numbered", ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let abbreviated = classifier(&directory, "abbreviated", ["entail", "neutral", "contradict"]);
    let (expected, said) = eval(&format!("--model {named} {task}"));
    assert!(!said.contains(GUESS), "{said}");
    for (model, names) in [(&numbered, "LABEL_0, LABEL_1, LABEL_2"), (&abbreviated, "entail, neutral, contradict")] {
        let (guessed, said) = eval(&format!("--model {model} {task}"));
        let note = format!(
            "{GUESS}: {model} calls its outputs {names}; taken as contradiction, entailment, neutral; --labels sets the order"
        );
        assert!(said.contains(&note), "no {note:?} in: {said}");
        assert_ne!(guessed["loss"], expected["loss"]);
        let (given, said) = eval(&format!("--model {model} {task} --labels entailment,neutral,contradiction"));
        assert!(given == expected && !said.contains(GUESS), "{given:?}, not {expected:?}: {said}");
    }
    // The flag counts more than the names of the model, which here are other labels' names.
    let (guessed, _) = eval(&format!("--model {numbered} {task}"));
    let (given, _) = eval(&format!("--model {named} {task} --labels contradiction,entailment,neutral"));
    assert_eq!(given, guessed);
    for (labels, expected) in [
        ("entailment,neutral", "--labels: name each label of mnli once: contradiction, entailment, neutral"),
        ("entailment,neutral,neutral", "--labels: name each label of mnli once"),
        (
            "entailment,neutral,contradicton",
            "\"contradicton\" is no label of mnli, which has contradiction, entailment, \
            neutral; did you mean contradiction?",
        ),
    ] {
        let line = format!("eval --model {numbered} {task} --labels {labels}");
        tamt(&line).code(2).stdout(is_empty()).stderr(contains(expected));
    }
}

#[test]
fn tune_reads_the_labels_of_model_and_teacher_in_the_given_order() {
    let directory = tempfile::tempdir().unwrap();
    let task = format!("--task mnli --data {} {COURSE}", mnli(&directory));
    let named = classifier(&directory, "named", ["entailment", "neutral", "contradiction"]);
    let numbered = classifier(&directory, "numbered", ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let labels = "--labels entailment,neutral,contradiction";
    let tune = |name: &str, line: &str| {
        let assert = tamt(&format!("tune {line} {task} --output-dir {} --json", at(&directory, name))).success();
        (object(&assert)["loss"].clone(), stderr(&assert))
    };
    let (expected, said) = tune("named-run", &format!("--model {named}"));
    assert!(!said.contains(GUESS), "{said}");
    let (loss, said) = tune("guessed-run", &format!("--model {numbered}"));
    assert!(loss != expected && said.contains(GUESS), "{said}");
    let (loss, said) = tune("given-run", &format!("--model {numbered} {labels}"));
    assert!(loss == expected && !said.contains(GUESS), "{loss}, not {expected}: {said}");
    let config = String::from_utf8(bytes(at(&directory, "given-run/config.toml"))).unwrap();
    assert!(config.contains("labels = [\"entailment\", \"neutral\", \"contradiction\"]"), "{config}");

    let (expected, _) = tune("named-teacher", &format!("--model {} --teacher {named}", bert()));
    let (loss, said) = tune("guessed-teacher", &format!("--model {} --teacher {numbered}", bert()));
    assert!(loss != expected && said.contains(GUESS), "{said}");
    let (loss, said) = tune("given-teacher", &format!("--model {} --teacher {numbered} {labels}", bert()));
    assert!(loss == expected && !said.contains(GUESS), "{loss}, not {expected}: {said}");

    // A new head has the order of the task.
    for model in [bert(), format!("{numbered} --new-head")] {
        let line = format!("tune --model {model} {task} {labels} --output-dir {}", at(&directory, "new"));
        tamt(&line).code(2).stdout(is_empty()).stderr(contains("--labels: no given model has a head"));
    }
}

#[test]
fn examples_without_a_label_are_skipped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(directory.path());
    let path = Path::new(&data).join("train.tsv");
    let rows = fs::read_to_string(&path).unwrap();
    // The label is the second column.
    let spoiled: String = rows
        .lines()
        .enumerate()
        .map(|(i, row)| {
            let (source, rest) = row.split_once('\t').unwrap();
            let label = match i {
                2 => "-1",
                5 => "",
                _ => &rest[..1],
            };
            format!("{source}\t{label}{}\n", &rest[1..])
        })
        .collect();
    fs::write(&path, spoiled).unwrap();
    let line =
        format!("tune --model {} --task cola --data {data} {COURSE} --output-dir {}", bert(), at(&directory, "run"));
    let assert = tamt(&format!("{line} --json")).success();
    assert_eq!(object(&assert)["train_examples"], json!(94));
    let expected = format!("skipped 2 rows; the first: {}:3: no label", path.display());
    assert!(stderr(&assert).contains(&expected), "no {expected:?} in: {}", stderr(&assert));
}

#[test]
fn questions_without_answers_are_trained_on_as_unanswerable_or_counted_as_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("data");
    for (split, from) in [("train", 0), ("dev", 500)] {
        let mut file = questions(from, 12, true);
        for paragraph in file["data"][0]["paragraphs"].as_array_mut().unwrap() {
            paragraph["qas"][0].as_object_mut().unwrap().remove("is_impossible");
        }
        for version in ["v1.1", "v2.0"] {
            write(&folder, &format!("{split}-{version}.json"), &file.to_string());
        }
    }
    let tune = |task: &str| {
        let (data, run) = (folder.display(), at(&directory, task));
        let line = format!("tune --model {} --task {task} --data {data} {COURSE} --output-dir {run} --json", bert());
        let assert = tamt(&line).success();
        (object(&assert)["train_examples"].clone(), stderr(&assert))
    };
    let (examples, said) = tune("squad2");
    assert!(examples == json!(12) && !said.contains("no answers"), "{said}");
    let (examples, said) = tune("squad");
    assert_eq!(examples, json!(8));
    for expected in [
        "train-v1.1.json: 4 questions have no answers, skipped; the first: q0",
        "dev-v1.1.json: 4 questions have no answers, scored against no answer; the first: q501",
    ] {
        assert!(said.contains(expected), "no {expected:?} in: {said}");
    }
}

#[test]
fn one_class_for_every_example_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let task = format!("--task mnli --data {}", mnli(&directory));
    let model = classifier(&directory, "model", ["entailment", "neutral", "contradiction"]);
    let path = Path::new(&model).join("model.safetensors");
    let mut tensors = Tensors::read(&path);
    tensors.bytes_mut("classifier.bias")[4..8].copy_from_slice(&1e6f32.to_le_bytes());
    tensors.write(&path);
    let note = "the model predicts neutral for every one of the 30 examples of dev";
    tamt(&format!("eval --model {model} {task}"))
        .success()
        .stdout(contains(note).and(contains("25 examples of dev-mismatched")));
    let run = at(&directory, "run");
    tamt(&format!("tune --model {model} {task} {COURSE} --output-dir {run}")).success().stderr(contains(note));
    tamt(&format!("eval --model {model} {task} --quiet")).success().stdout(contains("predicts").not());
}

#[test]
fn a_mistyped_task_gets_the_nearest_one_suggested() {
    let line = format!("eval --model {} --task mlni --data .", bert());
    tamt(&line).code(2).stderr(contains("there is no task \"mlni\"").and(contains("did you mean mnli?")));
}
