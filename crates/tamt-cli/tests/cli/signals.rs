//! A signal ends every verb at once where there is nothing to save, with one exit code. Each verb waits for input that never
//! comes, or works for hours.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::common::{at, bert, corpus, signal, split};

const SIGNALS: [(&str, i32); 3] = [("INT", 130), ("TERM", 143), ("HUP", 129)];

/// Starts the binary with the words of `line`, also if SIGHUP is ignored here, as under `nohup`.
fn start(line: &str, stdin: Stdio) -> Child {
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(assert_cmd::cargo::cargo_bin("tamt")).args(split(line));
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal and checks the end of the process; `said` is what it has printed on stderr so far.
fn is_ended_by(name: &str, code: i32, mut child: Child, mut said: String) {
    signal(&child, name);
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
    assert!(said.contains(&format!("error: stopped by signal {}", code - 128)), "{said}");
}

fn pipe(directory: &tempfile::TempDir) -> String {
    let pipe = at(directory, "pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    pipe
}

#[test]
fn a_signal_ends_a_verb_that_reads_text_or_a_task() {
    let directory = tempfile::tempdir().unwrap();
    let (model, pipe, output) = (bert(), pipe(&directory), at(&directory, "output"));
    let run = format!("--output-dir {output} --block-size 12 --batch-size 2");
    for line in [
        format!("eval --model {model} --corpus {pipe} --block-size 12"),
        format!("pretrain --model {model} --max-steps 2 --corpus {pipe} {run}"),
        format!("find --model {model} --method tamt-mlm --sparsity 0.5 --max-steps 2 --corpus {pipe} {run}"),
        format!("find --model {model} --method magnitude --sparsity 0.5 --eval-corpus {pipe} {run}"),
        format!("eval --model {model} --task-file {pipe} --data {model}"),
        format!("tune --model {model} --task-file {pipe} --data {model} --output-dir {output}"),
    ] {
        for (name, code) in SIGNALS {
            let child = start(&line, Stdio::null());
            // The pipe opens when the verb begins to read.
            let mut writer = OpenOptions::new().write(true).open(&pipe).unwrap();
            if line.contains("corpus") {
                // More than the pipe holds: a part of the text is read and tokenized. A text may be opened twice.
                while writer.write_all(fs::read(corpus()).unwrap().repeat(40).as_slice()).is_err() {
                    writer = OpenOptions::new().write(true).open(&pipe).unwrap();
                }
            }
            is_ended_by(name, code, child, String::new());
        }
    }
    assert!(!fs::exists(&output).unwrap(), "a run that ended ahead of its first step left its directory");
}

#[test]
fn a_signal_ends_encode_and_leaves_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let line = format!("encode --model {} --input - --output {}", bert(), at(&directory, "x.safetensors"));
    for (name, code) in SIGNALS {
        let mut child = start(&line, Stdio::piped());
        // More than a pipe holds: the verb is reading.
        let mut input = child.stdin.take().unwrap();
        input.write_all(&b"the map\n".repeat(1 << 17)).unwrap();
        is_ended_by(name, code, child, String::new());
        drop(input);
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_signal_ends_a_benchmark_and_a_demonstration() {
    let directory = tempfile::tempdir().unwrap();
    let bench = "bench --layers 1 --hidden 64 --heads 2 --vocab 100 --no-operations --steps 1000000000";
    for (name, code) in SIGNALS {
        for line in [bench.to_owned(), format!("demo --json --output-dir {}", at(&directory, name))] {
            let mut child = start(&line, Stdio::null());
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            let mut said = String::new();
            stderr.read_line(&mut said).unwrap();
            signal(&child, name);
            stderr.read_to_string(&mut said).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{line}: {said}");
        }
    }
}
