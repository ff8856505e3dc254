//! Running the binary to the end or to a moment in its middle, models and tickets to run it on, and files to read and to
//! spoil.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use serde_json::{Map, Value};
use toml::Table;

/// The time limit of a command that takes a second on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);

/// Times that a run becomes twice as long, if it ends ahead of what is to happen in its middle.
const DOUBLINGS: u32 = 8;

/// Files of the results of runs, none of which is there ahead of a run's last step.
const RESULTS: [&str; 5] =
    ["ticket.safetensors", "model.safetensors", "predictions.tsv", "predictions.json", "eval_results.json"];

/// The small BERT of `tests/golden`: 2 layers, 16 wide, 40 positions, an MLM head, no pooler.
pub(crate) fn bert() -> String {
    golden("bert")
}

/// The text that the tokenizer was trained on: some 1,600 tokens.
pub(crate) fn corpus() -> String {
    golden("corpus.txt")
}

pub(crate) fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
    path.to_str().unwrap().to_owned()
}

/// A command line, split at blanks.
pub(crate) fn split(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The binary, without arguments yet, which is killed at the deadline.
pub(crate) fn tamt_command() -> Command {
    let mut command = Command::cargo_bin("tamt").unwrap();
    command.timeout(DEADLINE);
    command
}

/// Runs the binary with the words of `line`.
pub(crate) fn tamt(line: &str) -> Assert {
    tamt_command().args(split(line)).assert()
}

/// Runs the binary with the words of `line` in a directory.
pub(crate) fn tamt_in(directory: impl AsRef<Path>, line: &str) -> Assert {
    tamt_command().current_dir(directory).args(split(line)).assert()
}

/// Runs the binary with the words of `line` and gives it `input` on stdin.
pub(crate) fn tamt_reading(line: &str, input: &[u8]) -> Assert {
    tamt_command().args(split(line)).write_stdin(input).assert()
}

/// Starts the binary with the words of `line`; its output can be collected with `wait_with_output`.
pub(crate) fn start(line: &str) -> Child {
    std::process::Command::new(assert_cmd::cargo::cargo_bin("tamt"))
        .args(split(line))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The one JSON object that a run with `--json` printed, and nothing else.
pub(crate) fn object(assert: &Assert) -> Map<String, Value> {
    let stdout = std::str::from_utf8(&assert.get_output().stdout).unwrap();
    match serde_json::from_str(stdout) {
        Ok(Value::Object(object)) => object,
        other => panic!("{other:?} instead of one object: {stdout:?}"),
    }
}

pub(crate) fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// Calls `at` with a length, and with twice that length whenever the answer is `None`, which says that a run of the length
/// ended ahead of what was to happen in its middle. How long is enough depends on the machine.
#[track_caller]
pub(crate) fn long_enough<T>(first: u64, at: impl FnMut(u64) -> Option<T>) -> T {
    let longest = first << DOUBLINGS;
    let found = (0..=DOUBLINGS).map(|doublings| first << doublings).find_map(at);
    found.unwrap_or_else(|| panic!("a length of {longest} was too short for what was to happen in its middle"))
}

/// The last step of which a run has a checkpoint. Earlier checkpoints may be gone at any time.
pub(crate) fn newest_checkpoint(run: impl AsRef<Path>) -> Option<u64> {
    let names = fs::read_dir(run).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).max()
}

/// Waits until a run has a checkpoint of `step` or of a later step. False if the run ended first, as it should.
#[track_caller]
pub(crate) fn reaches(run: impl AsRef<Path>, step: u64, child: &mut Child) -> bool {
    let started = Instant::now();
    while newest_checkpoint(&run) < Some(step) {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status} ahead of step {step} of {}", run.as_ref().display());
            return false;
        }
        assert!(started.elapsed() < DEADLINE, "{} does not reach step {step}", run.as_ref().display());
        std::thread::yield_now();
    }
    true
}

/// Waits until a run that has no end has a checkpoint of `step` or of a later step.
#[track_caller]
pub(crate) fn wait_for_step(run: impl AsRef<Path>, step: u64, child: &mut Child) {
    assert!(reaches(run, step, child), "it ended ahead of step {step}");
}

/// Whether a run has begun to write its result.
pub(crate) fn has_result(run: impl AsRef<Path>) -> bool {
    RESULTS.iter().any(|name| run.as_ref().join(name).exists())
}

/// Starts the run with the words of `line` in the directory `run`, and kills it by SIGKILL after a checkpoint of `step` or
/// of a later step. False if its result was there first.
#[track_caller]
pub(crate) fn is_killed_at(line: &str, run: &str, step: u64) -> bool {
    let mut child = start(line);
    if !reaches(run, step, &mut child) {
        return false;
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(9) || status.success(), "{status}");
    status.signal() == Some(9) && !has_result(run)
}

/// Starts the run with the words of `line` in the directory `run`, and sends it a signal after a checkpoint of `step` or of
/// a later step. What it said on stderr, once it has ended with `code`; `None` if its result was there first.
#[track_caller]
pub(crate) fn stopped_at(line: &str, run: &str, step: u64, by: (&str, i32)) -> Option<String> {
    stopped_child(start(line), Path::new(run), step, by)
}

/// [`stopped_at`], of a run that has been started.
#[track_caller]
pub(crate) fn stopped_child(mut child: Child, run: &Path, step: u64, (name, code): (&str, i32)) -> Option<String> {
    if !reaches(run, step, &mut child) {
        return None;
    }
    signal(&child, name);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if has_result(run) {
        assert!([Some(0), Some(code)].contains(&output.status.code()), "{}: {said}", output.status);
        return None;
    }
    assert_eq!(output.status.code(), Some(code), "{said}");
    Some(said)
}

