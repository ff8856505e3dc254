//! Runs that are not lost: at their end, at a signal in any phase, by a damaged checkpoint, or by a failed start.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

use crate::common::{
    at, bert, bytes, copy_of_bert, corpus, has_result, is_killed_at, log_of, long_enough, magnitude, newest_checkpoint,
    reaches, signal, split, start, stderr, stopped_at, tamt, wait_for_step,
};
use crate::task_files::cola;

/// Saves a checkpoint after every step.
const ALWAYS: &str = "--save-minutes 1e-9";

fn line(method: &str, output: &str, steps: u64) -> String {
    format!(
        "find --model {} --method {method} --sparsity 0.7 --corpus {} --output-dir {output} --max-steps {steps} \
         --batch-size 2 --block-size 12 --learning-rate 1e-3 --logging-steps 5",
        bert(),
        corpus()
    )
}

/// Times that the corpus stands in a text whose evaluation takes a second on most machines.
const LONG: u64 = 100;

/// The corpus, `times` times.
fn long_text(directory: &tempfile::TempDir, times: u64) -> String {
    let path = at(directory, format!("{times}.txt"));
    fs::write(&path, fs::read_to_string(corpus()).unwrap().repeat(usize::try_from(times).unwrap())).unwrap();
    path
}

fn ended(child: Child) -> (Output, String) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

fn state(run: &str, step: u64) -> String {
    format!("{run}/checkpoint-{step}/state.safetensors")
}

/// The steps of the checkpoints that a run can resume from.
fn resumable(run: &str) -> Vec<u64> {
    let entries = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let mut steps: Vec<u64> = entries
        .filter(|path| path.join("state.safetensors").is_file())
        .map(|path| path.to_str().unwrap().rsplit_once('-').unwrap().1.parse().unwrap())
        .collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_run_saves_by_the_clock_and_the_interval_changes_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let (killed, steps) = long_enough(200, |steps| {
        let killed = at(&directory, format!("killed-{steps}"));
        is_killed_at(&format!("{} {ALWAYS}", line("tamt-mlm", &killed, steps)), &killed, 20).then_some((killed, steps))
    });
    tamt(&format!("{} --resume", line("tamt-mlm", &killed, steps))).success().stderr(contains("resuming from"));
    let whole = at(&directory, "whole");
    tamt(&format!("{} --save-every 0", line("tamt-mlm", &whole, steps))).success();
    assert!(resumable(&whole).is_empty());
    assert_eq!(bytes(format!("{whole}/ticket.safetensors")), bytes(format!("{killed}/ticket.safetensors")));
    let left = fs::read_dir(&killed).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("checkpoint-")).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_run_killed_or_stopped_in_its_last_evaluation_goes_on_from_its_last_step() {
    let directory = tempfile::tempdir().unwrap();
    let (line, killed) = long_enough(LONG, |times| {
        let (text, run) = (long_text(&directory, times), at(&directory, format!("killed-{times}")));
        let line = move |run: &str| format!("{} --eval-corpus {text}", line("tamt-mlm", run, 20));
        if !is_killed_at(&line(&run), &run, 20) {
            return None;
        }
        let mut child = start(&format!("{} --resume", line(&run)));
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line.starts_with("resuming from")), "it did not resume");
        signal(&child, "TERM");
        let said: Vec<String> = said.collect();
        let code = child.wait().unwrap().code();
        // The evaluation may have ended ahead of the signal.
        if said.iter().any(|line| line.contains("evaluated at step")) {
            return None;
        }
        assert_eq!(code, Some(143), "{said:?}");
        Some((line, run))
    });
    assert_eq!(resumable(&killed), [20]);

    tamt(&format!("{} --resume", line(&killed))).success().stderr(contains("checkpoint-20"));
    let whole = at(&directory, "whole");
    tamt(&line(&whole)).success();
    for file in ["ticket.safetensors", "mlm_head.safetensors"] {
        assert_eq!(bytes(format!("{whole}/{file}")), bytes(format!("{killed}/{file}")), "{file}");
    }
    assert_eq!(log_of(&whole), log_of(&killed));
}

#[test]
fn a_signal_in_an_evaluation_between_two_steps_leaves_the_evaluation_to_the_resumed_run() {
    let directory = tempfile::tempdir().unwrap();
    let (line, stopped) = long_enough(LONG, |times| {
        let (text, run) = (long_text(&directory, times), at(&directory, format!("stopped-{times}")));
        let line = move |run: &str| format!("{} --eval-every 3 --eval-corpus {text}", line("tamt-kd", run, 5));
        let said = stopped_at(&format!("{} {ALWAYS}", line(&run)), &run, 3, ("INT", 130))?;
        // The evaluation may have ended ahead of the signal.
        (!said.contains("evaluated at step 3")).then_some((line, run))
    });
    tamt(&format!("{} --resume", line(&stopped))).success().stderr(contains("evaluated at step 3"));
    let whole = at(&directory, "whole");
    tamt(&line(&whole)).success();
    assert_eq!(log_of(&whole), log_of(&stopped));
    assert_eq!(bytes(format!("{whole}/ticket.safetensors")), bytes(format!("{stopped}/ticket.safetensors")));
}

