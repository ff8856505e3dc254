//! Unusable task files, models and settings of a fine-tuning: an error names them, and no file is half written.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::json;

use crate::common::{
    Tensors, at, bert, bytes, change_json, copy_of_bert, copy_of_classifier, json_file, magnitude, object, stderr, tamt,
};
use crate::task_files::{cola, cola_rows, empty_pooler, questions, sentence, squad, with_pooler, write};

const COURSE: &str = "--batch-size 8 --max-steps 4";

/// The entries of a directory, but for the lock file of a run.
fn entries(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".lock");
    names.sort();
    names
}

/// Expects `tune` to end with `code` and an error that contains all of `expected`, and to leave no file, so that the
/// directory is free for a second run.
#[track_caller]
fn refused(directory: &tempfile::TempDir, line: &str, code: i32, expected: &[&str]) {
    let run = at(directory, "run");
    let assert = tamt(&format!("tune {line} --output-dir {run}"))
        .code(code)
        .stdout(is_empty())
        .stderr(starts_with("error: ").and(contains("panicked").not()));
    let said = stderr(&assert);
    for expected in expected {
        assert!(said.contains(expected), "no {expected:?} in: {said}");
    }
    assert_eq!(entries(&run), [""; 0]);
}

#[test]
fn ragged_and_empty_lines_are_skipped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (cola(directory.path()), at(&directory, "run"));
    let good = cola_rows(0, 96);
    let (first, rest) = good.split_at(good.find('\n').unwrap() + 1);
    write(directory.path(), "train.tsv", &format!("{first}\nmade\t1\tlis\n{rest}"));
    let line = format!("tune --model {} --task cola --data {data} {COURSE} --output-dir {run} --json", bert());
    let assert = tamt(&line).success();
    assert_eq!(object(&assert)["train_examples"], json!(96));
    let said = stderr(&assert);
    let expected = format!("skipped 2 rows; the first: {data}/train.tsv:2: the line is empty");
    assert!(said.contains(&expected), "no {expected:?} in: {said}");

    write(directory.path(), "dev.tsv", &format!("{}made\t1\tlis\n", cola_rows(1000, 40)));
    let evaluated = tamt(&format!("eval --model {run} --task cola --data {data}")).success();
    evaluated.stdout(contains(format!("skipped a row: {data}/dev.tsv:41: 3 columns, not 4")).and(contains("40")));
}

#[test]
fn a_table_that_is_mostly_unusable_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(directory.path());
    let line = format!("--model {} --task cola --data {data} {COURSE}", bert());
    let ragged = "made\t1\tlis\n".repeat(20);
    write(directory.path(), "train.tsv", &format!("{}{ragged}", cola_rows(0, 30)));
    refused(&directory, &line, 1, &["train.tsv:31: 3 columns, not 4; 20 of 50 rows are like that"]);
    write(directory.path(), "train.tsv", "");
    refused(&directory, &line, 1, &["train.tsv: no examples"]);
    fs::write(directory.path().join("train.tsv"), b"made\t1\t\tlis\nmade\t1\t\t\xff\xfe\n").unwrap();
    refused(&directory, &line, 1, &["train.tsv:2: not text"]);
}

#[test]
fn labels_that_a_task_does_not_have_are_refused_with_those_that_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(directory.path());
    let line = format!("--model {} --task cola --data {data} {COURSE}", bert());
    write(directory.path(), "train.tsv", &format!("{}made\t2\t\tlis\n", cola_rows(0, 30)));
    refused(&directory, &line, 1, &["train.tsv:31: unknown label \"2\"; expected 0, 1"]);

    let header = "index\tsentence1\tsentence2\tscore\n";
    for (score, file) in [("5.5", "train.tsv"), ("much", "dev.tsv")] {
        let folder = directory.path().join(format!("stsb-{score}"));
        write(&folder, "train.tsv", &format!("{header}0\tlis\tlis\t5.0\n"));
        write(&folder, "dev.tsv", &format!("{header}0\tlis\tlis\t0\n"));
        write(&folder, file, &format!("{header}0\tlis\tlis\t4\n1\tlis\tvo\t{score}\n"));
        let expected = format!("{file}:3: unknown label {score:?}; expected a number from 0 to 5");
        refused(&directory, &line.replace(&data, folder.to_str().unwrap()).replace("cola", "stsb"), 1, &[&expected]);
    }
}

