//! Servers of small models.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Connection};
use crate::common::{Tensors, at, bert, split, tamt};

/// The time limit of a wait that takes a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// A running server, which ends with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// What follows the line with the address.
    pub(crate) stdout: BufReader<ChildStdout>,
    pub(crate) stderr: BufReader<ChildStderr>,
}

impl Running {
    /// Starts `tamt serve` with the words of `line`, at a free port. Without a time limit in `line`, the server waits an
    /// hour for a request: a test may pause ahead of one.
    pub(crate) fn start(line: &str) -> Self {
        Self::start_with(line, &[])
    }

    /// [`Running::start`] with variables of the environment.
    pub(crate) fn start_with(line: &str, variables: &[(&str, &str)]) -> Self {
        let patience = if line.contains("--read-timeout") { "" } else { "--read-timeout 3600" };
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("tamt"))
            .args(split(&format!("serve --address 127.0.0.1:0 {patience} {line}")))
            .env_remove("TAMT_API_KEY")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let says = |line: String| Some(line.split_once("http://")?.1.split(',').next()?.trim().to_owned());
        let Some(address) = stdout.by_ref().lines().map_while(Result::ok).find_map(says) else {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            panic!("there is no server: {said}");
        };
        Self { child, address, stdout, stderr }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::new(&self.address)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.connect().ask("POST", path, "", &body.to_string()).unwrap()
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.connect().ask("GET", path, "", "").unwrap()
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        metric(&mut self.connect(), name).unwrap()
    }

    /// Waits until a metric has a value. The connection that asks counts in `tamt_connections`.
    pub(crate) fn wait_for(&self, name: &str, value: u64) {
        let (started, mut connection) = (Instant::now(), self.connect());
        loop {
            let found = metric(&mut connection, name);
            match &found {
                Ok(found) if *found == value => break,
                Ok(_) => std::thread::yield_now(),
                // The server ends a connection on which this process has paused for longer than it waits.
                Err(_) => connection = self.connect(),
            }
            assert!(started.elapsed() < DEADLINE, "{name} is {found:?}, not {value}");
        }
    }

    /// The vectors of an answer in `OpenAI`'s form, by `/v1/embeddings`.
    #[track_caller]
    pub(crate) fn vectors(&self, model: &str, texts: &[&str]) -> Vec<Vec<f32>> {
        let result = self.post("/v1/embeddings", &json!({ "model": model, "input": texts })).result();
        result["data"].as_array().unwrap().iter().map(|entry| floats(&entry["embedding"])).collect()
    }
}

fn metric(connection: &mut Connection, name: &str) -> io::Result<u64> {
    let text = connection.ask("GET", "/metrics", "", "")?.body;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    Ok(line.and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap())
}

impl Drop for Running {
    fn drop(&mut self) {
        // The server may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An array of numbers, each the nearest f32 of its digits.
#[track_caller]
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.to_string().parse().unwrap()).collect()
}

/// What `tamt encode` gives for texts, with these further flags.
pub(crate) fn encoded(texts: &[&str], flags: &str) -> Vec<Vec<f32>> {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (at(&directory, "texts.txt"), at(&directory, "vectors.safetensors"));
    fs::write(&input, texts.join("\n") + "\n").unwrap();
    tamt(&format!("encode --model {} --input {input} --output {output} --quiet {flags}", bert())).success();
    let tensors = Tensors::read(&output);
    let width = tensors.shape("embeddings")[1];
    tensors.floats("embeddings").chunks(width).map(<[f32]>::to_vec).collect()
}
