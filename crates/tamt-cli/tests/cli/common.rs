//! Running the binary, a model to run it on, and safetensors files to read and to spoil.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use serde_json::{Map, Value};

/// The time limit of a command that takes a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(600);

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

/// Runs the binary with the words of `line`.
pub(crate) fn tamt(line: &str) -> Assert {
    Command::cargo_bin("tamt").unwrap().args(split(line)).timeout(DEADLINE).assert()
}

/// Runs the binary with the words of `line` and gives it `input` on stdin.
pub(crate) fn tamt_reading(line: &str, input: &[u8]) -> Assert {
    Command::cargo_bin("tamt").unwrap().args(split(line)).write_stdin(input).timeout(DEADLINE).assert()
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

/// Waits until `path` exists, while `child` runs.
pub(crate) fn wait_for(path: &Path, child: &mut Child) {
    let started = Instant::now();
    while !path.exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before there was {}", path.display());
        assert!(started.elapsed() < DEADLINE, "there is no {}", path.display());
        std::thread::yield_now();
    }
}

/// Sends a signal, by its name without SIG.
pub(crate) fn signal(child: &Child, name: &str) {
    let status =
        std::process::Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().unwrap();
    assert!(status.success());
}

/// A copy of the small BERT to spoil.
pub(crate) fn copy_of_bert(to: &Path) -> String {
    fs::create_dir_all(to).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"] {
        fs::copy(Path::new(&bert()).join(name), to.join(name)).unwrap();
    }
    to.to_str().unwrap().to_owned()
}

/// A path below `directory` as an argument.
pub(crate) fn at(directory: &tempfile::TempDir, name: impl AsRef<OsStr>) -> String {
    directory.path().join(name.as_ref()).to_str().unwrap().to_owned()
}

pub(crate) fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
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

    pub(crate) fn write(&self, path: impl AsRef<Path>) {
        let header = Value::Object(self.header.clone()).to_string();
        let length = (header.len() as u64).to_le_bytes();
        fs::write(path, [&length, header.as_bytes(), &self.data].concat()).unwrap();
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

/// The tensor of a checkpoint with a head that a ticket's tensor masks.
pub(crate) fn masked(family: &str, bitmask: &str) -> String {
    format!("{family}.{}", bitmask.strip_suffix(".bitmask").unwrap())
}

/// Whether a ticket's tensor `bits` keeps the weight at (`row`, `col`).
pub(crate) fn keeps(bits: &[u8], cols: usize, row: usize, col: usize) -> bool {
    bits[row * cols.div_ceil(8) + col / 8] >> (col % 8) & 1 == 1
}