#[test]
fn missing_columns_and_splits_are_named_with_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("SST-2");
    let line = format!("--model {} --task sst2 --data {} {COURSE}", bert(), directory.path().display());
    let rows: String = (0..20).map(|i| format!("{}\t{}\n", sentence(i), i % 2)).collect();
    write(&folder, "train.tsv", &format!("sentence\tverdict\n{rows}"));
    refused(&directory, &line, 1, &["SST-2/train.tsv: no column \"label\"; its columns are \"sentence\", \"verdict\""]);
    write(&folder, "train.tsv", &format!("sentence\tlabel\n{rows}"));
    refused(&directory, &line, 1, &["no dev split of sst2: looked for dev.tsv, ", "SST-2"]);
    write(&folder, "dev.tsv", &format!("sentence\tlabel\n{rows}"));
    refused(&directory, &format!("{line} --predict-test"), 1, &["no test split of sst2: looked for test.tsv"]);
    // The directory is free for another run.
    tamt(&format!("tune {line} --output-dir {}", at(&directory, "run"))).success();
}

#[test]
fn answers_that_do_not_occur_in_their_context_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (squad(directory.path(), false), at(&directory, "run"));
    let spoil = |name: &str, which: std::ops::Range<usize>| {
        change_json(format!("{data}/{name}"), |file| {
            for i in which {
                file["data"][0]["paragraphs"][i]["qas"][0]["answers"][0]["text"] = json!("nowhere");
            }
        });
    };
    spoil("train-v1.1.json", 3..5);
    spoil("dev-v1.1.json", 2..3);
    let line = format!("--model {} --task squad --data {data} {COURSE}", bert());
    let assert = tamt(&format!("tune {line} --output-dir {run} --json")).success();
    assert_eq!(object(&assert)["train_examples"], json!(38));
    let said = stderr(&assert);
    for expected in [
        format!(
            "{data}/train-v1.1.json: 2 questions have no answer that occurs in their context, skipped; the first: q3"
        ),
        format!(
            "{data}/dev-v1.1.json: one question has no answer that occurs in its context, scored all the same: q502"
        ),
    ] {
        assert!(said.contains(&expected), "no {expected:?} in: {said}");
    }
    fs::remove_dir_all(&run).unwrap();
    spoil("train-v1.1.json", 0..40);
    refused(&directory, &line, 1, &["train-v1.1.json: no examples"]);

    let train = Path::new(&data).join("train-v1.1.json");
    fs::write(&train, "{\"data\": [{\"paragraphs\": [{}]}]}").unwrap();
    refused(&directory, &line, 1, &["train-v1.1.json: not a usable SQuAD file: missing field `context`"]);
    let mut twice = questions(0, 2, false);
    twice["data"][0]["paragraphs"][1]["qas"][0]["id"] = json!("q0");
    fs::write(&train, twice.to_string()).unwrap();
    refused(&directory, &line, 1, &["train-v1.1.json", "two questions have the id \"q0\""]);
}

