//! Records of runs that were edited, that are read in another directory, and that hold paths which are not UTF-8.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use toml::Table;

use crate::common::{
    DEADLINE, at, bert, bytes, copy_files, copy_of_bert, corpus, json_file, long_enough, record_of, result_of, split,
    stopped_child, tamt, tamt_command, tamt_in,
};
use crate::task_files::cola;

const SMALL: &str = "--batch-size 2 --block-size 12";

/// The line, from 1, on which `part` stands.
fn line_with(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.starts_with(part)).unwrap() + 1
}

#[test]
fn a_key_that_no_record_has_is_refused_at_its_place_with_the_nearest_one() {
    let directory = tempfile::tempdir().unwrap();
    let (run, edited, other) = (at(&directory, "run"), at(&directory, "edited.toml"), at(&directory, "other"));
    let (model, text) = (bert(), corpus());
    tamt(&format!(
        "find --model {model} --method tamt-mlm-kd --sparsity 0.7 --corpus {text} --output-dir {run} --max-steps 1 \
         {SMALL}"
    ))
    .success();
    let found = fs::read_to_string(format!("{run}/config.toml")).unwrap();
    tamt(&format!("eval --model {model} --ticket {run} --corpus {text} --output-dir {}", at(&directory, "eval")))
        .success();
    let measured = fs::read_to_string(at(&directory, "eval/config.toml")).unwrap();

    for (verb, record, from, to, expected) in [
        ("find", &found, "", "learning-rat = 0.05\n", "did you mean train.optimizer.learning-rate?"),
        ("find", &found, "", "sparsty = 0.6\n", "did you mean sparsity?"),
        ("find", &found, "sparsity =", "sparsty =", "did you mean sparsity?"),
        ("find", &found, "learning-rate", "learning-rat", "did you mean train.optimizer.learning-rate?"),
        ("find", &found, "[objective.kd]", "[objective.kdd]", "did you mean objective.kd?"),
        ("find", &found, "beta1", "beta3", "did you mean train.optimizer.beta1?"),
        ("find", &found, "", "zzz = 1\n", "unknown key `zzz`: no record of `tamt find` has it\n"),
        ("find", &found, "", "learning-rate = 0.05\n", "are the same setting, --learning-rate"),
        ("find", &found, "", "init = 'random'\n", "are the same setting, --init"),
        ("eval", &measured, "block-size", "blok-size", "did you mean block-size?"),
    ] {
        let text = if from.is_empty() { format!("{to}{record}") } else { record.replacen(from, to, 1) };
        assert_ne!(&text, record);
        fs::write(&edited, &text).unwrap();
        let line = line_with(&text, to.split([' ', '\n']).next().unwrap());
        tamt(&format!("{verb} --config {edited} --output-dir {other}"))
            .code(2)
            .stderr(contains(format!("{edited}: line {line}: ")).and(contains(expected)));
        assert!(!Path::new(&other).exists(), "{to}");
    }
    // A run is not resumed with such a key either, and the version that wrote the key is named.
    fs::write(format!("{run}/config.toml"), found.replace("tool-version = \"0.", "sparsty = 1\ntool-version = \"9."))
        .unwrap();
    tamt(&format!("find --output-dir {run} --resume"))
        .code(2)
        .stderr(contains("did you mean sparsity?; version 9.").and(contains(" wrote the file, and this is 0.")));
}

