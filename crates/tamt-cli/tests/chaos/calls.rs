//! Runs under `strace`: the names of the files that they create, and a kill or a full disk at each call that changes a
//! file.

use std::fs;
use std::process::Command;

use crate::runs::{Ended, Runs, Verb, Which, remove};
use crate::tree;

/// The calls that change files.
const CALLS: &str = "write,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,fsync,fdatasync,ftruncate";

/// What happens at a call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// The call fails as on a full disk, and later ones succeed.
    NoSpace,
}

impl Fault {
    fn injection(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::NoSpace => "error=ENOSPC",
        }
    }
}

/// Whether `strace` is there and may trace; prints a line if not.
fn can_trace() -> bool {
    let output = Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]).output();
    let can = output.is_ok_and(|output| output.status.success());
    if !can {
        println!("skipped: strace is absent or may not trace");
    }
    can
}

/// The command line of a run of a few steps.
fn short_line(runs: &Runs, verb: Verb, variant: usize) -> String {
    let mut line = runs.line(Which { verb, variant, doublings: 0 });
    for (long, short) in
        [("steps 40", "steps 7"), ("steps 24", "steps 5"), ("save-every 3", "save-every 2"), ("every 5", "every 3")]
    {
        line = line.replace(long, short);
    }
    line
}

/// Runs `line` with a fault at call number `number` of any thread. `None` if the run has fewer calls.
fn with_fault(runs: &Runs, line: &str, fault: Fault, number: u32) -> Option<Ended> {
    let trace = runs.at("trace");
    let inject = format!("inject={CALLS}:{}:when={number}", fault.injection());
    let calls = format!("trace={CALLS}");
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", &calls, "-e", &inject];
    let ended = runs.finish(line, &strace);
    let traced = String::from_utf8_lossy(&fs::read(&trace).unwrap()).into_owned();
    (traced.contains("(INJECTED)") || traced.contains("killed by SIGKILL")).then_some(ended)
}

/// Lets a fault happen at each call of a run, and the run go on.
fn at_each_call(runs: &Runs, verb: Verb, variant: usize, fault: Fault) {
    let line = short_line(runs, verb, variant);
    let finished = runs.at("finished");
    let ended = runs.finish(&line, &[]);
    assert!(ended.status.success(), "{}", ended.said);
    fs::rename(runs.run(), &finished).unwrap();
    let mut number = 1;
    while let Some(ended) = with_fault(runs, &line, fault, number) {
        let at = format!("{verb:?} {variant}, {fault:?} at call {number}, {}", ended.status);
        println!("{at}");
        assert!(!ended.said.contains("panicked"), "{at}: {}", ended.said);
        tree::assert_whole(&runs.run(), &finished);
        let resumed = runs.finish(&format!("{line} --resume"), &[]);
        assert!(resumed.status.success(), "{at}: {}", resumed.said);
        tree::assert_same(&runs.run(), &finished);
        remove(&runs.run());
        number += 1;
    }
    println!("{verb:?} {variant}, {fault:?} at each of {} calls", number - 1);
    remove(&finished);
    remove(&runs.run());
}

#[test]
fn files_are_created_under_temporary_names() {
    if !can_trace() {
        return;
    }
    let runs = Runs::new();
    let output = "--output-dir {here}/place/run";
    let ticket = "--model {here}/model --ticket {here}/ticket";
    let vectors = "--input {here}/corpus.txt --output {here}/place/run/vectors.safetensors";
    fs::create_dir(runs.run()).unwrap();
    let lines = [
        format!("apply {ticket} {output}"),
        format!("encode {ticket} {vectors}"),
        "demo --data-only {here}/place/run".to_owned(),
        short_line(&runs, Verb::Find, 0),
        short_line(&runs, Verb::Find, 1),
        short_line(&runs, Verb::Tune, 0),
        short_line(&runs, Verb::Tune, 1),
        short_line(&runs, Verb::Pretrain, 1),
    ];
    for line in lines {
        let trace = runs.at("trace");
        let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=open,openat,creat"];
        let ended = runs.finish(&line, &strace);
        assert!(ended.status.success(), "{line}: {}", ended.said);
        let below = format!("{}/", runs.run().display());
        let traced = fs::read_to_string(&trace).unwrap();
        let paths = traced.lines().filter(|call| call.contains("O_CREAT")).filter_map(|call| call.split('"').nth(1));
        let created: Vec<&str> = paths.filter_map(|path| path.strip_prefix(&below)).collect();
        assert!(!created.is_empty(), "{line}");
        for path in created {
            let name = path.rsplit('/').next().unwrap();
            let grows = name == "log.jsonl" || name == ".lock" || name.starts_with("events.out.tfevents.");
            assert!(grows || tree::is_temporary(path), "{line} creates {path} in place");
        }
        remove(&runs.run());
        fs::create_dir(runs.run()).unwrap();
    }
}

#[test]
#[ignore = "takes half an hour"]
fn a_run_survives_a_fault_at_each_call_that_changes_a_file() {
    if !can_trace() {
        return;
    }
    let runs = Runs::new();
    for fault in [Fault::Kill, Fault::NoSpace] {
        for (verb, variant) in [(Verb::Find, 0), (Verb::Find, 1), (Verb::Tune, 0), (Verb::Pretrain, 0)] {
            at_each_call(&runs, verb, variant, fault);
        }
    }
}