#[test]
fn a_ticket_of_another_model_is_refused_with_both_digests() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let other = copy_of_bert(&directory.path().join("other"));
    let path = Path::new(&other).join("model.safetensors");
    let mut tensors = Tensors::read(&path);
    tensors.bytes_mut("bert.encoder.layer.0.attention.self.query.weight")[..4].copy_from_slice(&0.25f32.to_le_bytes());
    tensors.write(&path);
    let half = magnitude(&other, 0.5, &at(&directory, "half"));
    let digest = |model: &str| -> String {
        let output =
            std::process::Command::new("sha256sum").arg(format!("{model}/model.safetensors")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
    };
    let line = format!("--model {} --ticket {half} --task cola --data {data} {COURSE}", bert());
    let expected = ["the ticket belongs to another model", &digest(&other), &digest(&bert()), "--allow-other-base"];
    refused(&directory, &line, 1, &expected);
    tamt(&format!("tune {line} --allow-other-base --output-dir {}", at(&directory, "run"))).success();
    // A tuned model is another base as well.
    let line = format!("eval --model {} --ticket {half} --task cola --data {data}", at(&directory, "run"));
    tamt(&line).code(1).stderr(contains("the ticket belongs to another model"));
}

#[test]
fn a_dense_pooler_is_asked_for_beside_a_ticket_that_masks_the_pooler() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let line = format!("--model {} --task cola --data {data} {COURSE} --dense-pooler", bert());
    refused(&directory, &line, 2, &["--dense-pooler: without --ticket nothing is masked"]);
    // The checkpoint has no pooler, and the ticket masks none.
    let ticket = at(&directory, "ticket");
    magnitude(&bert(), 0.5, &ticket);
    let run = at(&directory, "run");
    tamt(&format!("tune {line} --ticket {ticket} --output-dir {run}"))
        .success()
        .stdout(contains("no effect: --dense-pooler"));
}

#[test]
fn a_ticket_without_weights_of_the_pooler_gets_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let (data, spans) = (cola(&directory.path().join("data")), squad(&directory.path().join("squad"), false));
    let model = with_pooler(&bert(), &directory.path().join("model"));
    let (masks, ticket) = (at(&directory, "masks.safetensors"), at(&directory, "ticket"));
    empty_pooler(&masks);
    tamt(&format!("import {masks} --model {model} --output-dir {ticket}"))
        .success()
        .stdout(contains("no weight is kept of pooler.dense.weight"));
    // A task of spans has no pooler.
    let [cola, squad] = [format!("--task cola --data {data}"), format!("--task squad --data {spans}")];
    for (run, flags, warned) in
        [("cola", &cola, true), ("dense", &format!("{cola} --dense-pooler"), false), ("squad", &squad, false)]
    {
        let line = format!(
            "tune --model {model} --ticket {ticket} {flags} {COURSE} --output-dir {} --quiet",
            at(&directory, run)
        );
        let told = stderr(&tamt(&line).success());
        let warning = format!("warning: {ticket}: it keeps no weight of the pooler");
        assert_eq!(told.starts_with(&warning), warned, "{run}: {told}");
        assert_eq!(told.is_empty(), !warned, "{run}: {told}");
    }
}

#[test]
fn a_head_with_another_number_of_labels_is_refused_and_can_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let model = copy_of_classifier("bert", &directory.path().join("classifier"));
    let line = format!("--model {model} --task cola --data {data} {COURSE}");
    refused(&directory, &line, 1, &[&format!("{model}: its head has 3 outputs, and cola needs 2"), "--new-head"]);
    let with_teacher = line.replace(&model, &bert());
    refused(&directory, &format!("{with_teacher} --teacher {model}"), 1, &["its head has 3 outputs, and cola needs 2"]);
    tamt(&format!("eval --model {model} --task cola --data {data}")).code(1).stderr(contains("cola needs 2"));
    let run = at(&directory, "run");
    tamt(&format!("tune {line} --new-head --output-dir {run}")).success();
    assert_eq!(Tensors::read(format!("{run}/model.safetensors")).shape("classifier.weight"), [2, 16]);

    // A model without a task head cannot be evaluated on a task.
    tamt(&format!("eval --model {} --task cola --data {data}", bert()))
        .code(1)
        .stderr(contains("it has no head for cola; it was not fine-tuned"));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run, saved) = (cola(&directory.path().join("data")), at(&directory, "run"), at(&directory, "saved"));
    let line = format!("tune --model {} --task cola --data {data} --batch-size 8 --max-steps 9", bert());
    tamt(&format!("{line} --learning-rate 1e30 --output-dir {run}")).code(1).stderr(
        contains("error: the loss is not finite at step 2; no checkpoint was saved before it")
            .and(contains("hint: a lower --learning-rate may help")),
    );
    // The first step of a warm-up has rate 0, so the second step makes the weights infinite.
    let warm = format!("{line} --learning-rate 1e30 --warmup-steps 9 --save-every 1 --output-dir {saved}");
    tamt(&warm).code(1).stderr(contains(format!(
        "the loss is not finite at step 3; the last good checkpoint is {saved}/checkpoint-2"
    )));
    assert!(Path::new(&saved).join("checkpoint-2/state.safetensors").is_file());
    for run in [run, saved] {
        for name in ["model.safetensors", "eval_results.json", "predictions.tsv"] {
            assert!(!Path::new(&run).join(name).exists(), "{name}");
        }
    }
}