#[test]
fn a_recorded_setting_without_a_flag_keeps_the_value_that_the_verb_gives_it() {
    let directory = tempfile::tempdir().unwrap();
    let (model, text, data) = (bert(), corpus(), cola(&directory.path().join("data")));
    for (verb, line, constants) in [
        (
            "find",
            format!("--model {model} --method tamt-kd --sparsity 0.7 --corpus {text} --max-steps 1 {SMALL}"),
            &[("beta1 = 0.9\n", "beta1 = 0.8\n"), ("beta2 = 0.999\n", "beta2 = 0.99\n"), ("mlm = false", "mlm = true")]
                [..],
        ),
        (
            "pretrain",
            format!("--model {model} --corpus {text} --max-steps 1 {SMALL}"),
            &[("beta1 = 0.9\n", "beta1 = 0.8\n"), ("mlm = true", "mlm = false")],
        ),
        (
            "tune",
            format!("--model {model} --task cola --data {data} --max-steps 1 --keep none"),
            &[("beta2 = 0.999\n", "beta2 = 0.99\n")],
        ),
    ] {
        let (run, other) = (at(&directory, verb), at(&directory, format!("{verb}-other")));
        tamt(&format!("{verb} {line} --output-dir {run}")).success();
        let record = fs::read_to_string(format!("{run}/config.toml")).unwrap();
        let edited = at(&directory, "edited.toml");
        for (from, to) in constants {
            let text = record.replace(from, to);
            assert_ne!(text, record);
            fs::write(&edited, &text).unwrap();
            let name = to.split(' ').next().unwrap();
            tamt(&format!("{verb} --config {edited} --output-dir {other}")).code(2).stderr(
                contains(format!("line {}: `", line_with(&text, name))).and(contains(format!("{name}` cannot be set"))),
            );
            assert!(!Path::new(&other).exists(), "{to}");
        }
        // A digest is of what was read: a new run has its own.
        let digest = record_of(&run)["base-sha256"].as_str().unwrap().to_owned();
        fs::write(&edited, record.replace(&digest, &"0".repeat(64)).replace("beta1 = 0.9\n", "beta1 = 0.90\n"))
            .unwrap();
        tamt(&format!("{verb} --config {edited} --output-dir {other}")).success();
        assert_eq!(record_of(&run), record_of(&other));
    }
}

#[test]
fn an_edit_that_a_method_has_no_use_for_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (run, edited) = (at(&directory, "run"), at(&directory, "edited.toml"));
    tamt(&format!("find --model {} --method magnitude --sparsity 0.5 --preset short --output-dir {run}", bert()))
        .success();
    let record = fs::read_to_string(format!("{run}/config.toml")).unwrap();
    let text = record.replace("seed = 42", "seed = 43").replace("batch-size = 16", "batch-size = 8");
    fs::write(&edited, text).unwrap();
    tamt(&format!("find --config {edited} --output-dir {}", at(&directory, "other")))
        .success()
        .stdout(contains("no effect with --method magnitude: --batch-size, --seed\n"));
}

/// A folder with a model, texts, a ticket and a task, which commands reach by relative paths.
fn workplace(directory: &Path) -> PathBuf {
    let place = directory.join("work");
    copy_of_bert(&place.join("models/bert"));
    fs::copy(corpus(), place.join("text.txt")).unwrap();
    cola(&place.join("cola"));
    tamt_in(&place, "find --model models/bert --method random --sparsity 0.5 --output-dir ticket").success();
    let teacher = "tune --model models/bert --task cola --data cola --max-steps 1 --output-dir teacher";
    tamt_in(&place, teacher).success();
    place
}