#[test]
fn a_last_evaluation_that_fails_does_not_discard_what_was_trained() {
    let directory = tempfile::tempdir().unwrap();
    let (ticket, model) = (at(&directory, "ticket"), at(&directory, "model"));
    // The only step is of finite losses, and its update makes the weights too large to evaluate.
    let find = line("tamt-mlm", &ticket, 1).replace("1e-3", "1e38");
    tamt(&format!("{find} --eval-corpus {}", corpus()))
        .code(1)
        .stderr(contains("is not finite: the model's weights overflow"));
    assert!(Path::new(&ticket).join("ticket.safetensors").is_file());
    // Between two steps, such an evaluation does not end the run; the next step does.
    let midway = at(&directory, "midway");
    let find = find.replace("--max-steps 1", "--max-steps 3").replace(&ticket, &midway);
    tamt(&format!("{find} --eval-corpus {} --eval-every 1 --save-every 1", corpus())).code(1).stderr(
        contains("step 1: MLM loss (trained head) is not finite")
            .and(contains(format!("not finite at step 2; the last good checkpoint is {midway}/checkpoint-1"))),
    );
    let pretrain = format!(
        "pretrain --model {} --corpus {} --eval-corpus {1} --output-dir {model} --max-steps 1 --warmup-steps 0 \
         --batch-size 2 --block-size 12 --learning-rate 1e38",
        bert(),
        corpus()
    );
    tamt(&pretrain).code(1).stderr(contains("is not finite: the model's weights overflow"));
    assert!(Path::new(&model).join("model.safetensors").is_file());
    assert_eq!(resumable(&model), [1]);

    let (tuned, data) = (at(&directory, "tuned"), cola(&directory.path().join("data")));
    let tune = format!(
        "tune --model {} --task cola --data {data} --output-dir {tuned} --max-steps 1 --warmup-steps 0 \
         --learning-rate 1e38",
        bert()
    );
    tamt(&tune).code(1).stderr(contains("is not finite: the model's weights overflow"));
    assert!(Path::new(&tuned).join("model.safetensors").is_file());
    assert_eq!(resumable(&tuned), [1]);
}

#[test]
fn weights_are_written_ahead_of_the_files_that_are_copied() {
    let directory = tempfile::tempdir().unwrap();
    let (base, data) = (copy_of_bert(&directory.path().join("base")), cola(&directory.path().join("data")));
    let ticket = magnitude(&base, 0.5, &at(&directory, "ticket"));
    let lines = [
        format!("apply --model {base} --ticket {ticket}"),
        format!("pack --model {base} --ticket {ticket}"),
        format!("tune --model {base} --task cola --data {data} --max-steps 2"),
        format!("pretrain --model {base} --corpus {} --max-steps 2 --batch-size 2 --block-size 12", corpus()),
    ];
    for (i, line) in lines.iter().enumerate() {
        let [whole, output] = ["whole", "output"].map(|name| at(&directory, format!("{name}-{i}")));
        tamt(&format!("{line} --output-dir {whole}")).success();
        // A file cannot take the place of a directory.
        let obstacle = format!("{output}/vocab.txt");
        fs::create_dir_all(format!("{obstacle}/mine")).unwrap();
        tamt(&format!("{line} --output-dir {output}")).code(1).stderr(contains(&obstacle));
        let weights = if line.starts_with("pack") { "model.packed.safetensors" } else { "model.safetensors" };
        assert_eq!(bytes(format!("{output}/{weights}")), bytes(format!("{whole}/{weights}")), "{line}");
        // A copy of a model with a configuration is complete; the record of a run says that the run has not ended.
        let is_run = line.starts_with("tune") || line.starts_with("pretrain");
        assert_eq!(Path::new(&output).join("config.json").exists(), is_run, "{line}");
    }
}

#[test]
fn a_run_whose_directory_is_replaced_stops_and_writes_nothing_there() {
    let directory = tempfile::tempdir().unwrap();
    let (run, aside) = (at(&directory, "run"), at(&directory, "aside"));
    for method in ["tamt-kd", "imp"] {
        let mut child = start(&format!("{} --save-every 15", line(method, &run, 100_000_000)));
        wait_for_step(&run, 30, &mut child);
        fs::rename(&run, &aside).unwrap();
        let _ = fs::create_dir(&run);
        let (output, said) = ended(child);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error: cannot ") || said.contains(&format!("error: {run} is gone")), "{said}");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        fs::remove_dir(&run).unwrap();
        fs::remove_dir_all(&aside).unwrap();
    }
}