#[test]
fn names_and_numbers_that_mean_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let spans = squad(&directory.path().join("squad"), false);
    let line = format!("--model {} --task cola --data {data} {COURSE}", bert());
    for (line, code, expected) in [
        (line.replace("cola", "kola"), 2, "--task: there is no task \"kola\"; known are cola, sst2, mrpc, stsb"),
        (format!("{line} --seeds 1,2,1"), 2, "--seeds: 1 is given twice"),
        (format!("{line} --seeds 1,2 --seed 3"), 2, "cannot be used with"),
        (format!("{line} --seeds 1,x"), 2, "invalid value 'x'"),
        (format!("{line} --epochs 2"), 2, "cannot be used with"),
        (format!("{line} --max-length 41"), 2, "--max-length: 41 tokens do not fit the model, which has 40 positions"),
        (format!("{line} --max-length 2"), 2, "--max-length: 2 tokens leave no room for text beside 2 special tokens"),
        (format!("{line} --max-length 0"), 2, "--max-length"),
        (format!("{line} --train-examples 97"), 2, "--train-examples: 97 are more than the 96 of the training set"),
        (format!("{line} --train-examples 97 --seeds 1,2"), 2, "--train-examples: 97 are more than the 96"),
        (format!("{line} --train-examples 0"), 2, "--train-examples"),
        (format!("{line} --learning-rate 0"), 2, "--learning-rate"),
        (format!("{line} --learning-rate nan"), 2, "--learning-rate"),
        (format!("{line} --kd-hidden-weight 2"), 2, "--teacher"),
        (format!("{line} --allow-other-base"), 2, "--ticket"),
        (format!("{line} --task-file none.toml"), 2, "cannot be used with"),
        (line.replace(&format!("--data {data}"), ""), 2, "--data"),
        (line.replace("--task cola", ""), 2, "--task"),
        (line.replace(&data, "no-such-directory"), 1, "no train split of cola: looked for train.tsv"),
        (line.replace(&bert(), "./no-such-model"), 1, "no-such-model"),
        (format!("{line} --ticket no-such-ticket"), 1, "no-such-ticket"),
        (
            line.replace(&data, &spans).replace("cola", "squad") + " --max-length 4",
            2,
            "--max-length: 4 tokens leave no room for text beside 4 tokens of a question and special ones",
        ),
    ] {
        refused(&directory, &line, code, &[expected]);
    }
}