/// The names of files and directories that have been seen below a directory, hidden ones left out: a measure of progress
/// that needs no clock, and that a removed file does not turn back.
#[derive(Default)]
pub(crate) struct Seen(BTreeSet<PathBuf>);

impl Seen {
    /// Looks again, and returns the number of names so far.
    pub(crate) fn look(&mut self, root: &Path) -> u64 {
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")) {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path.clone());
                }
                self.0.insert(path);
            }
        }
        self.0.len() as u64
    }
}

/// Sends a signal, by its name without SIG.
pub(crate) fn signal(child: &Child, name: &str) {
    let status =
        std::process::Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().unwrap();
    assert!(status.success());
}

/// Copies the files of a directory, without its folders.
pub(crate) fn copy_files(from: impl AsRef<Path>, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// A copy of the small BERT to spoil.
pub(crate) fn copy_of_bert(to: &Path) -> String {
    copy_files(bert(), to);
    to.to_str().unwrap().to_owned()
}

/// A copy of the classifier of three outputs of `tests/golden`, of the family `bert` or `roberta`, with its tokenizer.
pub(crate) fn copy_of_classifier(family: &str, to: &Path) -> String {
    copy_files(golden(family), to);
    copy_files(golden(&format!("{family}/classifier")), to);
    to.to_str().unwrap().to_owned()
}

/// The command line that finds a ticket by magnitude, which needs no text.
pub(crate) fn magnitude_line(model: &str, sparsity: impl Display, output: &str) -> String {
    format!("find --model {model} --method magnitude --sparsity {sparsity} --output-dir {output} --quiet")
}

/// Finds a ticket by magnitude and returns its directory.
#[track_caller]
pub(crate) fn magnitude(model: &str, sparsity: impl Display, output: &str) -> String {
    tamt(&magnitude_line(model, sparsity, output)).success();
    output.to_owned()
}

/// A path below `directory` as an argument.
pub(crate) fn at(directory: &tempfile::TempDir, name: impl AsRef<OsStr>) -> String {
    directory.path().join(name.as_ref()).to_str().unwrap().to_owned()
}

pub(crate) fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The files below a directory by their relative paths.
pub(crate) fn files(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, path);
            }
        }
    }
    found
}

pub(crate) fn json_file(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&bytes(path)).unwrap()
}

/// Changes a JSON file.
pub(crate) fn change_json(path: impl AsRef<Path>, change: impl FnOnce(&mut Value)) {
    let mut value = json_file(&path);
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The record of a run.
pub(crate) fn record_of(run: impl AsRef<Path>) -> Table {
    toml::from_str(&fs::read_to_string(run.as_ref().join("config.toml")).unwrap()).unwrap()
}

/// The logged lines of a run, without their seconds.
pub(crate) fn log_of(run: impl AsRef<Path>) -> Vec<Value> {
    let log = fs::read_to_string(run.as_ref().join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["seconds"].take();
        line
    });
    lines.collect()
}

/// The result of a run, without its seconds and its directory.
pub(crate) fn result_of(run: impl AsRef<Path>) -> Value {
    let mut result = json_file(run.as_ref().join("eval_results.json"));
    for key in ["seconds", "output_dir"] {
        result[key].take();
    }
    result
}

/// A safetensors file in its two parts.
#[derive(Clone)]
pub(crate) struct Tensors {
    pub(crate) header: Map<String, Value>,
    pub(crate) data: Vec<u8>,
}

impl Tensors {
    pub(crate) fn read(path: impl AsRef<Path>) -> Self {
        Self::parse(&bytes(path))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Self { header, data: bytes[8 + length..].to_vec() }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let header = Value::Object(self.header.clone()).to_string();
        let length = (header.len() as u64).to_le_bytes();
        [&length, header.as_bytes(), &self.data].concat()
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>) {
        fs::write(path, self.to_bytes()).unwrap();
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        serde_json::from_value(self.header[name]["shape"].clone()).unwrap()
    }

    fn range(&self, name: &str) -> std::ops::Range<usize> {
        let [start, end]: [usize; 2] = serde_json::from_value(self.header[name]["data_offsets"].clone()).unwrap();
        start..end
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.data[self.range(name)]
    }

    pub(crate) fn bytes_mut(&mut self, name: &str) -> &mut [u8] {
        let range = self.range(name);
        &mut self.data[range]
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// Gives a tensor another name.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let info = self.header.remove(from).unwrap();
        self.header.insert(to.to_owned(), info);
    }

    /// The names of the tensors.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.keys().filter(|name| *name != "__metadata__").cloned().collect()
    }
}

/// Each mask of a ticket: the name of its tensor, and its bytes.
pub(crate) fn masks(ticket: &str) -> Vec<(String, Vec<u8>)> {
    let ticket = Tensors::read(format!("{ticket}/ticket.safetensors"));
    ticket.names().into_iter().map(|name| (name.clone(), ticket.bytes(&name).to_vec())).collect()
}

/// The tensor of a checkpoint with a head that a ticket's tensor masks.
pub(crate) fn masked(family: &str, bitmask: &str) -> String {
    format!("{family}.{}", bitmask.strip_suffix(".bitmask").unwrap())
}

/// Whether a ticket's tensor `bits` keeps the weight at (`row`, `col`).
pub(crate) fn keeps(bits: &[u8], cols: usize, row: usize, col: usize) -> bool {
    bits[row * cols.div_ceil(8) + col / 8] >> (col % 8) & 1 == 1
}