#[test]
fn a_model_is_written_with_its_tokenizer_although_their_source_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let run = long_enough(200, |steps| {
        let (base, run) = (copy_of_bert(&directory.path().join("base")), at(&directory, format!("run-{steps}")));
        let mut child = start(&format!(
            "pretrain --model {base} --corpus {} --output-dir {run} --max-steps {steps} --batch-size 2 --block-size 12 \
             {ALWAYS}",
            corpus()
        ));
        let is_midway = reaches(&run, 5, &mut child);
        fs::remove_dir_all(&base).unwrap();
        // The copies come after the weights.
        let is_ahead = is_midway && !has_result(&run);
        let (output, said) = ended(child);
        assert!(output.status.success(), "{said}");
        is_ahead.then_some(run)
    });
    assert!(Path::new(&run).join("model.safetensors").is_file());
    for file in ["vocab.txt", "tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(bytes(format!("{run}/{file}")), bytes(format!("{}/{file}", bert())), "{file}");
    }
}

#[test]
fn two_checkpoints_are_kept_and_the_older_one_takes_the_place_of_a_damaged_one() {
    let directory = tempfile::tempdir().unwrap();
    let (run, steps) = long_enough(600, |steps| {
        let run = at(&directory, format!("run-{steps}"));
        let line = format!("{} --save-every 20", line("imp", &run, steps));
        stopped_at(&line, &run, 80, ("INT", 130)).map(|_| (run, steps))
    });
    let [older, newest] = resumable(&run)[..] else { panic!("{:?}", resumable(&run)) };
    let (older_state, newest_state) = (state(&run, older), state(&run, newest));
    let whole_state = bytes(&older_state);
    for file in [&older_state, &newest_state] {
        let state = bytes(file);
        fs::write(file, &state[..state.len() / 2]).unwrap();
    }
    let resume = format!("{} --resume", line("imp", &run, steps));
    tamt(&resume).code(1).stderr(contains(&newest_state).and(contains("is damaged")));
    fs::write(&older_state, whole_state).unwrap();
    tamt(&resume).success().stderr(
        contains(format!("{newest_state} is damaged"))
            .and(contains("the checkpoint before it takes its place"))
            .and(contains(format!("resuming from {run}/checkpoint-{older}"))),
    );
    let whole = at(&directory, "whole");
    tamt(&line("imp", &whole, steps)).success();
    assert_eq!(bytes(format!("{whole}/ticket.safetensors")), bytes(format!("{run}/ticket.safetensors")));
}

#[test]
fn a_closed_terminal_is_a_request_to_stop_unless_it_is_to_be_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let under_env = |option: &str, line: String| {
        let mut command = Command::new("env");
        command.arg(option).arg(assert_cmd::cargo::cargo_bin("tamt")).args(split(&line));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let line = |run: &str| format!("{} --save-every 15", line("tamt-kd", run, 100_000_000));
    let run = at(&directory, "closed");
    let mut child = under_env("--default-signal=HUP", line(&run));
    wait_for_step(&run, 15, &mut child);
    signal(&child, "HUP");
    let (output, said) = ended(child);
    assert_eq!(output.status.code(), Some(129), "{said}");
    assert!(said.contains("; saved "), "{said}");

    let run = at(&directory, "nohup");
    let mut child = under_env("--ignore-signal=HUP", line(&run));
    wait_for_step(&run, 15, &mut child);
    signal(&child, "HUP");
    wait_for_step(&run, newest_checkpoint(&run).unwrap() + 30, &mut child);
    signal(&child, "TERM");
    assert_eq!(ended(child).0.status.code(), Some(143));
}

#[test]
fn a_signal_while_the_text_is_read_ends_the_run_and_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = at(&directory, "pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let run = at(&directory, "parent/run");
        let child = start(&line("tamt-mlm", &run, 20).replace(&corpus(), &pipe));
        // The pipe opens when the run begins to read.
        let writer = OpenOptions::new().write(true).open(&pipe).unwrap();
        signal(&child, name);
        let (output, said) = ended(child);
        drop(writer);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("nothing is lost"), "{said}");
        assert!(!Path::new(&at(&directory, "parent")).exists());
    }
}

#[test]
fn a_run_that_fails_ahead_of_its_first_step_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data = cola(&directory.path().join("data"));
    let parent = at(&directory, "parent");
    let run = format!("{parent}/run");
    let few = at(&directory, "few.txt");
    fs::write(&few, "lis lordil\n").unwrap();
    let find = line("imp", &run, 20);
    let tune = format!("tune --model {} --task cola --data {data} --output-dir {run} --max-steps 3", bert());
    let fails = [
        find.replace("--block-size 12", "--block-size 4000"),
        find.replace(&corpus(), &few),
        find.replace(&bert(), &at(&directory, "no-model")),
        format!("{find} --layers 99"),
        format!("{tune} --max-length 4000"),
        tune.replace(&data, &at(&directory, "no-data")),
        format!(
            "pretrain --new {}/no.json --tokenizer {0} --corpus {} --output-dir {run} --max-steps 3",
            bert(),
            corpus()
        ),
    ];
    for line in fails {
        let assert = tamt(&line).failure();
        assert!(!Path::new(&parent).exists(), "{line}: {}", stderr(&assert));
        // A directory that existed stays, as empty as it was.
        fs::create_dir_all(&run).unwrap();
        tamt(&line).failure();
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0, "{line}");
        fs::remove_dir_all(&parent).unwrap();
    }
}