#[test]
fn declarations_of_tasks_that_mean_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let good = "name = 'own'\nkind = 'classification'\nlabels = ['0', '1']\nheader = false\n\
                [files]\ntrain = 'train.tsv'\ndev = 'dev.tsv'\n[columns]\nfirst = 3\nlabel = 1\n";
    let line = format!("--model {} --task-file {} --data {data} {COURSE}", bert(), at(&directory, "own.toml"));
    for (from, to, expected) in [
        ("labels = ['0', '1']", "", "own.toml: not a usable task file: a classification needs labels"),
        ("kind = 'classification'", "kind = 'ranking'", "own.toml: not a usable task file"),
        ("header = false", "heading = false", "unknown field `heading`"),
        ("label = 1", "label = 9", "train.tsv: no column number 9 (from 0)"),
        ("dev = 'dev.tsv'", "dev = 'valid.tsv'", "no dev split of own: looked for valid.tsv"),
        ("train = 'train.tsv'\n", "", "own has no train split"),
        ("header = false", "metrics = ['pearson']\nheader = false", "pearson"),
    ] {
        assert!(good.contains(from), "{from}");
        write(directory.path(), "own.toml", &good.replace(from, to));
        refused(&directory, &line, 1, &[expected]);
    }
    refused(&directory, &line.replace("own.toml", "none.toml"), 1, &["none.toml"]);
    write(directory.path(), "own.toml", good);
    tamt(&format!("tune {line} --output-dir {}", at(&directory, "run"))).success();

    // Without a development set, the model is trained with a notice and cannot be evaluated.
    write(directory.path(), "own.toml", &good.replace("dev = 'dev.tsv'\n", ""));
    let blind = at(&directory, "blind");
    tamt(&format!("tune {line} --output-dir {blind}")).success().stdout(contains("the task has no dev split"));
    // Nothing is compared, so that nothing ends the run early; and there is no test set to predict.
    let patient = at(&directory, "patient");
    let early = format!("tune {line} --output-dir {patient} --early-stopping 1 --eval-every 1 --json");
    let told = |run: &str| json_file(format!("{run}/eval_results.json"));
    tamt(&early).success();
    assert_eq!(told(&patient)["steps"], told(&blind)["steps"]);
    tamt(&format!("tune {line} --predict-test --output-dir {}", at(&directory, "never")))
        .code(2)
        .stderr(contains("--predict-test: own has no test split"));
    let line = line.replace(&bert(), &blind).replace(COURSE, "");
    tamt(&format!("eval {line}")).code(1).stdout(is_empty()).stderr(contains("own has no dev split"));
}

#[test]
fn an_occupied_directory_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (data, run) = (cola(&directory.path().join("data")), at(&directory, "run"));
    tamt(&format!("find --model {} --method random --sparsity 0.5 --output-dir {run} --quiet", bert())).success();
    let (names, ticket) = (entries(&run), bytes(format!("{run}/ticket.safetensors")));
    let line = format!("tune --model {} --task cola --data {data} {COURSE} --output-dir {run}", bert());
    for line in [line.clone(), format!("{line} --seeds 1,2")] {
        tamt(&line)
            .code(1)
            .stdout(is_empty())
            .stderr(contains("already holds a run").and(contains("hint: give another")));
        tamt(&format!("{line} --resume")).code(2).stdout(is_empty()).stderr(contains("it records a `tamt find`"));
    }
    assert_eq!((entries(&run), bytes(format!("{run}/ticket.safetensors"))), (names, ticket));
}

#[test]
fn a_teacher_that_cannot_teach_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    // The number of layers is no multiple of the student's.
    let shallow = copy_of_bert(&directory.path().join("shallow"));
    change_json(format!("{shallow}/config.json"), |config| config["num_hidden_layers"] = json!(1));
    let (task, teacher) = (format!("--task cola --data {data} {COURSE}"), at(&directory, "teacher"));
    tamt(&format!("tune --model {shallow} {task} --output-dir {teacher}")).success();
    let line = format!("--model {} {task} --teacher {teacher}", bert());
    for line in [line.clone(), format!("{line} --seeds 1,2")] {
        let expected = "--teacher: its 1 layers are no multiple of the model's 2; give --kd-hidden-weight 0";
        refused(&directory, &line, 2, &[expected]);
    }
    tamt(&format!("tune {line} --kd-hidden-weight 0 --output-dir {}", at(&directory, "run"))).success();
}