#[test]
fn a_record_holds_in_every_directory() {
    let directory = tempfile::tempdir().unwrap();
    let place = workplace(directory.path());
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for (i, line) in [
        format!(
            "find --model models/bert --method tamt-kd --sparsity 0.5 --corpus text.txt --eval-corpus ./text.txt \
             --init ticket --max-steps 1 {SMALL}"
        ),
        format!(
            "pretrain --new models/bert/config.json --tokenizer models/bert --corpus text.txt --max-steps 1 {SMALL}"
        ),
        "tune --model models/bert --ticket ticket --teacher teacher --task cola --data cola --max-steps 1".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let verb = line.split_once(' ').unwrap().0;
        let run = place.join(format!("run-{i}"));
        tamt_in(&place, &format!("{line} --output-dir run-{i}")).success();
        let (shown, other) = (run.display(), elsewhere.join(format!("other-{i}")));
        let results = || {
            let files = ["ticket.safetensors", "model.safetensors"].map(|name| fs::read(run.join(name)).ok());
            (files, json_file(run.join("eval_results.json"))["model"].clone())
        };
        let first = results();
        // A run without a result is no finished one.
        fs::remove_file(run.join("eval_results.json")).unwrap();
        tamt_in(&elsewhere, &format!("{verb} --output-dir {shown} --resume")).success();
        assert!(first == results(), "{verb}");
        tamt_in(&elsewhere, &format!("{verb} --config {shown}/config.toml --output-dir other-{i}")).success();
        // The name of the model in tickets is as typed.
        let without_name =
            |run: &Path| record_of(run).into_iter().filter(|(key, _)| key != "base-model").collect::<Table>();
        assert_eq!(without_name(&run), without_name(&other), "{verb}");
        // Relative paths are still those of the working directory.
        tamt_in(&place, &format!("{line} --output-dir run-{i} --resume")).success().stdout(contains("has finished"));

        // So are those of a record that has them, as records of version 0.1.0 do.
        let text = fs::read_to_string(run.join("config.toml")).unwrap();
        let relative = text.replace(&format!("{}/", place.display()), "");
        assert_ne!(relative, text);
        fs::write(run.join("config.toml"), relative).unwrap();
        tamt_in(&place, &format!("{verb} --output-dir run-{i} --resume")).success().stdout(contains("has finished"));
        tamt_in(&place, &format!("{line} --output-dir run-{i} --resume")).success();
    }
    for (i, line) in [
        "--model models/bert --ticket ticket --corpus text.txt --block-size 12 --allow-other-base",
        "--model teacher --task cola --data cola --labels 1,0",
    ]
    .into_iter()
    .enumerate()
    {
        tamt_in(&place, &format!("eval {line} --output-dir measured-{i}")).success();
        let again = format!("eval --config {}/measured-{i}/config.toml --output-dir again-{i}", place.display());
        tamt_in(&elsewhere, &again).success();
        let (measured, again) = (place.join(format!("measured-{i}")), elsewhere.join(format!("again-{i}")));
        assert_eq!(record_of(&measured), record_of(&again));
        assert_eq!(result_of(&measured), result_of(&again), "{line}");
    }
}

#[test]
fn paths_that_are_not_utf8_come_back_from_a_record_and_from_the_printed_command() {
    let directory = tempfile::tempdir().unwrap();
    let strange = |name: &[u8]| OsString::from_vec(name.to_vec());
    let place = directory.path().join(strange(b"w\xff%'s"));
    let (model, text) = (strange(b"m\xfe"), strange(b"c\xff0.txt"));
    copy_files(bert(), &place.join(&model));
    fs::copy(corpus(), place.join(&text)).unwrap();
    let find = |output: &str, steps: u64| {
        let line = "find --method tamt-kd --sparsity 0.7 --save-every 15";
        let line = format!("{line} --max-steps {steps} --output-dir {output} {SMALL} --model");
        let mut words: Vec<OsString> = split(&line).into_iter().map(OsString::from).collect();
        words.extend([model.clone(), "--corpus".into(), text.clone()]);
        words
    };
    // The names of the runs, their steps, and the printed command of the first.
    let ([by_command, by_record], steps, command) = long_enough(400, |steps| {
        let runs = ["by-command", "by-record"].map(|name| format!("{name}-{steps}"));
        let said = runs.each_ref().map(|output| {
            let child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tamt"))
                .current_dir(&place)
                .args(find(output, steps))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            stopped_child(child, &place.join(output), 30, ("INT", 130))
        });
        let [Some(said), Some(_)] = said else { return None };
        let command = said.lines().find_map(|line| line.strip_prefix("hint: to go on: ")).unwrap().to_owned();
        Some((runs, steps, command))
    });
    tamt_command().current_dir(&place).args(find("whole", steps)).assert().success();

    assert!(command.contains(r"$'c\xff0.txt'"), "{command}");
    let resumed = Command::new("bash").current_dir(&place).arg("-c").arg(&command).timeout(DEADLINE).output().unwrap();
    assert!(resumed.status.success(), "{command}");

    let run = place.join(&by_record);
    let mut resume = tamt_command();
    resume.current_dir(directory.path()).args(["find", "--resume", "--output-dir"]).arg(&run).assert().success();
    for name in [by_command.as_str(), by_record.as_str()] {
        let ticket = |run: &str| bytes(place.join(run).join("ticket.safetensors"));
        assert_eq!(ticket("whole"), ticket(name), "{name}");
    }
    let recorded = record_of(&run)["corpus"][0].as_str().unwrap().to_owned();
    assert!(recorded.starts_with("file:///") && recorded.ends_with("/w%FF%25%27s/c%FF0.txt"), "{recorded}");
}
